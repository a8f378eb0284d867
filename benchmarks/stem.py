"""What the causal stem and Muon bring the transformer: four short runs, alike but for these two.

    python benchmarks/stem.py [--steps 350] [--work .work/stem]

Writes ar_helpers/records/stem.json. About five minutes a run on two cores; interrupted, it goes on where it was.
"""

import argparse
import dataclasses
from pathlib import Path

import common
import torch

import ar_helpers as ar
from ar_helpers.cards import RECORDS
from ar_helpers.recipes import RECIPES


def tables(record: dict) -> list[dict]:
    """The record as the results page shows it."""
    rows = [
        [
            "with a stem" if run["stem"] else "plain",
            "Muon and AdamW" if run["muon_rate"] else "AdamW",
            run["parameters"],
            run["history"]["val_bits"][-1],
            f"{run['history']['seconds'] / 60:.1f} min",
        ]
        for run in record["runs"]
    ]
    recipe = record["recipe"]
    note = f"{recipe['steps']:,} steps of {recipe['batch_size']} images each, on {record['hardware']}."
    return [{"heads": ["Transformer", "Optimizer", "Parameters", "Validation", "Time"], "rows": rows, "note": note}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--work", type=Path, default=common.ROOT / ".work" / "stem")
    options = parser.parse_args()
    digits, device = ar.load_images(), ar.best_device()
    common.need_mnist(digits.name)
    dataset = ar.TokenImages(ar.quantize(digits.train.images, 16).flatten(1), digits.train.labels)
    val = digits.val.first(100)
    recipe = dataclasses.replace(RECIPES["transformer"].config, steps=options.steps)
    runs = []
    for stem in (False, True):
        for muon_rate in (None, recipe.muon_rate):
            print(f"{'with' if stem else 'without'} a stem, {'Muon' if muon_rate else 'AdamW'}")
            torch.manual_seed(recipe.seed)
            model = ar.PixelTransformer(stem=stem).to(device)
            config = dataclasses.replace(recipe, muon_rate=muon_rate)
            state = options.work / f"{'stem' if stem else 'plain'}_{'muon' if muon_rate else 'adamw'}.safetensors"
            history = ar.fit(model, dataset, config, val, resume=state)
            parameters = common.count_parameters(model)
            what = {"stem": stem, "muon_rate": muon_rate, "parameters": parameters}
            runs.append(what | {"history": dataclasses.asdict(history)})
    record = common.machine(device) | {"recipe": dataclasses.asdict(recipe), "runs": runs}
    record["tables"] = tables(record)
    common.write(RECORDS / "stem.json", record)
    common.print_table(**record["tables"][0])


if __name__ == "__main__":
    main()
