"""Maintain the book's notebooks: execute them, refresh their mirror cells, write the repository's address.

python tools/book.py execute [NOTEBOOK ...]     run from top to bottom on the real data and store the outputs
python tools/book.py mirror                     copy the package's classes into the cells tagged mirror
python tools/book.py samples                    draw the landing page's pictures with the shipped models
python tools/book.py address URL                write the repository's address wherever it is needed
"""

import ast
import hashlib
import json
import os
import re
import sys
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
MODELS = [*sorted((ROOT / "ar_helpers" / "models").glob("[!_]*.py")), ROOT / "benchmarks" / "chapter_models.py"]
CARDS = ROOT / "ar_helpers" / "checkpoints"
RECORDS = ROOT / "ar_helpers" / "records"
HOLD_ADDRESS = ["pyproject.toml", "README.md", "CITATION.cff", *(f"notebooks/{path.name}" for path in NOTEBOOKS)]


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def write(path: Path, notebook: nbformat.NotebookNode) -> None:
    """Write aside, then rename, with the solutions folded in Colab."""
    solutions = [cell for cell in notebook.cells if cell.source.startswith("#### Solution")]
    for cell in solutions:
        cell.metadata["id"] = cell.id  # where Colab looks for it
    notebook.metadata["colab"] = {"collapsed_sections": [cell.id for cell in solutions]}
    aside = path.with_suffix(".ipynb.part")
    nbformat.write(notebook, aside)
    aside.replace(path)


def tagged(notebook: nbformat.NotebookNode, tag: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def code_hash(notebook: nbformat.NotebookNode) -> str:
    """What the stored outputs depend on: the code cells, and the cards and records that they name.

    The repository's address, in the cell that serves Colab, may change without making them stale.
    """
    code = [cell.source.replace(repository(), "") for cell in notebook.cells if cell.cell_type == "code"]
    text = "\n".join(code)
    named = [card for card in sorted(CARDS.glob("*.json")) if re.search(rf"[\"']{card.stem}[\"']", text)]
    named += [file for file in sorted(RECORDS.glob("*.json")) if f'load_record("{file.stem}")' in text]
    parts = code + [file.read_text(encoding="utf-8") for file in named]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def definitions(source: str) -> dict[str, tuple[int, int]]:
    """The names that a piece of code defines at its top level, with their lines: from, counted from 0, and up to.

    A comment just above belongs to the name. Names on neighbouring lines, like those of a constant that grows, are one.
    """
    found, lines = {}, source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = node.name
        elif isinstance(node, ast.Assign | ast.AugAssign):
            name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
        else:
            continue
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))]) - 1
        while first > 0 and lines[first - 1].startswith("#"):
            first -= 1
        first, _ = found.get(name, (first, 0))
        found[name] = first, node.end_lineno
    return found


def mirror_source(cell: nbformat.NotebookNode) -> tuple[Path, str]:
    """The file of models, and its code, that a mirror cell shows: from the first of its names to the last."""
    names = [name for name in definitions(cell.source) if name != "__all__"]
    for path in MODELS:
        source = path.read_text(encoding="utf-8")
        found = definitions(source)
        if names[0] in found:
            return path, "\n".join(source.splitlines()[found[names[0]][0] : found[names[-1]][1]])
    raise KeyError(f"no file of models defines {names[0]}")


def model_code(path: Path) -> str:
    """A file of models without its docstring and imports."""
    source = path.read_text(encoding="utf-8")
    imports = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join(source.splitlines()[imports[-1].end_lineno :]).strip()


def mirror() -> None:
    for path in NOTEBOOKS:
        notebook = read(path)
        stale = [cell for cell in tagged(notebook, "mirror") if cell.source != mirror_source(cell)[1]]
        for cell in stale:
            cell.source = mirror_source(cell)[1]
        write(path, notebook)
        if stale:
            print(f"{path.name}: {len(stale)} cells refreshed; run `make execute NOTEBOOK=notebooks/{path.name}`")


