"""The command line: python -m ar_helpers train | evaluate | models."""

import argparse
import contextlib
import dataclasses
import json
import platform
import sys
import time
from pathlib import Path

import torch

from . import data, models, sampling, training

RECIPES = {  # name: class, recipe; what a reader's own run of the chapter gives on two CPU cores
    "one_hot_mlp": (models.OneHotMLP, training.TrainConfig(steps=10_000)),
    "positional_mlp": (models.PositionalMLP, training.TrainConfig(steps=9_500)),
    "conditional_mlp": (models.ConditionalMLP, training.TrainConfig(steps=9_500)),
    "transformer": (
        models.PixelTransformer,
        training.TrainConfig(
            steps=3_200, batch_size=16, learning_rate=4e-3, weight_decay=0.1, muon=1e-2, warmup=0.1, clip=1.0
        ),
    ),
}


def train(arguments: argparse.Namespace) -> None:
    """Train one of the book's models, score it as stored, and write weights and card."""
    model_class, config = RECIPES[arguments.name]
    if arguments.steps is not None:
        config = dataclasses.replace(config, steps=arguments.steps)
    if arguments.seed is not None:
        config = dataclasses.replace(config, seed=arguments.seed)
    digits = data.load_images(arguments.data)
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    model = model_class().to(arguments.device)
    tokens = data.quantize(digits.train.images, model.num_levels).flatten(1)
    labels = digits.train.labels if model.num_classes else None
    if isinstance(model, models.PixelTransformer):
        dataset = data.TokenImages(tokens, labels)
    else:
        sizes = {"context_length": model.context_length, "num_levels": model.num_levels}
        dataset = data.ThinnedWindows(tokens, labels, **sizes)
    state = out / f"{arguments.name}.state.safetensors"
    try:
        history = training.fit(model, dataset, config, digits.val, resume=state)
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        raise SystemExit(130) from None

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
    if arguments.name in training.card_names():
        model = training.load_pretrained(arguments.name)
    elif Path(arguments.name).suffix == ".safetensors":
        model = training.load_checkpoint(arguments.name)
    else:
        names = ", ".join(training.card_names())
        raise ValueError(f"name must be a .safetensors file or one of {names}, not {arguments.name!r}")
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

    sub = command("train", train, "python -m ar_helpers train one_hot_mlp --steps 500 --out mine")
    sub.add_argument("name", choices=sorted(RECIPES))
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


if __name__ == "__main__":
    main()
