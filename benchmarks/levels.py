"""Which way to 256 grey levels learns fastest: short runs of a small transformer, for chapter 9.

    python benchmarks/levels.py [--steps 600] [--work .work/levels]

Writes ar_helpers/records/levels.json. All runs see the same images in the same order. Under two minutes a run on two
quick cores, five runs; interrupted, it goes on where it was.
"""

import argparse
import dataclasses
import functools
from pathlib import Path

import common
import torch
import torch.nn.functional as F
from torch import nn

import ar_helpers as ar
from ar_helpers.cards import RECORDS
from ar_helpers.models.greys import GreyOutput
from ar_helpers.recipes import RECIPES
from ar_helpers.training import bfloat16_is_faster

VAL_IMAGES = 1_000
SIZES = {"num_levels": 256, "width": 96, "depth": 2}
WAVES = 32


class CoarseThenFine(nn.Module):
    """The upper four bits of a level, then the lower four given the upper: two choices among 16."""

    def __init__(self, width: int):
        super().__init__()
        self.coarse = nn.Parameter(torch.randn(16, width) * width**-0.5)  # no nn.Linear, which Muon would take
        self.hidden, self.told = nn.Linear(width, width), nn.Embedding(16, width)
        self.fine = nn.Linear(width, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        upper = F.linear(x, self.coarse).log_softmax(-1)  # (B, T, 16)
        told = self.hidden(x).unsqueeze(-2) + self.told.weight  # (B, T, 16, D): for each upper half
        lower = self.fine(F.gelu(told)).log_softmax(-1)
        return (upper.unsqueeze(-1) + lower).flatten(-2)  # (B, T, 256)


def build(name: str, device: str) -> ar.PixelTransformer:
    """A variant with its first weights."""
    torch.manual_seed(0)
    in_stem = name in ("waves in the stem", "waves in both")
    model = ar.GreyTransformer(**SIZES, waves=WAVES) if in_stem else ar.PixelTransformer(**SIZES)
    if name == "waves in the stem":
        model.output = nn.Linear(SIZES["width"], 256)
    elif name == "waves in the output":
        model.output = GreyOutput(SIZES["width"], 256, WAVES)
    elif name == "coarse, then fine":
        model.output = CoarseThenFine(SIZES["width"])
    return model.to(device)


VARIANTS = ["tables only", "coarse, then fine", "waves in the output", "waves in the stem", "waves in both"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--work", type=Path, default=common.ROOT / ".work" / "levels")
    options = parser.parse_args()
    digits, device = ar.load_images(), ar.best_device()
    common.need_mnist(digits.name)
    dataset = ar.TokenImages(ar.quantize(digits.train.images, 256).flatten(1), digits.train.labels)
    arithmetic = "bfloat16" if bfloat16_is_faster(torch.device(device).type) else "float32"
    recipe = dataclasses.replace(RECIPES["transformer_256"].config, steps=options.steps, arithmetic=arithmetic)
    val, runs = digits.val.first(VAL_IMAGES), []
    for name in VARIANTS:
        path = options.work / f"{name.replace(' ', '_').replace(',', '')}_{options.steps}.json"
        make = functools.partial(build, name, device)
        runs.append(common.trial(path, {"name": name}, make, dataset, recipe, val, None))
    about = {"recipe": dataclasses.asdict(recipe), "val_images": VAL_IMAGES, "runs": runs}
    common.write(RECORDS / "levels.json", common.machine(device) | about)
    common.print_table(["variant", "bits"], [[run["name"], run["val_bits_per_pixel"]] for run in runs])


if __name__ == "__main__":
    main()
