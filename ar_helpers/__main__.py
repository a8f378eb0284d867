"""The command line: python -m ar_helpers sample | complete | train | evaluate | models."""

import argparse
import contextlib
import dataclasses
import json
import platform
import secrets
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from . import data, metrics, models, plots, sampling, training

RECIPES = {  # name: class, sizes, recipe; what a reader's own run of the chapter gives on two CPU cores
    "one_hot_mlp": (models.OneHotMLP, {}, training.TrainConfig(steps=10_000)),
    "positional_mlp": (models.PositionalMLP, {}, training.TrainConfig(steps=9_500)),
    "conditional_mlp": (models.ConditionalMLP, {}, training.TrainConfig(steps=9_500)),
    "transformer": (
        models.PixelTransformer,
        {},
        training.TrainConfig(
            steps=2_950, batch_size=16, learning_rate=4e-3, weight_decay=0.1, muon=1e-2, warmup=0.1, clip=1.0
        ),
    ),
}
RECIPES["transformer_small"] = (  # for the browser
    models.PixelTransformer,
    {"width": 80, "depth": 3},
    dataclasses.replace(RECIPES["transformer"][-1], steps=2_000),
)
for height, width in ((1, 2), (2, 2), (4, 4)):  # chapter 7: several pixels for one step of the transformer
    patch = {"patch_height": height, "patch_width": width}
    recipe = RECIPES["transformer_small"][-1]  # so that chapter 7 can compare them with that model
    RECIPES[f"patch_{height}x{width}"] = (models.PatchTransformer, patch, recipe)
    RECIPES[f"patch_{height}x{width}_independent"] = (models.PatchTransformer, patch | {"independent": True}, recipe)
DRAWS = "transformer"  # which shipped model draws unless another is named


def sample(arguments: argparse.Namespace) -> None:
    """Draw digits: a PNG of each, a sheet of all, and what they were drawn with."""
    _check_numbers(arguments)
    model, source = _load(arguments.model)
    classes = _targets("--targets", arguments.targets, model)
    count = arguments.count or (10 if classes is None else 1)
    labels = None if classes is None else [label for label in classes for _ in range(count)]
    samples = _draw(model, arguments, labels=labels, count=None if labels else count)
    columns = count if classes is not None and count > 1 else 10
    _store(samples, labels, model, arguments, source, columns)


def complete(arguments: argparse.Namespace) -> None:
    """Draw endings to the top of a picture of a digit."""
    _check_numbers(arguments)
    model, source = _load(arguments.model)
    classes = _targets("--target", arguments.target, model)
    if arguments.target is not None and len(classes) > 1:
        raise ValueError(f"--target must be a single number, not {arguments.target!r}")
    picture, background = data.read_picture(arguments.picture)
    if picture.shape[0] != model.image_size:
        raise ValueError(f"--model must be of images of {picture.shape[0]} pixels a side, not {model.image_size}")
    count = arguments.count or 8
    tokens = data.quantize(picture, model.num_levels).flatten()
    labels, beliefs = None, None
    if model.num_classes:
        if not 0 <= arguments.keep_rows < model.image_size:
            raise ValueError(f"keep_rows must be from 0 to {model.image_size - 1}, not {arguments.keep_rows}")
        beliefs = sampling.label_beliefs(model, tokens.unsqueeze(0))[0, arguments.keep_rows * model.image_size]
        generator = torch.Generator().manual_seed(arguments.seed)
        drawn = torch.multinomial(beliefs, count, replacement=True, generator=generator)
        labels = drawn.tolist() if arguments.target is None else classes[:1] * count
    samples = _draw(model, arguments, tokens=tokens.expand(count, -1), labels=labels, keep_rows=arguments.keep_rows)
    print(f"It was read as {background}.", file=sys.stderr)
    more = {"picture": str(arguments.picture), "read_as": background, "keep_rows": arguments.keep_rows}
    if beliefs is not None:
        more["beliefs"] = [round(belief, 4) for belief in beliefs.tolist()]
    _store(samples, labels, model, arguments, source, min(count, 10), more)


