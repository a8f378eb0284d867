"""The command line: python -m ar_helpers sample | complete | train | evaluate | compress | decompress | models."""

import argparse
import contextlib
import dataclasses
import inspect
import io
import json
import math
import os
import re
import secrets
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import nn

from . import cards, codec, data, metrics, plots, recipes, sampling, scoring, tokens, training
from .checks import check_agreement, check_at_least, check_choice, check_range
from .files import write
from .pictures import open_colour, open_picture, read_picture

DRAWS = "transformer_full"  # the default model for drawing
PACKS = "transformer_small"  # and for compressing, which takes as long as drawing
MEASURES = {  # what `evaluate --samples` prints: in words, and how
    "recognized": ("read as asked", ".1%"),
    "frechet": ("Fréchet distance", ".2f"),
    "precision": ("precision", ".1%"),
    "recall": ("recall", ".1%"),
}


def sample(arguments: argparse.Namespace) -> None:
    """Draw: write a PNG of each drawing, a sheet of all drawings, and the settings."""
    _check_numbers(arguments)
    model, source = _load(arguments.model, arguments.device)
    classes = _targets("--targets", arguments.targets, model)
    count = arguments.count or (10 if classes is None else 1)
    labels = None if classes is None else [label for label in classes for _ in range(count)]
    prompt = None if arguments.first_pixel is None else _first_pixel(arguments.first_pixel, model)
    if prompt is not None and labels and arguments.targets is None:
        pixels = F.pad(prompt.unsqueeze(0), (0, model.sequence_length - len(prompt)))
        labels, classes = _suggested(model, pixels, len(prompt), count, arguments.seed)[0], None
    samples = _draw(model, arguments, labels=labels, count=None if labels else count, prompt=prompt)
    columns = count if classes is not None and count > 1 else 10
    _store(samples, labels, model, arguments, source, columns)


def complete(arguments: argparse.Namespace) -> None:
    """Draw endings to the top of a picture."""
    _check_numbers(arguments)
    model, source = _load(arguments.model, arguments.device)
    classes = _targets("--target", arguments.target, model)
    single = arguments.target is None or len(classes) == 1
    check_agreement("--target must be a single number", single, repr(arguments.target))
    if tokens.is_colour(model):
        size, background = (model.image_size, model.image_size), "a photograph"
        photograph = ImageOps.fit(open_colour(arguments.picture), size, Image.Resampling.BOX)
        picture = torch.from_numpy(np.array(photograph))  # (H, W, 3): its middle square
    else:
        picture, background = read_picture(arguments.picture)
    side = picture.shape[0]
    check_agreement(f"--model must be of images of {side} pixels a side", side == model.image_size, model.image_size)
    count = arguments.count or 8
    arguments.keep_rows = side // 2 if arguments.keep_rows is None else arguments.keep_rows
    pixels = tokens.image_tokens(picture.unsqueeze(0), model)[0]
    labels, beliefs = None, None
    if model.num_classes:
        check_range(0, side - 1, **{"--keep-rows": arguments.keep_rows})
        kept = arguments.keep_rows * side * model.channels
        labels, beliefs = _suggested(model, pixels.unsqueeze(0), kept, count, arguments.seed)
        labels = labels if arguments.target is None else classes[:1] * count
    samples = _draw(model, arguments, tokens=pixels.expand(count, -1), labels=labels, keep_rows=arguments.keep_rows)
    print(f"It was read as {background}.", file=sys.stderr)
    more = {"picture": str(arguments.picture), "read_as": background, "keep_rows": arguments.keep_rows}
    if beliefs is not None:
        more["beliefs"] = [round(belief, 4) for belief in beliefs.tolist()]
    _store(samples, labels, model, arguments, source, min(count, 10), more)


def _suggested(model: nn.Module, pixels: torch.Tensor, known: int, count: int, seed: int) -> tuple:
    """Classes, drawn by what an image's first tokens suggest, and the probability of each class."""
    beliefs = scoring.label_beliefs(model, pixels)[0, known]
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(beliefs, count, replacement=True, generator=generator).tolist(), beliefs


