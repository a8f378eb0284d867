"""How much luck there is in a training run: the same recipes with three seeds.

    python benchmarks/seeds.py [--work .work/seeds]

Writes ar_helpers/records/seeds.json. A seed decides on the first weights, the order of the images and dropout. The
first seed's weights are the shipped ones. About an hour on two cores with fast bfloat16, longer without; interrupted,
it goes on where it was.
"""

import argparse
import dataclasses
import functools
import statistics
from pathlib import Path

import common
import torch

import ar_helpers as ar
from ar_helpers import recipes
from ar_helpers.cards import RECORDS
from ar_helpers.training import bfloat16_is_faster

NAMES = ["one_hot_mlp", "positional_mlp", "conditional_mlp", "transformer_small"]
SEEDS = [1, 2]  # beside the shipped weights, of seed 0


def tables(record: dict) -> list[dict]:
    """The record as the results page shows it."""
    rows = []
    for row in record["models"]:
        bits = row["val_bits_per_pixel"]
        spread = max(bits) - min(bits)
        rows.append([row["model"], *(f"{each:.4f}" for each in (*bits, statistics.mean(bits), spread))])
    return [{"heads": ["Model", "Seed 0", "Seed 1", "Seed 2", "Mean", "Spread"], "rows": rows}]


def build(name: str, seed: int, device: str) -> torch.nn.Module:
    """A recipe's model with the first weights of a seed."""
    torch.manual_seed(seed)
    recipe = recipes.RECIPES[name]
    return recipe.model(**recipe.sizes).to(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=common.ROOT / ".work" / "seeds")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    digits, device = ar.load_images(), ar.best_device()
    common.need_mnist(digits.name)
    tokens, rows = ar.quantize(digits.train.images, 16).flatten(1), []
    for name in NAMES:
        config = recipes.RECIPES[name].config
        if not bfloat16_is_faster(torch.device(device).type):
            config = dataclasses.replace(config, arithmetic="float32")
        dataset = recipes.data_set(build(name, 0, "cpu"), tokens, digits.train.labels)
        bits = [ar.bits_per_pixel(ar.load_pretrained(name).to(device), digits.val)]
        for seed in SEEDS:
            path = options.work / f"{name}_{seed}.json"
            make = functools.partial(build, name, seed, device)
            own = dataclasses.replace(config, seed=seed)
            found = common.trial(path, {"model": name, "seed": seed}, make, dataset, own, digits.val, None)
            bits.append(found["val_bits_per_pixel"])
        rows.append({"model": name, "val_bits_per_pixel": bits})
    record = common.machine(device) | {"val_images": len(digits.val.images), "models": rows}
    record["tables"] = tables(record)
    common.write(RECORDS / "seeds.json", record)
    common.print_table(**record["tables"][0])


if __name__ == "__main__":
    main()
