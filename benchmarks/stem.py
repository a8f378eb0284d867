"""What the causal stem and Muon bring the transformer: four short runs, alike but for these two.

    python benchmarks/stem.py [--steps 350] [--work .work/stem]

Writes results/stem.json. About five minutes a run on two cores; interrupted, it goes on where it was.
"""

import argparse
import dataclasses
from pathlib import Path

import common
import torch

import ar_helpers as ar
from ar_helpers.__main__ import RECIPES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--work", type=Path, default=common.ROOT / ".work" / "stem")
    options = parser.parse_args()
    digits, device = ar.load_images(), ar.best_device()
    common.need_mnist(digits.name)
    dataset = ar.TokenImages(ar.quantize(digits.train.images, 16).flatten(1), digits.train.labels)
    val = ar.ImageSet(*(part[:100] for part in digits.val))
    recipe = dataclasses.replace(RECIPES["transformer"][-1], steps=options.steps)
    runs = []
    for stem in (False, True):
        for muon in (None, recipe.muon):
            print(f"{'with' if stem else 'without'} a stem, {'Muon' if muon else 'AdamW'}")
            torch.manual_seed(recipe.seed)
            model = ar.PixelTransformer(stem=stem).to(device)
            config = dataclasses.replace(recipe, muon=muon)
            state = options.work / f"{'stem' if stem else 'plain'}_{'muon' if muon else 'adamw'}.safetensors"
            history = ar.fit(model, dataset, config, val, resume=state)
            parameters = common.count_parameters(model)
            runs.append({"stem": stem, "muon": muon, "parameters": parameters, "history": dataclasses.asdict(history)})
    record = common.machine(device) | {"recipe": dataclasses.asdict(recipe), "runs": runs}
    common.write(common.ROOT / "results" / "stem.json", record)
    for run in runs:
        name = f"{'stem' if run['stem'] else 'plain'}, {'Muon' if run['muon'] else 'AdamW'}"
        print(f"{name:14} {run['history']['val_bits'][-1]:.4f} val bits per pixel, {run['history']['seconds']:.0f} s")


if __name__ == "__main__":
    main()
