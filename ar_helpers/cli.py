"""The command line: python -m ar_helpers sample | complete | train | evaluate | models. And reading a picture."""

import argparse
import contextlib
import dataclasses
import json
import secrets
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from . import cards, data, metrics, plots, recipes, sampling, scoring, tokens, training
from .checks import check_agreement, check_at_least, check_choice, check_range

DRAWS = "transformer"  # which shipped model draws unless another is named


def read_picture(path: str | Path) -> tuple[Tensor, str]:
    """A picture of one digit as MNIST has it: (28, 28), uint8, light on dark, 20 pixels long, its centre of mass amid.

    Returns the picture, and how its own colours were understood: "dark on light" or "light on dark". One that is
    light on dark and of 28 x 28 pixels is taken as it is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no picture, or one of a single shade.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no picture {path}")
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGBA")
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no picture that can be read ({error})") from error
    white = Image.new("RGBA", picture.size, "white")
    grey = np.asarray(Image.alpha_composite(white, picture).convert("L"), dtype=np.float32)
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ground = np.median(edge)
    dark_on_light = ground > (grey.min() + grey.max()) / 2
    if dark_on_light:
        grey, ground = 255 - grey, 255 - ground
    contrast = grey.max() - ground
    if contrast < 25:
        raise ValueError(f"{path} shows no digit: it is nearly all of one shade")
    words = "dark on light" if dark_on_light else "light on dark"
    if not dark_on_light and grey.shape == (28, 28):
        return torch.from_numpy(grey.astype(np.uint8)), words
    ink = np.clip((grey - ground) / contrast * 1.2 - 0.1, 0, 1)  # neither the paper's grain nor a pale pen counts
    rows, cols = np.nonzero(ink.max(1) > 0)[0], np.nonzero(ink.max(0) > 0)[0]
    ink = ink[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    longest = max(ink.shape)
    size = tuple(max(1, round(20 * side / longest)) for side in reversed(ink.shape))
    small = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BOX if longest > 20 else Image.BICUBIC))
    small = np.clip(small / small.max(), 0, 1)
    height, width = small.shape
    middle = [(np.indices(small.shape)[axis] * small).sum() / small.sum() for axis in (0, 1)]
    top, left = (
        int(np.clip(round(13.5 - centre), 0, 28 - side)) for centre, side in zip(middle, small.shape, strict=True)
    )
    digit = np.zeros((28, 28), np.float32)
    digit[top : top + height, left : left + width] = small
    return torch.from_numpy(np.round(255 * digit).astype(np.uint8)), words


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
    single = arguments.target is None or len(classes) == 1
    check_agreement("--target must be a single number", single, repr(arguments.target))
    picture, background = read_picture(arguments.picture)
    side = picture.shape[0]
    check_agreement(f"--model must be of images of {side} pixels a side", side == model.image_size, model.image_size)
    count = arguments.count or 8
    pixels = tokens.quantize(picture, model.num_levels).flatten()
    labels, beliefs = None, None
    if model.num_classes:
        check_range(0, side - 1, keep_rows=arguments.keep_rows)
        beliefs = scoring.label_beliefs(model, pixels.unsqueeze(0))[0, arguments.keep_rows * side]
        generator = torch.Generator().manual_seed(arguments.seed)
        drawn = torch.multinomial(beliefs, count, replacement=True, generator=generator)
        labels = drawn.tolist() if arguments.target is None else classes[:1] * count
    samples = _draw(model, arguments, tokens=pixels.expand(count, -1), labels=labels, keep_rows=arguments.keep_rows)
    print(f"It was read as {background}.", file=sys.stderr)
    more = {"picture": str(arguments.picture), "read_as": background, "keep_rows": arguments.keep_rows}
    if beliefs is not None:
        more["beliefs"] = [round(belief, 4) for belief in beliefs.tolist()]
    _store(samples, labels, model, arguments, source, min(count, 10), more)


def _check_numbers(arguments: argparse.Namespace) -> None:
    for name in ("count", "scale"):
        if getattr(arguments, name) is not None:
            check_at_least(1, **{f"--{name}": getattr(arguments, name)})


def _load(name: str) -> tuple[nn.Module, Path]:
    """A shipped model, or one in a file, and where it came from."""
    if Path(name).suffix == ".safetensors":
        return cards.load_checkpoint(name), Path(name)
    check_choice("the model", name, cards.card_names(), "a .safetensors file or one of")
    return cards.load_pretrained(name), cards.CHECKPOINTS / f"{name}.safetensors"


def _targets(option: str, text: str | None, model: nn.Module) -> list[int] | None:
    """The classes asked for: all of them if nothing is said, None for a model that has no classes."""
    if not model.num_classes:
        check_agreement(f"{option} must not be given: this model draws what it likes", text is None, repr(text))
        return None
    if text is None:
        return list(range(model.num_classes))
    classes = [int(part) if part.strip().isdecimal() else -1 for part in text.split(",")]
    numbers = all(0 <= label < model.num_classes for label in classes)
    check_agreement(f"{option} must be numbers from 0 to {model.num_classes - 1}, as in 0,1,2", numbers, repr(text))
    return classes


def _draw(model: nn.Module, arguments: argparse.Namespace, **what) -> sampling.Samples:
    knobs = {name: getattr(arguments, name) for name in ("temperature", "top_k", "top_p", "seed")}
    return (sampling.complete if "tokens" in what else sampling.generate)(model, **what, **knobs)


def _store(samples, labels, model, arguments, source, columns, more=None) -> None:
    """Write the drawings aside, then rename them into place; print what was drawn."""
    out = Path(arguments.out) if arguments.out else _new_folder(arguments.folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    pictures = np.round(255 * tokens.dequantize(samples.tokens, model.num_levels).numpy()).astype(np.uint8)
    pictures = pictures.reshape(-1, model.image_size, model.image_size)
    start = (more or {}).get("keep_rows", 0) * model.image_size
    given = None if labels is None else torch.tensor(labels)
    bits = scoring.pixel_bits(model, samples.tokens, given)[:, start:].mean(1)  # of what was drawn, without knobs
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
    """Train one of the book's models, or all; score it as stored, and write weights and card."""
    if arguments.name in ("lenet5", "all"):  # the classifier has no steps, and those of all would differ
        check_agreement(f"--steps must not be given for {arguments.name}", arguments.steps is None, arguments.steps)
    names = [*recipes.RECIPES, "lenet5"] if arguments.name == "all" else [arguments.name]
    if len(names) > 1 and arguments.device == "cpu":
        names.remove("transformer_full")  # days; it is seven minutes of a large GPU
    changes = {name: getattr(arguments, name) for name in ("steps", "seed") if getattr(arguments, name) is not None}
    configs = {name: dataclasses.replace(recipes.RECIPES[name].config, **changes) for name in names if name != "lenet5"}
    digits, out = data.load_images(arguments.data), Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name == "lenet5":
            card = metrics.train_classifier(digits, out / "lenet5.safetensors", seed=arguments.seed or 0)
            print(f"lenet5: reads {card['test_accuracy']:.2%} of the test images, trained in {card['seconds']:.0f} s")
        else:
            _train_model(name, configs[name], arguments.device, digits, out)


