"""How a transformer learns 256 grey levels: short runs that differ in how the stem and the output treat a level.

    python benchmarks/levels.py [--steps 300] [--work .work/levels]

Writes ar_helpers/records/levels.json. Four runs of five minutes each on two cores; interrupted, it goes on where it
was.
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
from ar_helpers.models.greys import GreyOutput, GreyStem
from ar_helpers.recipes import RECIPES
from ar_helpers.training import bfloat16_is_faster

VAL_IMAGES = 500
RUNS = {  # name: (stem, output)
    "tables": ("tables", "tables"),
    "curves in the stem": ("curves", "tables"),
    "curves in stem and output": ("curves", "curves"),
    "curves in the stem, coarse then fine": ("curves", "coarse"),
}


class CoarseThenFine(nn.Module):
    """A level as two tokens of 16: the probability of the coarse one, times that of the fine one given the coarse."""

    def __init__(self, width: int):
        super().__init__()
        self.coarse, self.fine = nn.Linear(width, 16), nn.Linear(width, 16)
        self.given, self.hidden = nn.Embedding(16, width), nn.Linear(width, width)
        nn.init.normal_(self.given.weight, std=0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        coarse = self.coarse(x).log_softmax(-1)  # (B, T, 16)
        hidden = self.hidden(x).unsqueeze(-2) + self.given.weight  # (B, T, 16, D)
        fine = self.fine(F.gelu(hidden)).log_softmax(-1)  # (B, T, 16, 16)
        return (coarse.unsqueeze(-1) + fine).flatten(-2)


def build(name: str, device: str) -> ar.PixelTransformer:
    """The transformer of 256 levels, small, with one of the stems and outputs."""
    torch.manual_seed(0)
    model = ar.PixelTransformer(num_levels=256, width=80, depth=3)
    stem, output = RUNS[name]
    if stem == "curves":
        model.trunk.stem = GreyStem(model.trunk.stem.places, 256, 80)
    if output != "tables":
        model.output = GreyOutput(80, 256) if output == "curves" else CoarseThenFine(80)
    return model.to(device)


def tables(record: dict) -> list[dict]:
    """The record as the results page shows it."""
    rows = []
    for run in record["runs"]:
        minutes = f"{run['history']['seconds'] / 60:.1f} min"
        rows.append([run["name"], run["parameters"], f"{run['val_bits_per_pixel']:.3f}", minutes])
    recipe = record["recipe"]
    note = f"{recipe['steps']:,} steps of {recipe['batch_size']} images each, on {record['hardware']}."
    return [{"heads": ["Stem and output", "Parameters", "Validation", "Time"], "rows": rows, "note": note}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--work", type=Path, default=common.ROOT / ".work" / "levels")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    digits, device = ar.load_images(), ar.best_device()
    common.need_mnist(digits.name)
    dataset = ar.TokenImages(ar.quantize(digits.train.images, 256).flatten(1), digits.train.labels)
    arithmetic = "bfloat16" if bfloat16_is_faster(torch.device(device).type) else "float32"
    config = dataclasses.replace(RECIPES["transformer_small"].config, steps=options.steps, arithmetic=arithmetic)
    runs = []
    for number, name in enumerate(RUNS):
        path, make = options.work / f"{number}_{options.steps}.json", functools.partial(build, name, device)
        runs.append(common.trial(path, {"name": name}, make, dataset, config, digits.val.first(VAL_IMAGES), None))
    about = {"recipe": dataclasses.asdict(config), "val_images": VAL_IMAGES, "runs": runs}
    record = common.machine(device) | about
    record["tables"] = tables(record)
    common.write(RECORDS / "levels.json", record)
    common.print_table(**record["tables"][0])


if __name__ == "__main__":
    main()