def execute(paths: list[Path]) -> None:
    from nbclient import NotebookClient

    sys.path.insert(0, str(ROOT))
    import ar_helpers as ar

    os.environ.pop("AR_QUICK", None)
    os.environ["AR_CLAIMS"] = "1"  # what the text claims must hold
    os.environ["TQDM_DISABLE"] = "1"  # bars are for people who wait
    if (ar.load_images("mnist").test.images == ar.load_images("digits").test.images).all():
        sys.exit("MNIST cannot be had here, and outputs of the built-in digits are not stored: set AR_DATA")
    if os.environ.get("AR_DATA"):
        os.environ["AR_DATA"] = str(Path(os.environ["AR_DATA"]).resolve())
    for path in paths:
        print(f"{path.name} ...", flush=True)
        notebook = read(path)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        options = {"timeout": 3600, "kernel_name": "python3", "record_timing": False, "coalesce_streams": True}
        client = NotebookClient(notebook, **options, resources={"metadata": {"path": str(path.parent)}})
        client.execute()
        notebook.metadata = nbformat.from_dict(
            {
                "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                "language_info": {"name": "python"},
                "code_hash": code_hash(notebook),
            }
        )
        write(path, notebook)


def samples() -> None:
    from PIL import Image

    import ar_helpers as ar

    folder = ROOT / "book" / "_static" / "samples"
    folder.mkdir(exist_ok=True)
    for name in ("one_hot_mlp", "positional_mlp", "conditional_mlp", "transformer"):
        model = ar.load_pretrained(name)
        labels = list(range(10)) * 2 if model.num_classes else None
        drawn = ar.generate(model, labels, count=20, seed=0).tokens
        ar.show_images(drawn, model.num_levels, columns=5).savefig(folder / f"{name}.png", dpi=96, transparent=True)
    model = ar.load_pretrained("transformer_full")  # the best there is, in motion, and a still for those who want none
    ar.animate(ar.generate(model, range(10), seed=0).tokens, model.num_levels, folder / "drawing.gif")
    with Image.open(folder / "drawing.gif") as frames:
        still = frames.convert("L")
    still.save(folder / "drawing.png", optimize=True)
    painter = ar.load_pretrained("landscapes")
    scenes = ar.generate(painter, [4, 9, 2, 15], seed=0).tokens  # a dawn, a day, a dusk and a night
    ar.animate(scenes, painter.num_levels, folder / "landscapes.gif", columns=4, frames=33, scale=2)
    with Image.open(folder / "landscapes.gif") as frames:
        frames.convert("RGB").save(folder / "landscapes.png", optimize=True)
    share = Image.new("L", (1200, 630), still.getpixel((0, 0)))  # the size that social networks ask for
    twice = still.resize((2 * still.width, 2 * still.height), Image.Resampling.NEAREST)
    share.paste(twice, ((share.width - twice.width) // 2, (share.height - twice.height) // 2))
    share.save(folder / "share.png", optimize=True)


def repository() -> str:
    """The address that pyproject.toml holds."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]


def address(new: str) -> None:
    if not re.fullmatch(r"https://[\w.-]+(/[\w.-]+)+(?<!/)(?<!\.git)", new):
        sys.exit(f"URL must look like https://github.com/you/pixel-by-pixel, not {new!r}")
    old = repository()
    for name in HOLD_ADDRESS:
        text = (ROOT / name).read_text(encoding="utf-8")
        if old in text:
            (ROOT / name).write_text(text.replace(old, new), encoding="utf-8")
            print(f"{name}: {text.count(old)} x")


def main(command: str = "", *arguments: str) -> None:
    if command == "execute":
        execute([Path(name).resolve() for name in arguments] or NOTEBOOKS)
    elif command == "mirror" and not arguments:
        mirror()
    elif command == "samples" and not arguments:
        samples()
    elif command == "address" and len(arguments) == 1:
        address(arguments[0])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