def _check_numbers(arguments: argparse.Namespace) -> None:
    for name in ("count", "scale"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise ValueError(f"--{name} must be at least 1, not {getattr(arguments, name)}")


def _load(name: str) -> tuple[nn.Module, Path]:
    """A shipped model, or one in a file, and where it came from."""
    if name in training.card_names():
        return training.load_pretrained(name), training.CHECKPOINTS / f"{name}.safetensors"
    if Path(name).suffix == ".safetensors":
        return training.load_checkpoint(name), Path(name)
    names = ", ".join(training.card_names())
    raise ValueError(f"the model must be a .safetensors file or one of {names}, not {name!r}")


def _targets(option: str, text: str | None, model: nn.Module) -> list[int] | None:
    """The classes asked for: all of them if nothing is said, None for a model that has no classes."""
    if not model.num_classes:
        if text is not None:
            raise ValueError(f"{option} must not be given: this model draws what it likes, not {text!r}")
        return None
    if text is None:
        return list(range(model.num_classes))
    classes = [int(part) if part.strip().isdecimal() else -1 for part in text.split(",")]
    if not all(0 <= label < model.num_classes for label in classes):
        raise ValueError(f"{option} must be numbers from 0 to {model.num_classes - 1}, as in 0,1,2, not {text!r}")
    return classes


def _draw(model: nn.Module, arguments: argparse.Namespace, **what) -> sampling.Samples:
    knobs = {name: getattr(arguments, name) for name in ("temperature", "top_k", "top_p", "seed")}
    return (sampling.complete if "tokens" in what else sampling.generate)(model, **what, **knobs)


def _store(samples, labels, model, arguments, source, columns, more=None) -> None:
    """Write the drawings aside, then rename them into place; print what was drawn."""
    out = Path(arguments.out) if arguments.out else _new_folder(arguments.folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    pictures = np.round(255 * data.dequantize(samples.tokens, model.num_levels).numpy()).astype(np.uint8)
    pictures = pictures.reshape(-1, model.image_size, model.image_size)
    with torch.no_grad():
        logits = model.image_logits(samples.tokens, None if labels is None else torch.tensor(labels))
    likelihoods, _ = sampling.prediction_maps(logits, samples.tokens)
    start = (more or {}).get("keep_rows", 0) * model.image_size
    bits = -likelihoods[:, start:].log2().mean(1)  # at natural temperature, of what was drawn
    images, seen = [], {}
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as aside:
        for i, picture in enumerate(pictures):
            label = "any" if labels is None else labels[i]
            seen[label] = seen.get(label, 0) + 1
            name = f"{label}_{seen[label]:03}"
            Image.fromarray(plots.enlarge(picture, arguments.scale)).save(Path(aside, f"{name}.png"))
            if arguments.gif:
                one = samples.tokens[i : i + 1]
                plots.animate(one, model.num_levels, Path(aside, f"{name}.gif"), scale=arguments.scale)
            images.append({"file": f"{name}.png", "label": label, "bits_per_pixel": round(bits[i].item(), 4)})
        Image.fromarray(plots.tile(pictures, columns, 4)).save(Path(aside, "sheet.png"))
        if arguments.gif:
            plots.animate(samples.tokens, model.num_levels, Path(aside, "sheet.gif"), columns)
        settings = {name: getattr(arguments, name) for name in ("temperature", "top_k", "top_p", "seed")}
        checkpoint = {"name": arguments.model, "crc32": f"{zlib.crc32(source.read_bytes()):08x}"}
        record = {"checkpoint": checkpoint, **settings, **(more or {}), "images": images}
        Path(aside, "samples.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        out.mkdir(exist_ok=True)
        for file in sorted(Path(aside).iterdir()):
            file.replace(out / file.name)
    mean = bits.mean().item()
    text = f"{len(images)} drawings in {out}, {mean:.3f} bits per pixel on average; sheet.png shows them all"
    print(json.dumps({"folder": str(out), **record}) if arguments.json else text)


def _new_folder(name: str) -> Path:
    """A folder that is not there yet: NAME, NAME-2, NAME-3 ..."""
    number = 1
    while (folder := Path(name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder


def train(arguments: argparse.Namespace) -> None:
    """Train one of the book's models, score it as stored, and write weights and card."""
    if arguments.name == "lenet5":
        train_classifier(arguments)
        return
    model_class, sizes, config = RECIPES[arguments.name]
    if arguments.steps is not None:
        config = dataclasses.replace(config, steps=arguments.steps)
    if arguments.seed is not None:
        config = dataclasses.replace(config, seed=arguments.seed)
    digits = data.load_images(arguments.data)
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    model = model_class(**sizes).to(arguments.device)
    tokens = data.quantize(digits.train.images, model.num_levels).flatten(1)
    labels = digits.train.labels if model.num_classes else None
    if isinstance(model, models.SequenceModel):
        dataset = data.TokenImages(tokens, labels)
    else:
        shape = {"context_length": model.context_length, "num_levels": model.num_levels}
        dataset = data.ThinnedWindows(tokens, labels, **shape)
    state = out / f"{arguments.name}.state.safetensors"
    with _resumable(state):
        history = training.fit(model, dataset, config, digits.val, resume=state)
        model.load_state_dict({name: tensor.half().float() for name, tensor in model.state_dict().items()})
        print("Scoring the weights as they are stored ...", flush=True)
        test = training.quick_images(digits.test)
        scores = {"test_bits_per_pixel": training.bits_per_pixel(model, test)}
        drawn = [i % model.num_classes for i in range(100)] if model.num_classes else None
        began = time.perf_counter()
        sampling.generate(model, drawn, count=100, seed=0)
        seconds = time.perf_counter() - began
    card = {
        "name": arguments.name,
        "class": type(model).__name__,
        "config": model.config,
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": training.recipe(config, dataset),
        "fingerprint": training.fingerprint(model),
        "scores": scores,
        "milliseconds_per_image": 1000 * seconds / 100,
        "hardware": hardware(arguments.device),
        "dtype": "bfloat16" if training.bfloat16_is_faster(arguments.device) else "float32",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "history": dataclasses.asdict(history),
    }
    training.save_checkpoint(out / f"{arguments.name}.safetensors", model, card)
    state.unlink()
    print(f"{arguments.name}: {scores['test_bits_per_pixel']:.4f} bits per pixel on {len(test.images)} test images")


@contextlib.contextmanager
def _resumable(state: Path):
    """Whoever is stopped by hand is told whether the run can go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on from here" if state.exists() else "") from None


def train_classifier(arguments: argparse.Namespace) -> None:
    """Train the classifier that judges drawings; it takes no --steps, and starts anew when interrupted."""
    if arguments.steps is not None:
        raise ValueError(f"--steps must not be given for lenet5, not {arguments.steps}")
    out = Path(arguments.out)
    digits = data.load_images(arguments.data)
    out.mkdir(parents=True, exist_ok=True)
    card = metrics.train_classifier(digits, out / "lenet5.safetensors", seed=arguments.seed or 0)
    print(f"lenet5: reads {card['test_accuracy']:.2%} of the test images, trained in {card['seconds']:.0f} s")


def hardware(device: str) -> str:
    """What the run was done on, in words."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    if device == "mps":
        return "an Apple GPU"
    threads = torch.get_num_threads()
    return f"{threads} CPU {'core' if threads == 1 else 'cores'}"


def evaluate(arguments: argparse.Namespace) -> None:
    """Score a shipped checkpoint, or a file, in bits per pixel."""
    model, _ = _load(arguments.name)
    if arguments.limit is not None and arguments.limit < 1:
        raise ValueError(f"--limit must be at least 1, not {arguments.limit}")
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the result
        digits = data.load_images(arguments.data)
    images = data.ImageSet(*(part[: arguments.limit] for part in getattr(digits, arguments.split)))
    bits, count = training.bits_per_pixel(model.to(arguments.device), images), len(images.images)
    result = {"name": arguments.name, "data": digits.name, "split": arguments.split, "images": count}
    text = f"{bits:.4f} bits per pixel on {count} {arguments.split} images of {digits.name}"
    print(json.dumps(result | {"bits_per_pixel": bits}) if arguments.json else text)


def show_models(arguments: argparse.Namespace) -> None:
    """List the checkpoints that ship with the package."""
    cards = {name: training.load_card(name) for name in training.card_names()}
    print(json.dumps(cards) if arguments.json else training.model_table())


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ar_helpers", description="Models that draw digits pixel by pixel.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name, function, example):
        help_text = function.__doc__.rstrip(".")
        sub = commands.add_parser(name, help=help_text, description=function.__doc__, epilog=f"Example: {example}")
        sub.set_defaults(run=function)
        return sub

    def drawing(sub, folder):
        """The options that all that draws has; those with an underscore are another project's spellings."""
        sub.set_defaults(folder=folder)
        sub.add_argument("--count", type=int, help="drawings of each class (default: 1; complete: 8 in all)")
        sub.add_argument("--temperature", type=float, default=1.0, help="below 1 bolder, above 1 wilder (default: 1)")
        sub.add_argument("--top-k", "--top_k", type=int, help="draw from the k likeliest grey levels only")
        sub.add_argument("--top-p", "--top_p", type=float, help="from the likeliest that have this probability")
        sub.add_argument("--seed", type=int, default=secrets.randbelow(2**31), help="the same seed, the same drawings")
        sub.add_argument("--gif", "--generate_gifs", action="store_true", help="also show each being drawn")
        sub.add_argument("--model", default=DRAWS, help="a shipped checkpoint or a .safetensors file")
        sub.add_argument("--scale", type=int, default=8, help="how many times a pixel is enlarged (default: 8)")
        sub.add_argument("--out", help=f"folder to write into (default: a new one, {folder})")
        sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command("sample", sample, "python -m ar_helpers sample --targets 0,1,2 --count 8 --temperature 0.9 --gif")
    sub.add_argument("--targets", help="the classes to draw, as in 0,1,2 (default: all)")
    drawing(sub, "samples")

    sub = command("complete", complete, "python -m ar_helpers complete my_seven.jpg --keep-rows 14 --count 8")
    sub.add_argument("picture", metavar="IMAGE", help="any picture of one digit, dark on light or light on dark")
    sub.add_argument("--keep-rows", type=int, default=14, help="rows of 28 to keep from the top (default: 14)")
    sub.add_argument("--target", help="what it is to become (default: drawn by what the kept rows suggest)")
    drawing(sub, "completions")

    sub = command("train", train, "python -m ar_helpers train one_hot_mlp --steps 500 --out mine")
    sub.add_argument("name", choices=[*sorted(RECIPES), "lenet5"])
    sub.add_argument("--steps", type=int, help="in place of the recipe's")
    sub.add_argument("--seed", type=int, help="in place of the recipe's")
    sub.add_argument("--out", default=".", help="folder for the weights and the card (default: this one)")
    sub.add_argument("--data", default="mnist", help="mnist, fashion_mnist, kmnist or digits")
    sub.add_argument("--device", default=training.best_device(), choices=("cpu", "cuda", "mps"))

    sub = command("evaluate", evaluate, "python -m ar_helpers evaluate one_hot_mlp --limit 500")
    sub.add_argument("name", help="a shipped checkpoint or a .safetensors file")
    sub.add_argument("--data", default="mnist", help="mnist, fashion_mnist, kmnist or digits")
    sub.add_argument("--split", default="test", choices=("train", "val", "test"))
    sub.add_argument("--limit", type=int, help="only the first so many images")
    sub.add_argument("--device", default=training.best_device(), choices=("cpu", "cuda", "mps"))
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command("models", show_models, "python -m ar_helpers models")
    sub.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; bad input ends it with one line and exit code 2."""
    options = parser()
    parsed = options.parse_args(arguments)
    try:
        parsed.run(parsed)
    except (ValueError, TypeError, OSError) as error:
        options.exit(2, f"error: {error}\n")
    except KeyboardInterrupt as stop:
        options.exit(130, f"stopped: {str(stop) or 'nothing was written'}\n")


if __name__ == "__main__":
    main()