def _check_numbers(arguments: argparse.Namespace) -> None:
    for name in ("count", "scale"):
        if getattr(arguments, name) is not None:
            check_at_least(1, **{f"--{name}": getattr(arguments, name)})


def _load(name: str, device: str) -> tuple[nn.Module, Path]:
    """A shipped model, or the model in a file, on a device; and its path."""
    path = Path(name)
    if path.suffix != ".safetensors":
        check_choice("the model", name, cards.card_names(), "a .safetensors file or one of")
        path = cards.CHECKPOINTS / f"{name}.safetensors"
    model = cards.load_checkpoint(path)
    try:
        return model.to(device), path
    except (RuntimeError, AssertionError) as error:  # torch was built without it, or there is none
        raise OSError(f"--device {device} cannot be used here: {str(error).splitlines()[0]}") from error


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


def _first_pixel(text: str, model: nn.Module) -> torch.Tensor:
    """The tokens (1,) or (3,) of a colour like 0xFEC, a hexadecimal digit for each channel."""
    check_agreement("--first-pixel must be left out for a grey model", tokens.is_colour(model), repr(text))
    right = re.fullmatch("(0x|#)?[0-9a-f]{3}", text.lower())
    words = "--first-pixel must have a hexadecimal digit for each channel, as in 0xFEC"
    check_agreement(words, right is not None, repr(text))
    channels = torch.tensor([17 * int(digit, 16) for digit in text[-3:]], dtype=torch.uint8)
    return tokens.image_tokens(channels.view(1, 1, 1, 3), model)[0]


def _draw(model: nn.Module, arguments: argparse.Namespace, **what) -> sampling.Samples:
    knobs = {name: getattr(arguments, name) for name in ("temperature", "top_k", "top_p", "seed")}
    return (sampling.complete if "tokens" in what else sampling.generate)(model, **what, **knobs)


