"""How long it takes, and how much memory, to have training windows ready: a loop over pixels, and `ContextWindows`.

    python benchmarks/data.py [--quick]

Writes results/data.json. About a minute. *Ready* means in batches, as a training loop takes them: for the loop over
pixels, 200,000 windows are built and then pass once through a DataLoader; of ours, all those of the 50,000 training
images pass once, in the order that `fit` shuffles them to. Each is measured in a process of its own, the memory
as the highest that it took from the system meanwhile (Linux tells it). Times and memory are then for one window.
"""

import random
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import common
import torch
from torch.utils.data import DataLoader

import ar_helpers as ar
from ar_helpers.training import ShuffledBatches

C, K, SIDE = 28, 16, 28


def pixel_by_pixel(tokens, labels, count, with_position=False, with_class=False):
    """What one writes at first: a walk over the pixels in Python, and a tuple of tensors for every fifth, at random.

    Args:
        tokens: (M, N) integers, the images to walk through.
        labels: (M,) integers.
        count: how many windows to stop at.
        with_position, with_class: whether to note the pixel's place and the image's class.

    Returns:
        A list of (context (C,), place if wanted, class if wanted, target), all int64, three of them single numbers.
    """
    pairs, chance = [], random.Random(0)
    for image, label in zip(tokens, labels.tolist(), strict=True):
        pixels = image.tolist()
        for place, target in enumerate(pixels):
            if chance.random() > 0.2:
                continue
            context = [K] * (C - place) + pixels[max(0, place - C) : place]  # the start token where nothing is yet
            pair = [torch.tensor(context)]
            if with_position:
                pair.append(torch.tensor(place))
            if with_class:
                pair.append(torch.tensor(label))
            pairs.append((*pair, torch.tensor(target)))
            if len(pairs) == count:
                return pairs
    return pairs


def memory(field: str) -> int:
    """Bytes that this process has of the system's memory: now (VmRSS), or at the most so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def measure(builder: str, everything: bool, quick: bool) -> dict:
    """What one builder needs for a window: microseconds to build it and to have it in a batch, and bytes.

    Args:
        builder: "plain" or "ours".
        everything: whether windows come with place and class, as the conditional MLP's do, or bare.
        quick: whether to build a few only.
    """
    images = 128 if quick else 50_000
    digits = ar.load_images()
    common.need_mnist(digits.name)
    tokens, labels = ar.quantize(digits.train.images[:images], K).flatten(1), digits.train.labels[:images]
    Path("/proc/self/clear_refs").write_text("5")  # what loading the images took at the most is forgotten
    before, began = memory("VmRSS"), time.perf_counter()
    if builder == "plain":
        windows = pixel_by_pixel(tokens, labels, 2_000 if quick else 200_000, everything, everything)
        loader = DataLoader(windows, batch_size=512, shuffle=True)
    else:
        windows = ar.ContextWindows(tokens, labels if everything else None, context_length=C, num_levels=K)
        batches = ShuffledBatches(len(windows), 1024, len(windows) // 1024, seed=0)
        loader = DataLoader(windows, sampler=batches, batch_size=None)
    built = time.perf_counter()
    for _ in loader:
        pass
    ready = time.perf_counter()
    count, microsecond = len(windows), 1e-6
    return {
        "built": (built - began) / count / microsecond,
        "ready": (ready - began) / count / microsecond,
        "bytes": (memory("VmHWM") - before) / count,
    }


def main() -> None:
    quick = common.parse(__doc__).quick
    ratios, rows = [], []
    for words, everything in (("context and pixel", False), ("with place and class", True)):
        found = {}
        for builder in ("plain", "ours"):
            common.note(f"{words}, {builder} ...")
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                found[builder] = fresh.submit(measure, builder, everything, quick).result()
        plain, ours = found["plain"], found["ours"]
        ratios += [
            common.ratio(f"{words}: built and in batches", "microseconds", plain["ready"], ours["ready"]),
            common.ratio(f"{words}: plain only built", "microseconds", plain["built"], ours["ready"]),
            common.ratio(f"{words}: memory", "bytes", plain["bytes"], ours["bytes"]),
        ]
        for name, each in (("a loop over pixels", plain), ("ContextWindows", ours)):
            rows.append([f"{words}, {name}", 5 * each["built"], 5 * each["ready"], 5e6 * each["bytes"] / 1e9])
    heads = ["5,000,000 windows", "Built, s", "In batches, s", "Memory, GB"]
    record = {"dtype": "int64", "ratios": ratios, "tables": [{"heads": heads, "rows": rows}]}
    common.report("data", record, quick)


if __name__ == "__main__":
    main()
