"""A larger model for 256 grey levels, trained on a GPU: two rows among the published scores on the results page.

    python benchmarks/greys.py [--quick] [--work .work/greys]

Writes ar_helpers/records/greys.json; the weights stay in the folder --work. It takes a few minutes on a
large GPU and many hours on two CPU cores. Interrupted, it goes on where it was.
"""

import dataclasses
import json
from pathlib import Path

import common
import likelihood
import torch

import ar_helpers as ar
from ar_helpers.cards import RECORDS
from ar_helpers.data import full_or_quick, quick_mode
from ar_helpers.recipes import RECIPES

SIZES = {"width": 256, "depth": 6, "heads": 4, "dropout": 0.1}
CONFIG = dataclasses.replace(RECIPES["transformer_full"].config, steps=1_700)


def train(weights: Path, digits: ar.Digits, device: str) -> None:
    """Train the model, and write its weights and beside them the history of the run."""
    torch.manual_seed(0)
    small = full_or_quick({}, {"width": 16, "depth": 1, "heads": 2})
    model = ar.GreyTransformer(image_size=digits.train.images.shape[1], **SIZES | small).to(device)
    tokens = ar.quantize(digits.train.images, 256).flatten(1)
    compiled = torch.compile(model) if device == "cuda" else model
    dataset, state = ar.TokenImages(tokens, digits.train.labels), weights.with_suffix(".state")
    history = ar.fit(compiled, dataset, CONFIG, digits.val, resume=state)
    about = common.machine(device) | {"recipe": dataclasses.asdict(CONFIG), "history": dataclasses.asdict(history)}
    ar.save_checkpoint(weights, model, about)
    state.unlink()


def main() -> None:
    work = common.parse(__doc__, "greys").work
    digits, device = ar.load_images(), ar.best_device()
    common.need_mnist(digits.name)
    weights, scores = work / "weights.safetensors", work / "scores.json"
    if not weights.exists():
        scores.unlink(missing_ok=True)  # of other weights
        train(weights, digits, device)
    model = ar.load_checkpoint(weights).to(device)
    if not scores.exists():
        test = digits.test.first(full_or_quick(len(digits.test.images), 2))
        common.write(scores, likelihood.score("greys", model, test))
    about = json.loads(weights.with_suffix(".json").read_text())
    record = about | {"config": model.config, "parameters": common.count_parameters(model)}
    record |= json.loads(scores.read_text())
    print(f"told the label {record['told']:.4f} bits per pixel, mixture {record['mixture']:.4f}")
    if quick_mode():
        print(common.QUICK)
    else:
        common.write(RECORDS / "greys.json", record)


if __name__ == "__main__":
    main()
