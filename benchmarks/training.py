"""How fast training goes: the plain loop and `fit`, how near that is to the machine's limit, and the time to a score.

    python benchmarks/training.py [--quick]

Writes results/training.json. About six minutes on two cores.

The plain loop is what one writes at first: windows built pixel by pixel, put together one by one to batches of 512,
float32, dropout, AdamW at a constant rate. It sees 500,000 windows. `fit` trains the same architecture with as many
parameters by the book's recipe; its speed is that of all steps but the first twenty. Then it trains anew by the same
recipe, at a higher rate and shortened, so that its schedule ends where the test bits are just below the plain loop's.
Preparing the data counts on both sides, scoring on neither; both are scored on the first 500 test images.

The machine's limit is the fastest square matrix product. What counts as work are the multiplications and the additions
of the matrix products that are made, forward and backward, those of attention below the diagonal only. Looking rows up,
adding, normalizing and everything in the optimizer takes time and counts for nothing.
"""

import dataclasses
import time

import common
import torch
import torch.nn.functional as F
from data import C, K, pixel_by_pixel
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

import ar_helpers as ar
from ar_helpers.models.windows import WindowModel, mlp
from ar_helpers.recipes import RECIPES

SIDE = 28
MLPS = {  # name: whether it is told the pixel's place, the image's class; steps of the shortened recipe
    "one_hot_mlp": (False, False, 290),
    "positional_mlp": (True, False, 255),
    "conditional_mlp": (True, True, 220),
}
SHORT_RATE = 4e-3  # a short run bears a higher one
SHORT_IMAGES = 10_000  # more than the shortened recipes get round to


