"""How fast digits are drawn: one at a time or many together, everything anew for each pixel or with a cache.

    python benchmarks/generation.py [--quick]

Writes results/generation.json. About four minutes on two cores.

1. The class-conditional MLP: one digit at a time in the plain loop that one writes at first, and many by `generate`, in
   float32 and under bfloat16 autocast.
2. The transformer without its cache, so that each pixel costs a pass over all those before it, and with it. Without it
   only every 28th pixel is measured, one of each row, and counts for 28: a digit would take long. A first pass over
   each number of pixels, which may prepare something, does not count. With it bfloat16 is slower, and is left out.
3. The transformer of Katharopoulos et al. (2020), arXiv 2006.16236: 256 levels, 8 layers, 8 heads, width 256. Only its
   speed is measured, so it is left untrained.

All times are for one digit.
"""

import common
import torch
from torch import nn

import ar_helpers as ar


@torch.no_grad()
def plain_loop(model: ar.ConditionalMLP, label: int) -> list[int]:
    """Draw one digit: build a window, ask the model, draw a token; N times. Returns the N tokens."""
    tokens = []
    for place in range(model.image_size**2):
        context = [model.num_levels] * model.context_length + tokens  # the start token, where nothing is yet
        context = torch.tensor([context[-model.context_length :]])  # (1, C)
        logits = model(context, torch.tensor([place]), torch.tensor([label]))  # (1, K)
        tokens.append(torch.multinomial(logits.softmax(-1), 1).item())
    return tokens


@torch.no_grad()
def without_cache(model: ar.PixelTransformer, batch_size: int, dtype: torch.dtype) -> float:
    """Seconds for one digit of a batch when every pixel is computed from all those before it, nothing being kept."""
    side = model.image_size
    labels = torch.arange(batch_size) % model.num_classes
    total = 0.0
    for place in range(side // 2, side**2, side):  # one pixel of each row
        prefix = torch.randint(model.num_levels, (batch_size, place))
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            total += common.seconds(lambda prefix=prefix: model.next_logits(prefix, labels), 2)
    return total * side / batch_size


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
        batches |= {"cache": (1, 32, 128, 256), "published": (1, 32, 128)}
    for model in (mlp, transformer, published):
        model.eval()
    plain_loop(mlp, 0)  # the first time is slow: threads start, memory is fetched
    common.note("drawing ...")
    times = {  # way: batch size: seconds for one digit
        "conditional_mlp, plain loop": {1: common.seconds(lambda: plain_loop(mlp, 3), 5)},
        "conditional_mlp, generate": {size: together(mlp, size) for size in batches["mlp"]},
        "conditional_mlp, generate in bfloat16": {size: together(mlp, size, torch.bfloat16) for size in batches["mlp"]},
        "transformer, all anew": {size: without_cache(transformer, size, torch.float32) for size in batches["anew"]},
        "transformer, all anew in bfloat16": {
            size: without_cache(transformer, size, torch.bfloat16) for size in batches["anew"]
        },
        "transformer, generate": {size: together(transformer, size) for size in batches["cache"]},
        "published size, generate": {size: together(published, size) for size in batches["published"]},
    }
    plain, mlp_times, mlp_lower, anew, anew_lower, cached, _ = times.values()
    mlp_many, many = min(*mlp_times.values(), *mlp_lower.values()), min(cached.values())
    anew_one, anew_many = min(anew[1], anew_lower[1]), min(*anew.values(), *anew_lower.values())
    ratios = [
        common.ratio("conditional_mlp: one at a time, and many", "seconds", plain[1], mlp_many),
        common.ratio("transformer, one, float32: anew, and with a cache", "seconds", anew[1], cached[1]),
        common.ratio("transformer, one: anew at its best, and with a cache", "seconds", anew_one, cached[1]),
        common.ratio("transformer, many: anew at its best, and with a cache", "seconds", anew_many, many),
    ]
    pixels = mlp.image_size**2
    rows = [
        [way, size, seconds, 1000 * seconds / pixels, 1 / seconds]
        for way, each in times.items()
        for size, seconds in each.items()
    ]
    heads = ["Way to draw", "Together", "Seconds a digit", "Milliseconds a pixel", "Digits per second"]
    record = {
        "dtype": "float32, but where it says bfloat16",
        "pixels_measured_without_cache": "one of each row of 28, the 15th, times 28",
        "ratios": ratios,
        "tables": [{"heads": heads, "rows": rows}],
    }
    common.report("generation", record, quick)


if __name__ == "__main__":
    main()
