"""Chapter 12's comparison: ways to tell a transformer where a pixel is and what to draw, and other orders of drawing.

    python benchmarks/positions.py [--quick] [--work .work/positions] [--first N]

Writes ar_helpers/records/positions.json; while it runs, record.json in the folder --work holds the runs so far, the
most telling first. Each run's weights and drawings stay in this folder. About twenty minutes a run on two cores with
fast bfloat16, of which there are some thirty; interrupted, it goes on where it was.
"""

import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import common
import torch
import torch.nn.functional as F
from chapter_models import on_canvas

import ar_helpers as ar
from ar_helpers import metrics
from ar_helpers.cards import RECORDS, hardware
from ar_helpers.data import full_or_quick, quick_mode
from ar_helpers.models.positions import POSITIONS, AnyOrderTransformer, PositionedTransformer
from ar_helpers.recipes import RECIPES
from ar_helpers.training import bfloat16_is_faster

STEPS = 1_475  # half of chapter 5's
PLAIN = {"stem": False}  # the stem would give the neighbourhood away
FAMOUS = ["learned_2d", "rope_1d", "rope_2d"]
CANVAS = 32
KEPT = ["drawings.safetensors", "wide.safetensors", "looks.json", "width.json", "mixture.json", "hole.json"]
CENTRE = [14.0, 14.0]  # MNIST's digits have the middle of their ink there (LeCun et al., 1998)


def runs() -> list[dict]:
    """What to train, the most informative runs first."""

    def run(name: str, sizes: dict, seed: int = 0, steps: int = STEPS, made=PositionedTransformer) -> dict:
        return {"name": name, "sizes": sizes, "seed": seed, "steps": steps, "class": made.__name__}

    first = [run(name, PLAIN | {"positions": name}) for name in (*FAMOUS, "rope_1d_column", "none")]
    bases = [run(f"{name}, base 100", PLAIN | {"positions": name, "base": 100}) for name in ("rope_1d", "rope_2d")]
    rest = [run(name, PLAIN | {"positions": name}) for name in ("sinusoidal_2d", "learned_1d")]
    random = [run("any order", {"order": "random"}, made=AnyOrderTransformer)]
    held = [run("rope_2d, target unknown", PLAIN | {"positions": "rope_2d", "target": False})]
    with_stem = [run(f"{name}, stem", {"positions": name, "stem": True}) for name in FAMOUS]
    orders = [run(name, {"order": name}, made=AnyOrderTransformer) for name in ("raster", "columns", "serpentine")]
    seeds = [each | {"seed": seed} for seed in (1, 2) for each in first + rest]
    labels = [run(f"learned_2d, label {way}", PLAIN | {"label_as": way}) for way in ("pixel", "added")]
    labels.append(run("learned_2d, stem, label pixel", {"stem": True, "label_as": "pixel"}))
    return first + bases + rest + random + held + with_stem + orders[:1] + seeds + labels + orders[1:]


def build(run: dict, image_size: int, device: str) -> torch.nn.Module:
    """A run's model with the first weights of its seed."""
    torch.manual_seed(run["seed"])
    made = {each.__name__: each for each in (PositionedTransformer, AnyOrderTransformer)}[run["class"]]
    small = full_or_quick({}, {"width": 16, "depth": 1, "heads": 2})
    return made(image_size=image_size, **run["sizes"] | small).to(device)


def trained(run: dict, path: Path, dataset: ar.TokenImages, val: ar.ImageSet, device: str, arithmetic: str) -> tuple:
    """The model of a run, and what `common.trial` found: trained here, or by an earlier call.

    Of a seed but the first, only the result and the drawings are needed later. If both are there, the model is None.
    """
    result = Path(f"{path}.json")
    if run["seed"] and result.exists() and drawings_of(path).exists():
        return None, json.loads(result.read_text())
    changed = {"steps": run["steps"], "seed": run["seed"], "arithmetic": arithmetic}
    config = dataclasses.replace(RECIPES["transformer"].config, **changed)
    about = run | {"hardware": hardware(device), "arithmetic": arithmetic}
    if not Path(f"{path}.weights.safetensors").exists():  # what was measured belongs to other weights
        for kind in KEPT:
            Path(f"{path}.{kind}").unlink(missing_ok=True)
    return common.trained(path, about, lambda: build(run, val.images.shape[1], device), dataset, config, val)