def _train_model(name: str, config: training.TrainConfig, device: str, digits: data.Digits, out: Path) -> None:
    recipe = recipes.RECIPES[name]
    torch.manual_seed(config.seed)
    model = recipe.model(**recipe.sizes).to(device)
    pixels = tokens.quantize(digits.train.images, model.num_levels).flatten(1)
    dataset = recipes.data_set(model, pixels, digits.train.labels)
    state = out / f"{name}.state.safetensors"
    with _resumable(state):
        history = training.fit(model, dataset, config, digits.val, resume=state)
        model.load_state_dict({name: tensor.half().float() for name, tensor in model.state_dict().items()})
        print("Scoring the weights as they are stored ...", flush=True)
        test = digits.test.first(data.full_or_quick(len(digits.test.images), training.QUICK_IMAGES))
        bits = scoring.bits_per_pixel(model, test)
        drawn = [i % model.num_classes for i in range(100)] if model.num_classes else None
        began = time.perf_counter()
        sampling.generate(model, drawn, count=100, seed=0)
        milliseconds = 1000 * (time.perf_counter() - began) / 100
    scores = {"scores": {"test_bits_per_pixel": bits}, "milliseconds_per_image": milliseconds}
    card = cards.make_card(name, model, config, dataset, history, **scores)
    cards.save_checkpoint(out / f"{name}.safetensors", model, card)
    state.unlink()
    print(f"{name}: {bits:.4f} bits per pixel on {len(test.images)} test images")


@contextlib.contextmanager
def _resumable(state: Path):
    """Whoever is stopped by hand is told whether the run can go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on from here" if state.exists() else "") from None


def evaluate(arguments: argparse.Namespace) -> None:
    """Score a shipped checkpoint, or a file, in bits per pixel."""
    model, _ = _load(arguments.name)
    if arguments.limit is not None:
        check_at_least(1, **{"--limit": arguments.limit})
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the result
        digits = data.load_images(arguments.data)
    images = getattr(digits, arguments.split).first(arguments.limit)
    bits, count = scoring.bits_per_pixel(model.to(arguments.device), images), len(images.images)
    result = {"name": arguments.name, "data": digits.name, "split": arguments.split, "images": count}
    text = f"{bits:.4f} bits per pixel on {count} {arguments.split} images of {digits.name}"
    print(json.dumps(result | {"bits_per_pixel": bits}) if arguments.json else text)


def show_models(arguments: argparse.Namespace) -> None:
    """List the checkpoints that ship with the package."""
    shipped = {name: cards.load_card(name) for name in cards.card_names()}
    print(json.dumps(shipped) if arguments.json else cards.model_table())


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
    sub.add_argument("name", choices=[*sorted(recipes.RECIPES), "lenet5", "all"])
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
