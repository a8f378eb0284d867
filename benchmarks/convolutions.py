"""Chapter 11's comparisons: two windows of an MLP, five PixelCNNs of a size, and the time of a training step.

    python benchmarks/convolutions.py [--work .work/convolutions]

Writes ar_helpers/records/convolutions.json. About twenty minutes on two cores with fast bfloat16; interrupted, it goes
on where it was.
"""

import argparse
import dataclasses
import functools
from pathlib import Path

import common
import torch
from chapter_models import MaskedPixelCNN, NeighbourhoodMLP
from torch import nn

import ar_helpers as ar
from ar_helpers.cards import RECORDS
from ar_helpers.recipes import RECIPES
from ar_helpers.training import bfloat16_is_faster

VAL_IMAGES = 1_000
WINDOWS = {"a piece of string": ar.ConditionalMLP, "four rows": NeighbourhoodMLP}
WINDOW_STEPS, STACK_STEPS = 1_500, 400
STACKS = {  # the widths make them equally large, within a hundredth
    "one stack": (MaskedPixelCNN, {"width": 128}),
    "two stacks": (ar.PixelCNN, {"width": 90, "dilations": 1}),
    "two stacks, gates": (ar.PixelCNN, {"width": 64, "gates": True, "dilations": 1}),
    "two stacks, long steps": (ar.PixelCNN, {"width": 90}),
    "two stacks, gates, long steps": (ar.PixelCNN, {"width": 64, "gates": True}),
}


def tables(record: dict) -> list[dict]:
    """The record as the results page shows it."""
    found = []
    for group, head in (("windows", "Window"), ("stacks", "PixelCNN")):
        rows = []
        for run in record[group]:
            bits, minutes = f"{run['val_bits_per_pixel']:.4f}", f"{run['minutes']:.1f} min"
            rows.append([run["name"], run["seed"], run["parameters"], bits, minutes])
        note = f"{record['steps'][group]:,} steps each."
        found.append({"heads": [head, "Seed", "Parameters", "Validation", "Time"], "rows": rows, "note": note})
    return found


def build(made: type[nn.Module], sizes: dict, seed: int, device: str) -> nn.Module:
    """A model with the first weights of a seed."""
    torch.manual_seed(seed)
    return made(**sizes).to(device)


def examples(model: nn.Module, tokens: torch.Tensor, labels: torch.Tensor) -> ar.ThinnedWindows:
    """The model's windows for the pixels that chapter 4's model sees."""
    pixels = ar.ThinnedWindows(tokens, labels, context_length=28, num_levels=16)
    dataset = ar.ThinnedWindows(tokens, labels, context_length=model.context_length, num_levels=16)
    dataset.indices, dataset.weights = pixels.indices, pixels.weights
    return dataset


def seconds_per_step(name: str, dataset: ar.TokenImages, device: str, arithmetic: str) -> float:
    """How long a training step of a shipped model's recipe takes, beyond the first ten."""
    recipe = RECIPES[name]
    times = []
    for steps in (10, 40):
        config = dataclasses.replace(recipe.config, steps=steps, arithmetic=arithmetic)
        times.append(ar.fit(build(recipe.model, recipe.sizes, 0, device), dataset, config, quiet=True).seconds)
    return (times[1] - times[0]) / 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="how many of them")
    parser.add_argument("--work", type=Path, default=common.ROOT / ".work" / "convolutions")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    digits, device = ar.load_images(), ar.best_device()
    common.need_mnist(digits.name)
    tokens, labels = ar.quantize(digits.train.images, 16).flatten(1), digits.train.labels
    arithmetic = "bfloat16" if bfloat16_is_faster(torch.device(device).type) else "float32"
    val, images = digits.val.first(VAL_IMAGES), ar.TokenImages(tokens, labels)
    found = {"windows": [], "stacks": []}
    for seed in range(options.seeds):
        for group, models, recipe, steps in (
            ("windows", {name: (made, {}) for name, made in WINDOWS.items()}, "conditional_mlp", WINDOW_STEPS),
            ("stacks", STACKS, "pixelcnn", STACK_STEPS),
        ):
            changed = {"steps": steps, "seed": seed, "arithmetic": arithmetic}
            config = dataclasses.replace(RECIPES[recipe].config, **changed)
            for name, (made, sizes) in models.items():
                make = functools.partial(build, made, sizes, seed, device)
                dataset = examples(make(), tokens, labels) if group == "windows" else images
                path = options.work / f"{name}, seed {seed}, {steps} steps.json"
                run = common.trial(path, {"name": name, "seed": seed}, make, dataset, config, val, None)
                found[group].append(run | {"minutes": run.pop("history")["seconds"] / 60})
    record = common.machine(device) | {"val_images": VAL_IMAGES} | found
    record["steps"] = {"windows": WINDOW_STEPS, "stacks": STACK_STEPS}
    names = ("transformer", "pixelcnn")
    record["seconds_per_step"] = {name: seconds_per_step(name, images, device, arithmetic) for name in names}
    record["tables"] = tables(record)
    common.write(RECORDS / "convolutions.json", record)
    for table in record["tables"]:
        common.print_table(**table)


if __name__ == "__main__":
    main()