def drawings_of(path: Path) -> Path:
    """The file of a run's drawings."""
    return Path(f"{path}.drawings.safetensors")


def kept(path: str, measure: Callable[..., dict], *arguments) -> dict:
    """What a measurement finds, or found in an earlier call."""
    if not Path(path).exists():
        common.note(Path(path).stem)
        common.write(Path(path), measure(*arguments))
    return json.loads(Path(path).read_text())


# --- What is measured ---------------------------------------------------------------------------------------------


def slants(images: torch.Tensor) -> torch.Tensor:
    """How far (B,) the ink of images (B, H, W) leans to the right: columns for each row up, from moments of ink.

    It is -mu11 / mu02, the slope of the line through each row's middle, by least squares; NaN without ink.
    """
    ink = images.double()
    ink = ink / ink.sum((1, 2), keepdim=True)
    row, col = (torch.arange(size).double() for size in images.shape[1:])
    row = row.view(-1, 1) - (ink * row.view(-1, 1)).sum((1, 2)).view(-1, 1, 1)
    col = col - (ink * col).sum((1, 2)).view(-1, 1, 1)
    return -(ink * row * col).sum((1, 2)) / (ink * row**2).sum((1, 2))


def off_centre(images: torch.Tensor) -> torch.Tensor:
    """How many rows and columns (B, 2) the middle of the ink of images (B, H, W) lies from CENTRE; NaN without ink."""
    ink = images.double() / images.double().sum((1, 2), keepdim=True)
    rows, cols = (torch.arange(size).double() for size in images.shape[1:])
    middles = torch.stack([ink.sum(2) @ rows, ink.sum(1) @ cols], dim=1)
    return (middles - torch.tensor(CENTRE)).abs()


