"""What each part of the window models is worth: short runs that differ in one part each, for chapters 2 to 4.

    python benchmarks/variants.py [--steps 1500] [--seeds 2] [--work .work/variants]

Writes ar_helpers/records/variants.json. About two minutes a run on two cores, eleven runs for each seed. All runs see
the same pixels in the same order, whatever the length of their windows. Interrupted, it goes on where it was.
"""

import argparse
import dataclasses
import functools
from pathlib import Path

import common
import torch
from torch import nn

import ar_helpers as ar
from ar_helpers.cards import RECORDS
from ar_helpers.recipes import RECIPES
from ar_helpers.training import bfloat16_is_faster

VAL_IMAGES = 1_000


class NoPlace(ar.PositionalMLP):
    """As many parameters, but every pixel gets the vectors of row 0 and column 0."""

    def forward(self, context, position=None, label=None):
        return super().forward(context, torch.zeros_like(position))


class RowOnly(ar.PositionalMLP):
    """Every pixel gets the vectors of its row and of column 0."""

    def forward(self, context, position=None, label=None):
        return super().forward(context, position - position % self.image_size)


class ColumnOnly(ar.PositionalMLP):
    """Every pixel gets the vectors of row 0 and of its column."""

    def forward(self, context, position=None, label=None):
        return super().forward(context, position % self.image_size)


class PlainNumbers(ar.PositionalMLP):
    """Row and column as two plain numbers from 0 to 1, in the first two of the 64 places of the vectors."""

    def forward(self, context, position=None, label=None):
        one_hot = nn.functional.one_hot(context, self.num_levels + 1)
        last = self.image_size - 1
        numbers = torch.stack([position // self.image_size, position % self.image_size], dim=-1) / last
        tokens = one_hot.flatten(-2).type_as(self.layers[0].weight)
        zeros = tokens.new_zeros(*position.shape, 2 * self.config["position_size"] - 2)
        return self.layers(torch.cat([tokens, numbers.type_as(tokens), zeros], dim=-1))


class NoLabel(ar.ConditionalMLP):
    """Token vectors and the place; every image gets the label vector of digit 0."""

    def forward(self, context, position=None, label=None):
        return super().forward(context, position, torch.zeros_like(label))


VARIANTS = {  # name: (class, sizes)
    **{f"window of {length}": (ar.OneHotMLP, {"context_length": length}) for length in (14, 28, 29, 56)},
    "no place": (NoPlace, {}),
    "row": (RowOnly, {}),
    "column": (ColumnOnly, {}),
    "plain numbers": (PlainNumbers, {}),
    "row and column": (ar.PositionalMLP, {}),
    "token vectors": (NoLabel, {}),
    "token vectors and label": (ar.ConditionalMLP, {}),
}


def build(name: str, seed: int, device: str) -> ar.OneHotMLP | ar.PositionalMLP | ar.ConditionalMLP:
    """A variant with the first weights of this seed."""
    variant, sizes = VARIANTS[name]
    torch.manual_seed(seed)
    return variant(**sizes).to(device)


def examples(model, digits: ar.Digits, pixels: ar.ThinnedWindows) -> ar.ThinnedWindows:
    """The model's windows for the same pixels, whatever their length: which are dull depends on it."""
    labels = digits.train.labels if model.num_classes else None
    sizes = {"context_length": model.context_length, "num_levels": model.num_levels}
    dataset = ar.ThinnedWindows(pixels.tokens, labels, **sizes)
    dataset.indices, dataset.weights = pixels.indices, pixels.weights
    return dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--work", type=Path, default=common.ROOT / ".work" / "variants")
    options = parser.parse_args()
    digits, device = ar.load_images(), ar.best_device()
    common.need_mnist(digits.name)
    tokens = ar.quantize(digits.train.images, 16).flatten(1)
    pixels = ar.ThinnedWindows(tokens, context_length=28, num_levels=16)
    arithmetic = "bfloat16" if bfloat16_is_faster(torch.device(device).type) else "float32"
    recipe = dataclasses.replace(RECIPES["one_hot_mlp"].config, steps=options.steps, arithmetic=arithmetic)
    val, runs = digits.val.first(VAL_IMAGES), []
    for seed in range(options.seeds):
        config = dataclasses.replace(recipe, seed=seed)
        for name in VARIANTS:
            path = options.work / f"{name.replace(' ', '_')}_{seed}_{options.steps}.json"
            dataset = examples(build(name, seed, "cpu"), digits, pixels)
            about, make = {"name": name, "seed": seed}, functools.partial(build, name, seed, device)
            runs.append(common.trial(path, about, make, dataset, config, val, None))
    about = {"recipe": dataclasses.asdict(recipe), "val_images": VAL_IMAGES, "runs": runs}
    common.write(RECORDS / "variants.json", common.machine(device) | about)
    common.print_table(["variant", "seed", "bits"], [[r["name"], r["seed"], r["val_bits_per_pixel"]] for r in runs])


if __name__ == "__main__":
    main()