def _store(samples, labels, model, arguments, source, columns, more=None) -> None:
    """Write the drawings aside, then rename them into place, and print a summary."""
    wanted = Path(arguments.out or arguments.folder)
    wanted.parent.mkdir(parents=True, exist_ok=True)
    pictures = _as_bytes(samples.tokens, model)
    start = (more or {}).get("keep_rows", 0) * model.image_size  # in pixels
    start = max(start, int(getattr(arguments, "first_pixel", None) is not None))
    given = None if labels is None else torch.tensor(labels)
    drawn = scoring.pixel_bits(model, samples.tokens, given)[:, start * model.channels :]  # without knobs
    bits = drawn.sum(1) / (model.image_size**2 - start)
    images, seen = [], {}
    with tempfile.TemporaryDirectory(dir=wanted.parent, prefix=f".{wanted.name}-") as aside:
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
        if getattr(arguments, "first_pixel", None) is not None:
            settings["first_pixel"] = arguments.first_pixel
        checkpoint = {"name": arguments.model, "crc32": f"{zlib.crc32(source.read_bytes()):08x}"}
        record = {"checkpoint": checkpoint, **settings, **(more or {}), "images": images}
        Path(aside, "samples.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        out = _folder(wanted, arguments.out is None)
        earlier = _files_of_a_run(out)
        files = sorted(Path(aside).iterdir())
        for file in files:
            file.replace(out / file.name)
        for name in earlier - {file.name for file in files}:  # a folder holds one run
            (out / name).unlink(missing_ok=True)
    mean = bits.mean().item()
    count = "1 drawing" if len(images) == 1 else f"{len(images)} drawings"
    text = f"{count} in {out}, {mean:.3f} bits per pixel on average; sheet.png shows them all"
    print(json.dumps({"folder": str(out), **record}) if arguments.json else text)


def _folder(wanted: Path, new: bool) -> Path:
    """The folder, created if necessary; or a new folder NAME, NAME-2, NAME-3 ..., which no other run has."""
    number = 1
    while True:
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir(exist_ok=not new)
            return folder
        except FileExistsError:
            if not new:
                raise
            number += 1


def _files_of_a_run(folder: Path) -> set[str]:
    """The names of the files that an earlier run wrote into a folder, by its own record."""
    try:
        images = json.loads((folder / "samples.json").read_text(encoding="utf-8"))["images"]
        stems = {Path(image["file"]).stem for image in images} | {"sheet"}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {f"{stem}.{ending}" for stem in stems for ending in ("png", "gif")}


def train(arguments: argparse.Namespace) -> None:
    """Train a model of the book, or all models; score the stored weights, and write weights and card."""
    for option in ("steps", "batch_size", "arithmetic", "levels", "context_length"):
        value, name = getattr(arguments, option), f"--{option.replace('_', '-')}"
        if arguments.name in ("lenet5", "all"):  # the classifier has none of these, and those of all would differ
            check_agreement(f"{name} must not be given for {arguments.name}", value is None, value)
    check_range(2, 256, **{"--levels": 2 if arguments.levels is None else arguments.levels})
    names = [*recipes.RECIPES, "lenet5"] if arguments.name == "all" else [arguments.name]
    if len(names) > 1 and arguments.device == "cpu":
        names.remove("transformer_full")  # days; it is seven minutes of a large GPU
    changes = {name: getattr(arguments, name) for name in ("steps", "batch_size", "seed", "arithmetic")}
    changes = {name: value for name, value in changes.items() if value is not None}
    configs = {name: dataclasses.replace(recipes.RECIPES[name].config, **changes) for name in names if name != "lenet5"}
    out = Path(arguments.out)
    own = bool(changes or arguments.levels or arguments.context_length)
    sources = {name: arguments.data or _data_of(name) for name in names}
    as_shipped = not own and all(sources[name] == _data_of(name) for name in names) and not data.quick_mode()
    other = as_shipped or out.resolve() != cards.CHECKPOINTS.resolve()
    check_agreement("--out must be another folder than the shipped weights' for a run of your own", other, str(out))
    colourful = {name: recipe for name, recipe in recipes.RECIPES.items() if recipe.images not in data.GREY}
    sides = {name: recipe.sizes.get("image_size") for name, recipe in colourful.items()}
    wanted = dict.fromkeys((sources[name], sides.get(name)) for name in names)
    loaded = {(source, side): data.load_images(source, colour_size=side) for source, side in wanted}
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        digits = loaded[sources[name], sides.get(name)]
        if name == "lenet5":
            seed = arguments.seed or 0
            torch.manual_seed(seed)
            classifier = metrics.LeNet5()
            card = metrics.train_classifier(classifier, digits, seed=seed)
            metrics.save_classifier(classifier, out / "lenet5.safetensors", card)
            print(f"lenet5: reads {card['test_accuracy']:.2%} of the test images, trained in {card['seconds']:.0f} s")
        else:
            _train_model(name, configs[name], arguments, digits, out)


def _data_of(name: str) -> str:
    """The images that a model of this name learned from."""
    return recipes.RECIPES[name].images if name in recipes.RECIPES else "mnist"


def _sizes(recipe: recipes.Recipe, arguments: argparse.Namespace, digits: data.Digits) -> dict:
    """A model's sizes: the recipe's, but those that the options and images of one's own ask for."""
    sizes, allowed = dict(recipe.sizes), inspect.signature(recipe.model).parameters
    for name, value in (("num_levels", arguments.levels), ("context_length", arguments.context_length)):
        if value is not None:
            check_agreement(f"--context-length must not be given for {arguments.name}", name in allowed, value)
            sizes[name] = value
    if digits.name not in data.GREY:
        height, width = digits.train.images.shape[1:3]
        check_agreement(f"the images in {digits.name} must be square", height == width, f"{height} x {width}")
        sizes["image_size"] = height
        if "num_classes" in allowed and sizes.get("num_classes") != 0:  # which asks for a model without labels
            sizes["num_classes"] = max(int(part.labels.max()) for part in digits) + 1
    return sizes


def _train_model(name: str, config: training.TrainConfig, arguments, digits: data.Digits, out: Path) -> None:
    recipe = recipes.RECIPES[name]
    shipping = out.resolve() == cards.CHECKPOINTS.resolve()  # then the recipe is followed to the letter
    chosen = shipping or arguments.arithmetic is not None or config.arithmetic == "float32" or data.quick_mode()
    if not chosen and not training.bfloat16_is_faster(torch.device(arguments.device).type):
        print("bfloat16 is slow here: training in float32")
        config = dataclasses.replace(config, arithmetic="float32")
    if data.quick_mode():  # `fit` takes so few, and the card must say so
        config = dataclasses.replace(config, steps=min(config.steps, training.QUICK_STEPS))
    torch.manual_seed(config.seed)
    model = recipe.model(**_sizes(recipe, arguments, digits)).to(arguments.device)
    names = "in grey", "in colour"
    found, wanted = names[digits.train.images.dim() == 4], names[tokens.is_colour(model)]
    check_agreement(f"--data must be images {wanted} for {name}", found == wanted, f"{digits.name}, {found}")
    val = scoring.binarized(digits.val, 0) if config.binarize else digits.val
    pixels = digits.train.images.flatten(1) if config.binarize else tokens.image_tokens(digits.train.images, model)
    dataset = recipes.data_set(model, pixels, digits.train.labels)
    check_range(1, len(dataset), **{"--batch-size": data.full_or_quick(config.batch_size, 1)})
    state = out / f"{name}.state.safetensors"
    trained = torch.compile(model) if arguments.compile else model
    with _resumable(state):
        history = training.fit(trained, dataset, config, val, resume=state)
        model.load_state_dict({name: tensor.half().float() for name, tensor in model.state_dict().items()})
        print("Scoring the weights as they are stored ...", flush=True)
        test = digits.test.first(data.full_or_quick(len(digits.test.images), training.QUICK_IMAGES))
        scores = _scores(model, test, config.binarize)
        drawn = [i % model.num_classes for i in range(100)] if model.num_classes else None
        began = time.perf_counter()
        sampling.generate(model, drawn, count=100, seed=0)
        milliseconds = 1000 * (time.perf_counter() - began) / 100
    measured = {"scores": scores, "milliseconds_per_image": milliseconds}
    card = cards.make_card(name, model, config, dataset, history, **measured)
    cards.save_checkpoint(out / f"{name}.safetensors", model, card)
    state.unlink(missing_ok=True)
    print(f"{name}: {scores['test_bits_per_pixel']:.4f} bits per pixel on {len(test.images)} test images")


def _scores(model: nn.Module, images: data.ImageSet, binarize: bool | None) -> dict:
    """What a card holds of a model's likelihood: bits per pixel, and for binarized images the published measure too."""
    if not binarize:
        return {"test_bits_per_pixel": scoring.bits_per_pixel(model, images)}
    nats, error = scoring.binary_nats(model, images)
    bits = nats / math.log(2) / model.image_size**2
    return {"test_bits_per_pixel": bits, "test_nats_per_image": nats, "standard_error": error}


@contextlib.contextmanager
def _resumable(state: Path):
    """After Ctrl-C, print whether the run can be resumed."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on from here" if state.exists() else "") from None


def evaluate(arguments: argparse.Namespace) -> None:
    """Score a shipped checkpoint, or a file, in bits per pixel; with --samples, also judge its drawings."""
    model, weights = _load(arguments.name, arguments.device)
    binarize = _learned_from_binarized(weights)
    if arguments.limit is not None:
        check_at_least(1, **{"--limit": arguments.limit})
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the result
        side = model.image_size if tokens.is_colour(model) else None
        digits = data.load_images(arguments.data or _data_of(arguments.name), colour_size=side)
    if arguments.samples is not None:
        check_range(4, len(digits.test.labels), **{"--samples": arguments.samples})
    images = getattr(digits, arguments.split).first(arguments.limit)
    scores, count = _scores(model, images, binarize), len(images.images)
    result = {"name": arguments.name, "data": digits.name, "split": arguments.split, "images": count}
    result |= {name.removeprefix("test_"): score for name, score in scores.items()}
    text = f"{result['bits_per_pixel']:.4f} bits per pixel on {count} {arguments.split} images of {digits.name}"
    if binarize:
        nats = f"{result['nats_per_image']:.2f} nats per image, standard error {result['standard_error']:.2f}"
        text += f"\n{nats}: the mean of five binarizations of the images"
    if arguments.samples is not None:
        if binarize:
            digits = data.Digits(*(scoring.binarized(part, 0) for part in digits))
        found = metrics.judge_drawings(model, digits, arguments.samples, arguments.seed)
        result |= {"samples": arguments.samples, "seed": arguments.seed, **found}
        text += f"\n{arguments.samples} drawings against {arguments.samples} test images, and written digits likewise:"
        for name, (words, form) in MEASURES.items():
            if name in found:
                drawn, floor = (format(found[key], form) for key in (name, f"{name}_floor"))
                text += f"\n  {words:17} {drawn:>8}  written: {floor:>8}"
    print(json.dumps(result) if arguments.json else text)


def _learned_from_binarized(weights: Path) -> bool:
    """Whether the card beside the weights, if there is one, says that the pixels of the images were drawn at random."""
    card = weights.with_suffix(".json")
    return card.exists() and bool(json.loads(card.read_text(encoding="utf-8")).get("recipe", {}).get("binarize"))


def compress(arguments: argparse.Namespace) -> None:
    """Pack grey pictures of the model's size into one file, and print its bytes beside those of other formats."""
    check_choice("the model", arguments.model, cards.card_names(), "one of")
    model, source = _load(arguments.model, "cpu")
    check_agreement("--model must draw in grey", not tokens.is_colour(model), arguments.model)
    side = model.image_size
    pictures = np.stack([_small_and_grey(path, side) for path in arguments.pictures])  # (B, H, W), uint8
    pixels = tokens.quantize(torch.from_numpy(pictures), model.num_levels).flatten(1)
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)  # if it cannot be, say so before the work
    content = codec.pack(arguments.model, zlib.crc32(source.read_bytes()), pixels, codec.encode(model, pixels))
    kept = _as_bytes(pixels, model)
    sizes = {arguments.out: len(content)} | codec.rivals(kept)
    write(out, content)
    heads = ["format", "bytes", "bits per pixel"]
    rows = [[name, f"{size:,}", f"{8 * size / kept.size:.3f}"] for name, size in sizes.items()]
    count = "1 picture" if len(kept) == 1 else f"{len(kept)} pictures"
    text = f"{count} at {model.num_levels} grey levels; finer differences are not kept\n{plots.table(heads, rows)}"
    print(json.dumps({"images": len(kept), "levels": model.num_levels, "bytes": sizes}) if arguments.json else text)