def by_label(values: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """The mean of values (B,) over each label from 0 to 9, without what is not a number."""
    return [values[labels == label].nanmean().item() for label in range(10)]


def slant_of(tokens: torch.Tensor, labels: torch.Tensor, written: list[float]) -> dict:
    """The slants of drawings by label, and their mean distance from written digits with its standard error."""
    found = slants(tokens.view(-1, *2 * (math.isqrt(tokens.shape[1]),)))
    apart = (found - torch.tensor(written).double()[labels])[~found.isnan()]
    error = apart.std().item() / math.sqrt(max(len(apart), 1))
    return {"slants": by_label(found, labels), "slant_apart": apart.mean().item(), "slant_error": error}


def milliseconds(models: dict[str, torch.nn.Module], count: int) -> dict[str, float]:
    """Milliseconds per image of drawing `count` images at once: the best of three rounds over all models."""
    labels, best = torch.arange(count) % 10, {}
    for _ in range(3):
        for name, model in models.items():
            spent = 1000 / count * common.seconds(lambda model=model: ar.generate(model, labels, seed=0))
            best[name] = min(spent, best.get(name, math.inf))
    return best


def padded(images: ar.ImageSet, before: int) -> ar.ImageSet:
    """The images on a larger canvas, `before` black rows above and columns to the left."""
    after = CANVAS - images.images.shape[1] - before
    return images._replace(images=F.pad(images.images, (before, after, before, after)))


def another_width(model: torch.nn.Module, val: ar.ImageSet, path: Path, count: int) -> dict:
    """Bits per image on a larger canvas, digits in its corner or its middle, and how its drawings are read."""
    wider, margin = on_canvas(model, CANVAS), (CANVAS - model.image_size) // 2
    bits = {"own": model.image_size**2 * ar.bits_per_pixel(model, val, quiet=True)}
    for name, before in (("corner", 0), ("middle", margin)):
        bits[name] = CANVAS**2 * ar.bits_per_pixel(wider, padded(val, before), quiet=True)
    tokens = common.drawn(path, wider, torch.arange(count) % 10, 2026).view(-1, CANVAS, CANVAS)
    read = {}
    for name, before in (("corner", 0), ("middle", margin)):
        inside = tokens[:, before : before + 28, before : before + 28].flatten(1)
        read[name] = metrics.judge(inside, torch.arange(count) % 10, 16).recognized.double().mean().item()
    return {"bits_per_image": bits, "recognized": read}


def looks(model: torch.nn.Module, tokens: torch.Tensor, labels: torch.Tensor) -> dict:
    """Where attention looks: its mean weight by the step from the pixel to predict, over images, layers and heads.

    "steps" has 8 rows, 7 up to 0 up, of 29 columns, 14 to the left to 14 to the right; beyond them lies "farther".
    """
    side, found, plain = model.image_size, [], F.scaled_dot_product_attention
    device = next(model.parameters()).device

    def spy(query, key, value, attn_mask, dropout_p, is_causal):
        allowed = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=device).tril()
        scores = (query @ key.mT / math.sqrt(query.shape[-1])).masked_fill(~allowed, -math.inf)
        found.append(scores.softmax(-1).mean((0, 1)).cpu())  # (N, N)
        return plain(query, key, value, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal)

    F.scaled_dot_product_attention = spy
    try:
        with torch.no_grad():
            for part in torch.arange(len(tokens)).split(5):
                model.image_logits(tokens[part].long().to(device), labels[part].to(device))
    finally:
        F.scaled_dot_product_attention = plain
    weights = torch.stack(found).mean(0)  # by the pixel to predict and the slot, which holds the pixel before
    target, held = torch.arange(side**2).view(-1, 1), torch.arange(side**2 - 1)
    down, right = held // side - target // side, held % side - target % side
    near, steps = (down >= -7) & (right.abs() <= 14) & (held < target), torch.zeros(8, 29)
    steps.index_put_((down[near] + 7, right[near] + 14), weights[:, 1:][near] / side**2, accumulate=True)
    first = weights[:, 0].mean().item()
    rounded = [[round(weight, 5) for weight in row] for row in steps.tolist()]
    return {"steps": rounded, "first_slot": first, "farther": 1 - first - steps.sum().item()}


def likeness(model: torch.nn.Module) -> list[float]:
    """The cosine (N,) between the vector added for the pixel in row 14 and column 14 and that of every pixel."""
    position = torch.arange(model.image_size**2, device=next(model.parameters()).device)
    vectors = model.trunk.added(position).detach()
    middle = vectors[14 * model.image_size + 14]
    return [round(each, 3) for each in F.cosine_similarity(vectors, middle.unsqueeze(0)).tolist()]


def hexadecimal(tokens: torch.Tensor) -> list[str]:
    """Images (B, N) of 16 levels as strings, a digit for each token."""
    return ["".join(f"{token:x}" for token in image) for image in tokens.tolist()]


def holes(model: AnyOrderTransformer, tokens: torch.Tensor, labels: torch.Tensor, known: torch.Tensor) -> dict:
    """Bits of the hole given all the rest, seconds per image, and how the completed digits are read."""
    raster, model.order = model.order, torch.argsort(~known, stable=True).to(model.order.device)  # the hole last
    bits = ar.pixel_bits(model, tokens, labels)[:, ~known].double().sum(1).mean().item()
    model.order = raster
    filled, began = [], time.perf_counter()
    for number in range(len(tokens)):  # one by one, as the particles' images
        options = {"known": known, "labels": labels[number : number + 1], "seed": number}
        filled.append(ar.complete(model, tokens[number : number + 1], **options).tokens)
    spent = (time.perf_counter() - began) / len(tokens)
    read = metrics.judge(torch.cat(filled), labels, 16).recognized.double().mean().item()
    return {"bits": bits, "seconds": spent, "recognized": read}


