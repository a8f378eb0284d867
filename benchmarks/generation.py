"""How fast digits are drawn: one at a time or many together, everything anew for each pixel or with a cache.

    python benchmarks/generation.py [--quick]

Writes results/generation.json. About ten minutes on two cores.

1. The class-conditional MLP: one digit at a time in the plain loop that one writes at first, and many by `generate`.
2. The transformer without its cache, so that each pixel costs a pass over all those before it, and with it. Without it
   only every 28th pixel is measured, one of each row, and counts for 28: a digit would take long. A first pass over
   each number of pixels, which may prepare something, does not count. A single digit is measured with one thread and
   with all, and the better counts; with its cache it is drawn by one thread, as `generate` decides.
3. The transformer of Katharopoulos et al. (2020), arXiv 2006.16236: 256 levels, 8 layers, 8 heads, width 256. Only its
   speed is measured, so it is left untrained.
4. Every shipped model, a hundred digits together and one alone.

All times are for one digit. Where bfloat16 is faster on this machine, the first two are measured under its autocast too
(but not with the cache, which is slower for it).
"""

from collections.abc import Callable

import common
import torch
from torch import nn

import ar_helpers as ar
from ar_helpers import recipes
from ar_helpers.training import bfloat16_is_faster


@torch.no_grad()
def plain_loop(model: ar.ConditionalMLP, label: int) -> list[int]:
    """Draw one digit: build a window, ask the model, draw a token; N times. Returns the N tokens."""
    tokens = []
    for position in range(model.image_size**2):
        context = [model.num_levels] * model.context_length + tokens  # the start token, where nothing is yet
        context = torch.tensor([context[-model.context_length :]])  # (1, C)
        logits = model(context, torch.tensor([position]), torch.tensor([label]))  # (1, K)
        tokens.append(torch.multinomial(logits.softmax(-1), 1).item())
    return tokens


@torch.no_grad()
def without_cache(model: ar.PixelTransformer, batch_size: int, dtype: torch.dtype) -> float:
    """Seconds for one digit of a batch when every pixel is computed from all those before it, nothing being kept."""
    side = model.image_size
    labels = torch.arange(batch_size) % model.num_classes
    total = 0.0
    for position in range(side // 2, side**2, side):  # one pixel of each row
        prefix = torch.randint(model.num_levels, (batch_size, position))
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            total += common.seconds(lambda prefix=prefix: model.next_logits(prefix, labels), 2)
    return total * side / batch_size


def by_one_thread(measure: Callable[[], float]) -> float:
    """What is measured when one thread does all the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure()
    finally:
        torch.set_num_threads(threads)


def together(model: nn.Module, batch_size: int, dtype: torch.dtype = torch.float32) -> float:
    """Seconds for one digit when `generate` draws a batch; of a single one, the best of five."""
    labels = [i % model.num_classes for i in range(batch_size)] if model.num_classes else None
    repeats = 5 if batch_size == 1 else 1
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        return common.seconds(lambda: ar.generate(model, labels, count=batch_size, seed=0), repeats) / batch_size


def main() -> None:
    quick = common.parse(__doc__).quick
    torch.manual_seed(0)
    if quick:
        tiny = {"image_size": 6, "width": 16, "depth": 1}
        mlp, transformer = ar.ConditionalMLP(image_size=6, hidden_size=16), ar.PixelTransformer(**tiny)
        published = ar.PixelTransformer(num_levels=256, num_classes=0, stem=False, **tiny)
        batches = dict.fromkeys(("mlp", "anew", "cache", "published"), (1, 2))
    else:
        mlp, transformer = ar.load_pretrained("conditional_mlp"), ar.load_pretrained("transformer")
        published = ar.PixelTransformer(num_levels=256, num_classes=0, width=256, depth=8, heads=8, stem=False)
        batches = {"mlp": (1, 100, 1000), "anew": (1, 4, 16, 64)}
        batches |= {"cache": (1, 16, 100, 256), "published": (1, 32, 128)}
    names = ["patch_4x4"] if quick else [name for name in recipes.RECIPES if name in common.digit_models()]
    shipped = {name: ar.load_pretrained(name) for name in names}
    for model in (mlp, transformer, published):
        model.eval()
    plain_loop(mlp, 0)  # the first time is slow: threads start, memory is fetched
    common.note("drawing ...")
    dtypes = [torch.float32] + [torch.bfloat16] * bfloat16_is_faster("cpu")
    times = {  # way: batch size: seconds for one digit
        "conditional_mlp, plain loop": {1: common.seconds(lambda: plain_loop(mlp, 3), 5)},
        **{
            f"conditional_mlp, generate in {str(dtype)[6:]}": {
                size: together(mlp, size, dtype) for size in batches["mlp"]
            }
            for dtype in dtypes
        },
        "transformer, all anew by one thread": {1: by_one_thread(lambda: without_cache(transformer, 1, torch.float32))},
        **{
            f"transformer, all anew in {str(dtype)[6:]}": {
                size: without_cache(transformer, size, dtype) for size in batches["anew"]
            }
            for dtype in dtypes
        },
        "transformer, generate": {size: together(transformer, size) for size in batches["cache"]},
        "published size, generate": {size: together(published, size) for size in batches["published"]},
    }

    def best(way: str, size: int | None = None) -> float:
        """The shortest time of all ways that begin so, of a batch of this size or of the best."""
        found = [each for name, each in times.items() if name.startswith(way)]
        return min(seconds for each in found for count, seconds in each.items() if size in (None, count))

    anew, cached = best("transformer, all anew", 1), best("transformer, generate", 1)
    mlp_plain, mlp_many = best("conditional_mlp, plain"), best("conditional_mlp, generate")
    anew_many, cached_many = best("transformer, all anew"), best("transformer, generate")
    ratios = [
        common.ratio("conditional_mlp: one at a time, and many", "seconds", mlp_plain, mlp_many),
        common.ratio("transformer, one: anew at its best, and with a cache", "seconds", anew, cached),
        common.ratio("transformer, many: anew at its best, and with a cache", "seconds", anew_many, cached_many),
    ]
    pixels = mlp.image_size**2
    rows = [
        [way, size, seconds, 1000 * seconds / pixels, 1 / seconds]
        for way, each in times.items()
        for size, seconds in each.items()
    ]
    heads = ["Way to draw", "Together", "Seconds a digit", "Milliseconds a pixel", "Digits per second"]
    many = 2 if quick else 100
    drawn = {name: (together(each, many), together(each, 1)) for name, each in shipped.items()}
    heads_of_models = ["Model", "One of a hundred together", "One alone"]
    rows_of_models = [
        [name, *(f"{1000 * each:,.0f} ms" for each in times_of_one)] for name, times_of_one in drawn.items()
    ]
    record = {
        "dtype": "float32, but where it says bfloat16",
        "threads": torch.get_num_threads(),
        "pixels_measured_without_cache": "one of each row of 28, the 15th, times 28",
        "ratios": ratios,
        "tables": [{"heads": heads, "rows": rows}, {"heads": heads_of_models, "rows": rows_of_models}],
    }
    common.report("generation", record, quick)


if __name__ == "__main__":
    main()