def _small_and_grey(path: str, side: int) -> np.ndarray:
    """The grey values (H, W), uint8, of a grey picture of the model's size."""
    picture = open_picture(path)
    size = f"{path} must be a picture of {side} x {side} pixels, as the model's images are"
    check_agreement(size, picture.size == (side, side), "{} x {}".format(*picture.size))
    values = np.asarray(picture).reshape(side, side, -1)
    grey = values.shape[2] < 4 and bool((values == values[..., :1]).all())
    check_agreement(f"{path} must be grey and opaque", grey, "coloured" if values.shape[2] < 4 else "transparent")
    return values[..., 0]


def _as_bytes(pixels: torch.Tensor, model: nn.Module) -> np.ndarray:
    """Tokens (B, N) as pictures (B, H, W) or (B, H, W, 3), uint8."""
    return np.round(255 * plots.as_pictures(pixels, model.num_levels)).astype(np.uint8)


def decompress(arguments: argparse.Namespace) -> None:
    """Write the pictures in a file that `compress` made."""
    path = Path(arguments.file)
    packed = codec.unpack(path.read_bytes(), str(path))
    check_choice(f"the model of {path}", packed.name, cards.card_names(), "one of")
    model, source = _load(packed.name, "cpu")
    if zlib.crc32(source.read_bytes()) != packed.checkpoint:
        raise OSError(f"{path} was made with other weights of {packed.name} than this package has")
    pixels = codec.decode(model, packed.code, packed.count)
    if codec.checksum(pixels) != packed.pixels:
        raise OSError(f"{path} cannot be read here: this processor's arithmetic, or this torch, rounds differently")
    out = Path(arguments.out or path.stem)
    out.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(_as_bytes(pixels, model), 1):
        content = io.BytesIO()
        Image.fromarray(picture).save(content, "PNG")
        write(out / f"{number:03}.png", content.getvalue())
    text = "1 picture" if packed.count == 1 else f"{packed.count} pictures"
    print(json.dumps({"folder": str(out), "images": packed.count}) if arguments.json else f"{text} in {out}")


