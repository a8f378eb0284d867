"""The live page: its files are copied to the folder `live` of the site, and its numbers come out of those files.

In Markdown, {{ live_bits }}, {{ live_float_bits }}, {{ live_images }}, {{ live_data }}, {{ live_parameters }} and
{{ live_checkpoint }} are what the header of the weights says; {{ live_megabytes }} is what a visit loads in all.
"""

import json
from pathlib import Path
from shutil import copytree, ignore_patterns

BEFORE, AFTER = "var liveWeights = ", ";\n"  # as tools/live.py writes them
FRAGMENTS = ignore_patterns("*.html")  # part of the page itself
DATA = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "kmnist": "Kuzushiji-MNIST"}


def numbers(folder):
    text = (folder / "weights.js").read_text(encoding="utf-8")
    header = json.loads(text.removeprefix(BEFORE).removesuffix(AFTER))["header"]
    score = header["score"]
    return {
        "live_bits": f"{score['bits_per_pixel']:.4f}",
        "live_float_bits": f"{score['float_bits_per_pixel']:.4f}",
        "live_images": f"{score['images']:,}",
        "live_data": DATA.get(score["data"], "the built-in digits"),
        "live_parameters": f"{header['parameters']:,}",
        "live_checkpoint": header["checkpoint"]["name"],
        "live_megabytes": f"{sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.2f}",
    }


def set_numbers(app, config):
    config.myst_substitutions = {**config.myst_substitutions, **numbers(Path(app.srcdir, "book", "live"))}


def copy_files(app, error):
    if error is None and app.builder.format == "html":
        copytree(Path(app.srcdir, "book", "live"), Path(app.outdir, "live"), dirs_exist_ok=True, ignore=FRAGMENTS)


def setup(app):
    app.connect("config-inited", set_numbers, priority=100)
    app.connect("build-finished", copy_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