def particles(model: torch.nn.Module, tokens: torch.Tensor, labels: torch.Tensor, known: torch.Tensor, count: int):
    """The same by sequential Monte Carlo with a model in raster order.

    Its estimate of the probability of the known pixels is right on average, so that of their bits is too high on
    average, and that of the hole's bits too low. All particles are read, because no single one is a fair drawing.
    """
    whole, bits, filled = ar.pixel_bits(model, tokens, labels).double().sum(1), [], []
    began = time.perf_counter()
    for number, (image, label) in enumerate(zip(tokens.long(), labels.tolist(), strict=True)):
        found = ar.inpaint(model, image, known, label, count, seed=number)
        bits.append(whole[number].item() - found.bits)
        filled.append(found.tokens)
    spent = (time.perf_counter() - began) / len(tokens)
    read = metrics.judge(torch.cat(filled), labels.repeat_interleave(count), 16).recognized.double().mean().item()
    return {"particles": count, "bits": statistics.mean(bits), "seconds": spent, "recognized": read}


def mixture(model: AnyOrderTransformer, tokens: torch.Tensor, labels: torch.Tensor, orders: int) -> dict:
    """Bits per pixel in raster order, in random orders on average, and of their mixture: a mean of probabilities."""
    raster, found = model.order, []
    generator = torch.Generator().manual_seed(0)
    for number in range(orders + 1):
        if number:
            model.order = torch.randperm(tokens.shape[1], generator=generator).to(raster.device)
        found.append(ar.pixel_bits(model, tokens, labels).double().sum(1))  # (B,)
    model.order = raster
    random = torch.stack(found[1:])  # (orders, B)
    mixed = -((-random * math.log(2)).logsumexp(0) - math.log(orders)) / math.log(2)
    parts = {"raster": found[0], "random": random.mean(0), "mixture": mixed}
    return {"orders": orders} | {name: bits.mean().item() / tokens.shape[1] for name, bits in parts.items()}


# --- The record ---------------------------------------------------------------------------------------------------


def tables(record: dict) -> list[dict]:
    """The record as the results page shows it: a row for each name, the mean over its seeds and their spread."""
    rows, names = [], list(dict.fromkeys(run["name"] for run in record["runs"]))
    for name in names:
        own = [run for run in record["runs"] if run["name"] == name]
        bits = [run["val_bits_per_pixel"] for run in own]

        def mean(key: str, own=own) -> float:
            return statistics.mean(run[key] for run in own)

        apart = f"{mean('slant_apart'):+.3f} ± {mean('slant_error') / math.sqrt(len(own)):.3f}"
        spread = f"{max(bits) - min(bits):.4f}" if len(own) > 1 else None
        cells = [name, len(own), f"{mean('parameters'):,.0f}", f"{statistics.mean(bits):.4f}", spread]
        rows.append([*cells, f"{mean('recognized'):.1%}", apart])
    heads = ["Model", "Seeds", "Parameters", "Bits per pixel", "Spread", "Read as asked for", "Slant, less written"]
    return [{"heads": heads, "rows": rows}]