def show_models(arguments: argparse.Namespace) -> None:
    """List the checkpoints that ship with the package."""
    shipped = {name: cards.load_card(name) for name in cards.card_names()}
    print(json.dumps(shipped) if arguments.json else cards.model_table())


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ar_helpers", description="Models that draw digits pixel by pixel.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name, function, words, example):
        sub = commands.add_parser(name, help=words, description=f"{words}.", epilog=f"Example: {example}")
        sub.set_defaults(run=function)
        return sub

    def where(sub, default, more=""):
        words = f"cpu, cuda or mps (default: {default}{more})"
        sub.add_argument("--device", default=default, choices=("cpu", "cuda", "mps"), help=words)

    def images(sub):
        words = f"{', '.join(data.NAMES)}, or the path of your own images, as load_images takes it"
        sub.add_argument("--data", help=f"{words} (default: the images that the shipped model learned from)")

    def drawing(sub, folder):
        """The options of all commands that draw; the spellings with an underscore are those of another project."""
        sub.set_defaults(folder=folder)
        sub.add_argument("--count", type=int, help="drawings of each class; of suggested classes, in all (1 or 8)")
        sub.add_argument("--temperature", type=float, default=1.0, help="below 1 cautious, above 1 bold (default: 1)")
        sub.add_argument("--top-k", "--top_k", type=int, help="draw from the k likeliest levels only")
        sub.add_argument("--top-p", "--top_p", type=float, help="from the likeliest that have this probability")
        sub.add_argument("--seed", type=int, default=secrets.randbelow(2**31), help="the same seed, the same drawings")
        sub.add_argument("--gif", "--generate_gifs", action="store_true", help="also show each being drawn")
        sub.add_argument("--model", default=DRAWS, help="a shipped checkpoint or a .safetensors file")
        sub.add_argument("--scale", type=int, default=8, help="how many times a pixel is enlarged (default: 8)")
        sub.add_argument("--out", help=f"folder, emptied of an earlier run's files (default: a new one, {folder})")
        where(sub, "cpu", ", on which a seed always gives the same drawings")
        sub.add_argument("--json", action="store_true", help="print JSON")

    words = "Draw: write a PNG of each drawing, a sheet of all drawings, and the settings"
    sub = command("sample", sample, words, "python -m ar_helpers sample --targets 0,1,2 --count 8 --gif")
    sub.add_argument("--targets", help="the classes to draw, as in 0,1,2 (default: all)")
    words = "the colour of the first pixel, as in 0xFEC, for a model of colours; without --targets, it suggests classes"
    sub.add_argument("--first-pixel", help=words)
    drawing(sub, "samples")

    words = "Draw endings to the top of a picture"
    sub = command("complete", complete, words, "python -m ar_helpers complete my_seven.jpg --keep-rows 14 --count 8")
    sub.add_argument("picture", metavar="IMAGE", help="any picture of one digit, or for colours any photograph")
    sub.add_argument("--keep-rows", type=int, help="rows to keep from the top (default: half of them)")
    sub.add_argument("--target", help="what it is to become (default: drawn by what the kept rows suggest)")
    drawing(sub, "completions")

    words = "Train a model of the book, or all models; score the stored weights, and write weights and card"
    sub = command("train", train, words, "python -m ar_helpers train one_hot_mlp --steps 500 --out mine")
    sub.add_argument("name", choices=[*sorted(recipes.RECIPES), "lenet5", "all"])
    sub.add_argument("--steps", type=int, help="optimizer steps (default: the recipe's)")
    sub.add_argument("--batch-size", type=int, help="examples in a step (default: the recipe's)")
    sub.add_argument("--seed", type=int, help="of the first weights and the order of the data (default: the recipe's)")
    words = "bfloat16 or float32 (default: the recipe's, but float32 where bfloat16 is slow)"
    sub.add_argument("--arithmetic", choices=("float32", "bfloat16"), help=words)
    sub.add_argument("--levels", type=int, help="levels of grey, or of a channel, from 2 to 256 (default: 16)")
    sub.add_argument("--context-length", type=int, help="pixels in a context window (default: 28)")
    sub.add_argument("--out", default=".", help="folder for the weights and the card (default: this one)")
    sub.add_argument("--compile", action="store_true", help="call torch.compile first")
    images(sub)
    where(sub, training.best_device())

    words = "Score a shipped checkpoint, or a file, in bits per pixel; with --samples, also judge its drawings"
    sub = command("evaluate", evaluate, words, "python -m ar_helpers evaluate conditional_mlp --samples 1000")
    sub.add_argument("name", help="a shipped checkpoint or a .safetensors file")
    images(sub)
    sub.add_argument("--split", default="test", choices=("train", "val", "test"))
    sub.add_argument("--limit", type=int, help="only the first so many images")
    sub.add_argument("--samples", type=int, help="also draw so many digits, and compare them with test images")
    sub.add_argument("--seed", type=int, default=0, help="of the drawings (default: 0)")
    where(sub, training.best_device())
    sub.add_argument("--json", action="store_true", help="print JSON")

    words = "Pack grey pictures of the model's size into one file, and print its bytes beside those of other formats"
    sub = command("compress", compress, words, "python -m ar_helpers compress a.png b.png --out digits.arz")
    sub.add_argument("pictures", metavar="IMAGE", nargs="+", help="a grey picture, 28 pixels a side")
    sub.add_argument("--model", default=PACKS, help=f"a shipped checkpoint (default: {PACKS})")
    sub.add_argument("--out", default="digits.arz", help="the file to write (default: digits.arz)")
    sub.add_argument("--json", action="store_true", help="print JSON")

    words = "Write the pictures in a file that `compress` made"
    sub = command("decompress", decompress, words, "python -m ar_helpers decompress digits.arz --out digits")
    sub.add_argument("file", metavar="FILE", help="made by compress")
    sub.add_argument("--out", help="folder to write into (default: the file's name without its ending)")
    sub.add_argument("--json", action="store_true", help="print JSON")

    words = "List the checkpoints that ship with the package"
    sub = command("models", show_models, words, "python -m ar_helpers models")
    sub.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; bad input ends it with one line and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's are of another kind
            stream.reconfigure(errors="backslashreplace")  # a console may lack the letters of a name
    options = parser()
    parsed = options.parse_args(arguments)
    try:
        parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the pipe has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain on its way out
        sys.exit(141)  # as the shell counts other programs that end so
    except (ValueError, TypeError, OSError, ArithmeticError, AssertionError) as error:
        options.exit(2, f"error: {error}\n")
    except KeyboardInterrupt as stop:
        options.exit(130, f"stopped: {str(stop) or 'nothing was written'}\n")