class PlainMLP(WindowModel):
    """The three MLPs as one writes them at first: dense layers on float vectors, and dropout."""

    def __init__(self, with_position: bool, with_class: bool, hidden_size: int = 1024):
        super().__init__(K, SIDE, C, **({"num_classes": 10} if with_class else {}))
        self.with_position, self.with_class = with_position, with_class
        input_size = C * (16 if with_class else K + 1)
        if with_position:
            self.row, self.col = nn.Embedding(SIDE, 32), nn.Embedding(SIDE, 32)
            input_size += 2 * 32
        if with_class:
            self.token, self.label = nn.Embedding(K + 1, 16), nn.Embedding(10, 16)
            input_size += 16
        self.layers = mlp(input_size, hidden_size, K, dropout=0.25)

    def forward(self, context, position=None, label=None):
        vectors = self.token(context) if self.with_class else F.one_hot(context, K + 1).float()
        parts = [vectors.flatten(-2)]  # (..., C * 17), or (..., C * 16) where tokens have learned vectors
        if self.with_position:
            parts += [self.row(position // SIDE), self.col(position % SIDE)]  # (..., 32) each
        if self.with_class:
            parts.append(self.label(label))  # (..., 16)
        return self.layers(torch.cat(parts, dim=-1))  # (..., K)


def train_plain(model: nn.Module, windows: list, weight_decay: float) -> None:
    """One pass of the plain loop over a list of (context, place or nothing, class or nothing, target)."""
    loader = DataLoader(windows, batch_size=512, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=weight_decay)
    model.train()
    for *inputs, target in loader:
        loss = F.cross_entropy(model(*inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def fit_rate(model: nn.Module, dataset: Dataset, config: ar.TrainConfig, few: int, many: int) -> float:
    """Examples per second of `fit`: from what `many` steps take more than `few`, so that its start counts for nothing.

    Shuffling the data once an epoch belongs to the start here: an epoch has far more steps than these.
    """
    runs = (ar.fit(model, dataset, dataclasses.replace(config, steps=steps), quiet=True) for steps in (few, many))
    short, long = (run.seconds for run in runs)
    return (many - few) * config.batch_size / (long - short)


def operations(model: nn.Module, inputs: tuple, target: torch.Tensor) -> int:
    """Multiplications and additions of the matrix products for one batch, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(*inputs).flatten(0, -2), target.flatten()).backward()
    model.zero_grad()
    counted = counter.get_total_flops()
    if isinstance(model, ar.PixelTransformer):  # on a CPU the counter does not see into attention
        slots = target.shape[1]
        pairs = len(target) * slots * (slots + 1) // 2  # of a slot and one that it may look at
        scores = 2 * pairs * model.config["width"] * model.config["depth"]  # queries times keys, in all layers
        counted += 3 * 2 * scores  # as much for gathering the values; twice as much backward as forward
    return counted


def fastest_product(dtype: torch.dtype, sizes: tuple[int, ...]) -> float:
    """Operations per second of the fastest square matrix product: 2 n^3 for two matrices of n x n."""
    fastest = 0.0
    for size in sizes:
        a, b = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
        fastest = max(fastest, 2 * size**3 / common.seconds(lambda a=a, b=b: a @ b, repeats=10))
    return fastest


def thinned(name: str, tokens: torch.Tensor, labels: torch.Tensor) -> Dataset:
    """The windows of images (M, N) that the recipe of this name trains on."""
    _, with_class, _ = MLPS[name]
    return ar.ThinnedWindows(tokens, labels if with_class else None, context_length=C, num_levels=K)


def build(name: str, quick: bool) -> nn.Module:
    """An untrained model of the recipe of this name; in a quick run a tiny one."""
    tiny = {"hidden_size": 32} if name in MLPS else {"width": 16, "depth": 1}
    torch.manual_seed(0)
    return RECIPES[name].model(**(tiny if quick else RECIPES[name].sizes))


def main() -> None:
    quick = common.parse(__doc__).quick
    digits = ar.load_images()
    common.need_mnist(digits.name)
    images, count = (100, 1_024) if quick else (50_000, 500_000)
    tokens, labels = ar.quantize(digits.train.images[:images], K).flatten(1), digits.train.labels[:images]
    test = digits.test.first(1 if quick else 500)
    product_sizes = (256,) if quick else (512, 1024, 2048, 3072, 4096)
    fastest = {str(dtype)[6:]: fastest_product(dtype, product_sizes) for dtype in (torch.float32, torch.bfloat16)}
    dtype = max(fastest, key=fastest.get)  # both sides get the arithmetic that is faster here
    rates, times, shares, parts = [], [], [], []

    def arithmetic(recipe: ar.TrainConfig) -> ar.TrainConfig:
        return dataclasses.replace(recipe, arithmetic=dtype)

    def measure_fit(name: str, dataset: Dataset, few: int, many: int) -> float:
        """Note the share of the machine's limit, and return examples per second."""
        model, recipe = build(name, quick), arithmetic(RECIPES[name].config)
        if quick:
            recipe, few, many = dataclasses.replace(recipe, batch_size=8), 2, 10
        inputs, target, *_ = dataset[torch.arange(8)]
        needed = operations(model, inputs, target) / 8
        rate = fit_rate(model, dataset, recipe, few, many)
        shares.append([name, common.count_parameters(model), needed / 1e6, rate, needed * rate / fastest[dtype]])
        return rate

    for name, (with_position, with_class, short_steps) in MLPS.items():
        common.note(f"training {name} ...")
        recipe = arithmetic(RECIPES[name].config)

        torch.manual_seed(0)
        plain = PlainMLP(with_position, with_class, hidden_size=32 if quick else 1024)
        began = time.perf_counter()
        windows = pixel_by_pixel(tokens, labels, count, with_position, with_class)
        built = time.perf_counter()
        train_plain(plain, windows, 1e-5 if with_position else 1e-2)  # AdamW's own decay for the first
        trained = time.perf_counter()
        del windows
        plain_parts = [built - began, trained - built]

        rate = measure_fit(name, thinned(name, tokens, labels), 20, 220)
        rates.append(common.ratio(f"{name}: training", "windows per second", count / plain_parts[1], rate))

        ours = build(name, quick)
        assert common.count_parameters(ours) == common.count_parameters(plain)
        began = time.perf_counter()
        dataset = thinned(name, tokens[:SHORT_IMAGES], labels[:SHORT_IMAGES])
        built = time.perf_counter()
        config = dataclasses.replace(recipe, steps=short_steps, learning_rate=SHORT_RATE)
        ar.fit(ours, dataset, config, quiet=True)
        our_parts = [built - began, time.perf_counter() - built]
        times.append(common.ratio(f"{name}: to the same bits", "seconds", sum(plain_parts), sum(our_parts)))
        parts += [[f"{name}, plain", *plain_parts, ar.bits_per_pixel(plain, test)]]
        parts += [[f"{name}, ours", *our_parts, ar.bits_per_pixel(ours, test)]]

    common.note("training transformer ...")
    measure_fit("transformer", ar.TokenImages(tokens, labels), 5, 25)
    share_heads = ["Model", "Parameters", "MFLOP an example", "Examples per second", "Share of the fastest product"]
    record = {
        "dtype": dtype,
        "ratios": rates + times,
        "tables": [
            {"heads": share_heads, "rows": shares},
            {"heads": ["Fastest matrix product", "GFLOP per second"],
             "rows": [[name, speed / 1e9] for name, speed in fastest.items()]},
            {"heads": ["To the same bits", "Data, s", "Training, s", "Bits per pixel"], "rows": parts},
        ],
    }  # fmt: skip
    common.report("training", record, quick)


if __name__ == "__main__":
    main()
