"""What far sight and depth bring the transformer of chapter 5: short runs that differ in one thing each.

    python benchmarks/sight.py [--steps 700] [--work .work/sight]

Writes ar_helpers/records/sight.json. Six runs of ten minutes each on two cores with fast bfloat16, half an hour each
without; interrupted, it goes on where it was.
"""

import argparse
import dataclasses
import functools
from pathlib import Path

import common
import torch
import torch.nn.functional as F

import ar_helpers as ar
from ar_helpers.cards import RECORDS
from ar_helpers.models.transformer import Attention
from ar_helpers.recipes import RECIPES
from ar_helpers.training import bfloat16_is_faster

VAL_IMAGES = 1_000
RUNS = {  # name: (depth, how many slots each attention sees; None: all before)
    "all before": (4, None),
    "28 in each layer": (4, 28),
    "8 in each layer": (4, 8),
    "only itself": (4, 1),
    "depth 1": (1, None),
    "depth 2": (2, None),
}


class NearAttention(Attention):
    """Every slot gathers from itself, from a few slots before it, and from slot 0, where the class stands."""

    def __init__(self, slots: int, *arguments):
        super().__init__(*arguments)
        self.slots = slots

    def forward(self, x, cache=None, start=0):
        joined = self.query_key_value(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = joined.permute(2, 0, 3, 1, 4)  # (B, heads, T, d) each
        mask = x.new_ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        mask = mask.triu(1 - self.slots)
        mask[:, 0] = True
        gathered = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(gathered.transpose(1, 2).flatten(2))


def build(name: str, device: str) -> ar.PixelTransformer:
    """The transformer of chapter 5, always with the same first weights for the same depth."""
    depth, slots = RUNS[name]
    torch.manual_seed(0)
    model = ar.PixelTransformer(depth=depth)
    if slots is not None:
        for block in model.trunk.blocks:
            whole = block.attention
            block.attention = NearAttention(slots, model.config["width"], whole.heads, whole.dropout)
            block.attention.load_state_dict(whole.state_dict())
    return model.to(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--work", type=Path, default=common.ROOT / ".work" / "sight")
    options = parser.parse_args()
    digits, device = ar.load_images(), ar.best_device()
    common.need_mnist(digits.name)
    dataset = ar.TokenImages(ar.quantize(digits.train.images, 16).flatten(1), digits.train.labels)
    arithmetic = "bfloat16" if bfloat16_is_faster(torch.device(device).type) else "float32"
    config = dataclasses.replace(RECIPES["transformer"].config, steps=options.steps, arithmetic=arithmetic)
    val = digits.val.first(VAL_IMAGES)
    runs = []
    for name in RUNS:
        path = options.work / f"{name.replace(' ', '_')}_{options.steps}.json"
        make = functools.partial(build, name, device)
        runs.append(common.trial(path, {"name": name}, make, dataset, config, val, val.first(100)))
    about = {"recipe": dataclasses.asdict(config), "val_images": VAL_IMAGES, "runs": runs}
    common.write(RECORDS / "sight.json", common.machine(device) | about)
    common.print_table(["model", "bits"], [[found["name"], found["val_bits_per_pixel"]] for found in runs])


if __name__ == "__main__":
    main()
