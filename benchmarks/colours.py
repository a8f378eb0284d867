"""Chapter 13's experiments on landscapes of 32 x 32 pixels: a training run in stages, and kinds of tokens for colours.

    python benchmarks/colours.py [--quick] [--work .work/colours]

Writes ar_helpers/records/colours.json. The run in stages takes about an hour on two cores with fast bfloat16, the four
models of the comparison ten minutes each; interrupted, it goes on where it was.
"""

import argparse
import contextlib
import dataclasses
import json
import os
from pathlib import Path

import common
import torch
from colour_models import ChannelTransformer, ColourTransformer, NestedColourTransformer

import ar_helpers as ar
from ar_helpers.cards import RECORDS
from ar_helpers.data import full_or_quick, quick_mode
from ar_helpers.files import read_tensors
from ar_helpers.recipes import RECIPES
from ar_helpers.tokens import image_tokens
from ar_helpers.training import bfloat16_is_faster

STAGES = [200, 400, 800, 1_600, 3_000, 6_000, 10_000]  # those of the landscapes that the book grew out of
BATCH = 4  # images in a step of the run in stages
MINUTES = 10  # of each model of the comparison
KINDS = {
    "packed": (ColourTransformer, {}),
    "a slot for each channel": (ChannelTransformer, {}),
    "channels in a pixel": (NestedColourTransformer, {"patch_height": 1, "patch_width": 1, "width": 128, "depth": 4}),
    "channels in a patch": (NestedColourTransformer, {"patch_height": 2, "patch_width": 2, "width": 128, "depth": 4}),
}


class Stage(ar.TokenImages):
    """Images that break off a training run after a number of batches."""

    left = 0

    def __getitem__(self, index):
        if self.left == 0:
            raise StopAsyncIteration  # no other part of a training run raises it
        self.left -= 1
        return super().__getitem__(index)


def build(kind: str, device: str) -> torch.nn.Module:
    """A model with its first weights."""
    torch.manual_seed(0)
    made, sizes = KINDS[kind]
    small = full_or_quick({}, {"width": 16, "depth": 1, "heads": 2})
    return made(**sizes | small).to(device)


def data_for(model: torch.nn.Module, images: ar.ImageSet, kind: type = ar.TokenImages) -> ar.TokenImages:
    """The training set of a model."""
    return kind(image_tokens(images.images, model), images.labels)


def in_stages(digits: ar.Digits, config: ar.TrainConfig, device: str, work: Path) -> list[dict]:
    """One run with a stop at each stage: bits per pixel on some validation images, and drawings of a few labels."""
    model, found, state = build("packed", device), [], work / "stages.safetensors"
    dataset = data_for(model, digits.train, Stage)
    config = dataclasses.replace(config, steps=full_or_quick(STAGES[-1], 20), batch_size=full_or_quick(BATCH, 2))
    val = digits.val.first(full_or_quick(200, 1))
    labels = [0, 1, 6, 7, 8, 9, 14, 15][: full_or_quick(8, 1)]  # two of each season, two of each time of day
    for stage in full_or_quick(STAGES, [20]):
        path = work / f"stage_{stage}.json"
        if not path.exists():
            done = json.loads(read_tensors(state)[1]["state"])["step"] if state.exists() else 0
            dataset.left = stage - done
            if dataset.left:
                with contextlib.suppress(StopAsyncIteration):
                    ar.fit(model, dataset, config, resume=state)
            tensors = read_tensors(state)[0]
            model.load_state_dict({k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")})
            drawn = ar.generate(model, labels, seed=0).tokens
            bits, history = ar.bits_per_pixel(model, val), json.loads(read_tensors(state)[1]["state"])["history"]
            about = {"step": stage, "val_bits_per_pixel": bits, "train_bits_per_pixel": history["train_bits"][-1]}
            images = ["".join(f"{token:03x}" for token in image) for image in drawn.tolist()]
            about |= {"seconds": history["seconds"], "labels": labels, "drawings": images}
            common.write(path, about)
        found.append(json.loads(path.read_text()))
    return found


def pace(kind: str, dataset: ar.TokenImages, config: ar.TrainConfig, device: str) -> float:
    """Seconds of a step of a model's training, beyond the first five."""
    few, more = full_or_quick(5, 1), full_or_quick(20, 2)
    times = [ar.fit(build(kind, device), dataset, dataclasses.replace(config, steps=steps), quiet=True).seconds
             for steps in (few, few, more)]  # fmt: skip
    return (times[2] - times[1]) / (more - few)  # the first run only warms up


def compared(digits: ar.Digits, config: ar.TrainConfig, device: str, work: Path) -> list[dict]:
    """All kinds of models, each trained for the same time."""
    path = work / "paces.json"
    config = dataclasses.replace(config, batch_size=full_or_quick(8, 2))
    datasets = {kind: data_for(build(kind, device), digits.train) for kind in KINDS}
    if not path.exists():
        common.write(path, {kind: pace(kind, datasets[kind], config, device) for kind in KINDS})
    paces, runs = json.loads(path.read_text()), []
    for kind in KINDS:
        steps = full_or_quick(max(200, round(60 * MINUTES / paces[kind])), 2)
        changed, name = dataclasses.replace(config, steps=steps), work / f"{kind.replace(' ', '_')}.json"
        about = {"name": kind, "steps": steps, "seconds_per_step": paces[kind]}
        val = digits.val.first(full_or_quick(200, 1))
        found = common.trial(name, about, lambda kind=kind: build(kind, device), datasets[kind], changed, val, None)
        runs.append(found | {"minutes": found.pop("history")["seconds"] / 60})
    return runs


def tables(record: dict) -> list[dict]:
    """The record as the results page shows it."""
    rows = []
    for run in record["kinds"]:
        numbers = [f"{run['parameters']:,}", f"{run['steps']:,}", f"{run['minutes']:.1f}"]
        rows.append([run["name"], *numbers, f"{run['val_bits_per_pixel']:.3f}"])
    return [{"heads": ["Tokens", "Parameters", "Steps", "Minutes", "Bits per pixel"], "rows": rows}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only try that it runs: tiny sizes, nothing is written")
    parser.add_argument("--work", type=Path, help="a folder for what an interrupted call leaves")
    options = parser.parse_args()
    if options.quick:
        os.environ["AR_QUICK"] = "1"
    work = options.work or common.ROOT / ".work" / full_or_quick("colours", "colours_quick")
    work.mkdir(parents=True, exist_ok=True)
    digits, device = ar.load_images("landscapes_32"), ar.best_device()
    arithmetic = "bfloat16" if bfloat16_is_faster(torch.device(device).type) else "float32"
    config = dataclasses.replace(RECIPES["transformer"].config, arithmetic=arithmetic)
    record = common.machine(device) | {"arithmetic": arithmetic, "stages": in_stages(digits, config, device, work)}
    record["kinds"] = compared(digits, config, device, work)
    record["tables"] = tables(record)
    common.print_table(**record["tables"][0])
    if quick_mode():
        print(common.QUICK)
    else:
        common.write(RECORDS / "colours.json", record)


if __name__ == "__main__":
    main()