def measured(run: dict, model: torch.nn.Module, path: Path, val: ar.ImageSet, written: list[float]) -> dict:
    """What a trained model draws, and how it does on another width, at holes and in other orders."""
    count, few = full_or_quick(200, 10), full_or_quick(100, 2)
    holed = full_or_quick(20, 1)  # the same images for particles, which take long, and for any order
    asked = torch.arange(count) % 10
    pixels = common.drawn(drawings_of(path), model, asked, 2026 + 1_000 * run["seed"])
    found = {"recognized": metrics.judge(pixels, asked, 16).recognized.double().mean().item()}
    found |= slant_of(pixels, asked, written)
    found["off_centre"] = off_centre(pixels.view(-1, 28, 28)).nanmean(0).tolist()
    if run["seed"] == 0:
        found["drawings"] = hexadecimal(pixels[:20])
    tokens, labels = ar.quantize(val.images, 16).flatten(1), val.labels
    known = torch.ones(28, 28, dtype=torch.bool)
    known[5:23, 5:14] = False  # the hole of chapter 6
    hole = tokens[:holed], labels[:holed], known.flatten()
    if run["name"] in POSITIONS and run["seed"] == 0:
        wide = Path(f"{path}.wide.safetensors"), full_or_quick(50, 10)
        found["looks"] = kept(f"{path}.looks.json", looks, model, tokens[:few], labels[:few])
        if run["name"].startswith("learned"):
            found["likeness"] = likeness(model)
        found["another_width"] = kept(f"{path}.width.json", another_width, model, val.first(few), *wide)
    if getattr(model, "any_order", False):
        found["hole"] = kept(f"{path}.hole.json", holes, model, *hole)
        orders = full_or_quick(8, 2)
        found["mixture"] = kept(f"{path}.mixture.json", mixture, model, tokens[:few], labels[:few], orders)
    if run["name"] in ("raster", "transformer"):
        found["hole"] = kept(f"{path}.hole.json", particles, model, *hole, full_or_quick(64, 2))
    return found


def shipped(work: Path, val: ar.ImageSet, written: list[float]) -> Iterator[dict]:
    """The book's model for any order, and chapter 6's model, which fills holes with particles."""
    for name in ("any_order", "transformer"):
        model, run = ar.load_pretrained(name), {"name": name, "seed": 0, "steps": RECIPES[name].config.steps}
        path = work / f"{name}_{ar.load_card(name)['fingerprint']:.6f}"
        bits = kept(f"{path}.bits.json", lambda model: {"bits": ar.bits_per_pixel(model, val)}, model)
        found = run | {"val_bits_per_pixel": bits["bits"], "parameters": common.count_parameters(model)}
        yield found | measured(run, model, path, val, written)


def main() -> None:
    options = common.parse(__doc__, "positions", first={"type": int, "help": "how many of the runs; all if left out"})
    work = options.work
    digits, device = ar.load_images(), ar.best_device()
    common.need_mnist(digits.name)
    dataset = ar.TokenImages(ar.quantize(digits.train.images, 16).flatten(1), digits.train.labels)
    arithmetic = "bfloat16" if bfloat16_is_faster(torch.device(device).type) else "float32"
    val = digits.val.first(full_or_quick(1_000, 2))
    leaning = slants(ar.quantize(digits.val.images, 16))
    written = by_label(leaning, digits.val.labels)
    record = common.machine(device) | {"val_images": len(val.images), "arithmetic": arithmetic, "runs": []}
    record |= {"written_slants": written, "written_slant_spread": leaning.std().item()}
    apart = off_centre(ar.quantize(digits.val.images, 16))
    record["written_off_centre"] = apart.nanmean(0).tolist()
    encodings = {}
    for run in runs()[: options.first]:
        name = run["name"].replace(", ", "_").replace(" ", "_")
        path = work / f"{name}_{run['seed']}_{run['steps']}"
        model, found = trained(run, path, dataset, val, device, arithmetic)
        found |= {"minutes": found.pop("history")["seconds"] / 60}
        record["runs"].append(found | measured(run, model, path, val, written))
        if run["name"] in POSITIONS and run["seed"] == 0:
            encodings[run["name"]] = model
        record["tables"] = tables(record)
        common.write(work / "record.json", record)
    common.print_table(**record["tables"][0])
    if options.first is None:
        record["shipped"] = list(shipped(work, val, written))
        record["milliseconds"] = milliseconds(encodings, full_or_quick(20, 1))
    if quick_mode():
        print(common.QUICK)
    elif options.first is None:
        common.write(RECORDS / "positions.json", record)


if __name__ == "__main__":
    main()
