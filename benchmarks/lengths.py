"""What a longer row of pixels costs, from a digit's 784 to the 4,096 of a landscape: seconds, memory, and attention.

    python benchmarks/lengths.py [--quick]

Writes ar_helpers/records/lengths.json. About ten minutes on two cores. The models are untrained, which changes nothing.

1. Chapter 13's transformer for packed colours: drawing with the cache and without it, the cache's memory, and the share
   of attention in the time of a pass over a whole image, and of a step of drawing half-way down the image.
2. Models that draw the largest images channel by channel, with a slot for each patch; one image and several together.
"""

from collections.abc import Callable

import common
import torch
from chapter_models import ColourTransformer
from torch.profiler import ProfilerActivity, profile

import ar_helpers as ar
from ar_helpers.cards import RECORDS
from ar_helpers.data import full_or_quick
from ar_helpers.sampling import drawing

SIZES = [28, 32, 64]
TOGETHER = [1, 16]
POINTS = 16  # positions at which drawing without the cache is measured


def anew(model: torch.nn.Module) -> float:
    """Seconds for one image when every pixel is computed from all those before it, from a few pixels of it."""
    length, labels, points = model.sequence_length, torch.zeros(1, dtype=torch.long), full_or_quick(POINTS, 2)
    total = 0.0
    for number in range(points):
        prefix = torch.randint(model.num_levels, (1, (2 * number + 1) * length // (2 * points)))
        total += common.seconds(lambda prefix=prefix: model.next_logits(prefix, labels), 2)
    return total * length / points


def cached(model: torch.nn.Module, count: int) -> float:
    """Seconds for each of some images that `generate` draws together."""
    return common.seconds(lambda: ar.generate(model, torch.arange(count), seed=0)) / count


def kept(model: torch.nn.Module) -> int:
    """Bytes that the cache holds of one whole image, without the room that it has in reserve."""
    tokens, cache = torch.zeros(1, model.sequence_length, dtype=torch.long), ar.Cache()
    with torch.no_grad():
        model(tokens, torch.tensor([0]), cache)
    rooms = [room for each in cache.kept.values() for room in each]
    return sum(room[..., : room.shape[-2] // 2, :].numel() * room.element_size() for room in rooms)


def attention_share(work: Callable[[], object]) -> float:
    """The share of attention itself, without its linear layers, in the time of some work."""
    work()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        work()
    times = {event.key: event.self_cpu_time_total for event in found.key_averages()}
    return sum(time for name, time in times.items() if "scaled_dot_product" in name) / sum(times.values())


@torch.no_grad()
def step(model: torch.nn.Module, count: int) -> Callable[[], object]:
    """A step of drawing some images together, half-way down the image."""
    half, labels, cache = model.sequence_length // 2, torch.zeros(count, dtype=torch.long), ar.Cache()
    tokens = torch.randint(model.num_levels, (count, half))
    model.next_logits(tokens, labels, cache)

    def again() -> torch.Tensor:
        cache.length = half
        return model.next_logits(tokens, labels, cache)

    return again


@torch.no_grad()
def of_length(size: int) -> dict:
    """All measurements of one size of image."""
    common.note(f"{size} x {size} pixels ...")
    model = ColourTransformer(image_size=size, **full_or_quick({}, {"width": 16, "depth": 1, "heads": 2})).eval()
    together = full_or_quick(TOGETHER, [1, 2])
    with drawing(model, 1):
        found = {"anew": anew(model), "shares": {}}
    found["cached"] = {str(count): cached(model, count) for count in together}
    tokens = torch.randint(model.num_levels, (together[1], model.sequence_length))
    labels = torch.zeros(len(tokens), dtype=torch.long)
    found["shares"]["pass"] = attention_share(lambda: model.image_logits(tokens, labels))
    found["shares"]["step"] = attention_share(step(model, together[1]))
    return {"pixels": model.sequence_length, "cache_bytes": kept(model)} | found


def in_patches(side: int) -> dict:
    """Seconds for an image of the largest size, drawn in patches."""
    common.note(f"patches of {side} x {side} pixels ...")
    small = full_or_quick({"width": 128, "depth": 4}, {"width": 16, "depth": 1, "heads": 2})
    model = ar.NestedColourTransformer(
        image_size=full_or_quick(SIZES, [8])[-1], patch_height=side, patch_width=side, **small
    ).eval()
    return {"side": side, "cached": {str(count): cached(model, count) for count in full_or_quick(TOGETHER, [1, 2])}}


def tables(record: dict) -> list[dict]:
    """The record as the results page shows it."""
    heads = ["Pixels", "Without cache, s", "With cache, s", "16 together, s each", "Cache, MB"]
    heads += ["Attention, pass", "Attention, step"]
    rows = []
    for each in record["lengths"]:
        seconds = [f"{each['anew']:,.0f}", *(f"{time:.1f}" for time in each["cached"].values())]
        shares = [f"{share:.0%}" for share in each["shares"].values()]
        rows.append([f"{each['pixels']:,}", *seconds, f"{each['cache_bytes'] / 1e6:.1f}", *shares])
    patches = [[f"{each['side']} x {each['side']}", *(f"{time:.1f}" for time in each["cached"].values())]
               for each in record["patches"]]  # fmt: skip
    return [
        {"heads": heads, "rows": rows},
        {"heads": ["Patches, 4,096 pixels", "One, s", "16 together, s each"], "rows": patches},
    ]


def main() -> None:
    quick = common.parse(__doc__).quick
    torch.manual_seed(0)
    record = common.machine() | {"threads": torch.get_num_threads()}
    record["lengths"] = [of_length(size) for size in full_or_quick(SIZES, [8])]
    record["patches"] = [in_patches(side) for side in full_or_quick([1, 2, 4], [2])]
    record["tables"] = tables(record)
    for table in record["tables"]:
        common.print_table(**table)
    if quick:
        print(common.QUICK)
    else:
        common.write(RECORDS / "lengths.json", record)


if __name__ == "__main__":
    main()
