"""How small a digit gets: every shipped model as a lossless codec, beside PNG and other formats.

    python benchmarks/codec.py [NAME ...] [--count 64] [--work .work/codec]

Writes ar_helpers/records/codec.json; with names, measures only these models anew. The first test images go through each
model's codec and back, and into the other formats at the same 16 levels. Then one set of images is stepped through in
several ways (batch, threads, number format, instruction set), to see where the integers of the coder differ. About half
an hour on one core; interrupted, it goes on where it was. With imagecodecs (BSD licence) installed, JPEG XL takes part.
"""

import argparse
import bz2
import importlib.util
import io
import json
import lzma
import math
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import common
import constriction
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import ar_helpers as ar
from ar_helpers import cards, codec
from ar_helpers.scoring import drawing_order

LEVELS = 16
PROBED = ["conditional_mlp", "transformer_small"]
PROBED_IMAGES = [0, 10, 20, 30]  # from both halves of a batch, which two threads share
PLAIN = {"ATEN_CPU_CAPABILITY": "default"}  # read by torch when it starts
WAYS = {  # name: (images that step together, threads, environment); the first is what the others are compared with
    "a batch of 32, one thread": (32, 1, {}),
    "a batch of 1": (1, 1, {}),
    "two threads": (32, 2, {}),
    "AVX2": (32, 1, {"ATEN_CPU_CAPABILITY": "avx2"}),
    "torch without AVX2": (32, 1, PLAIN),
    "torch and MKL without AVX2": (32, 1, PLAIN | {"MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"}),
}


# --- Models -----------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def step(model: torch.nn.Module, tokens: torch.Tensor, labels: torch.Tensor | None) -> np.ndarray:
    """The integers (B, N, K) of images (B, N), pixel by pixel as they are drawn, in the model's own arithmetic."""
    order, cache, found = drawing_order(model), ar.Cache(), []
    in_order = tokens[:, order]
    for t in range(len(order)):
        logits = model.next_logits(in_order[:, :t], labels, cache)
        found.append(codec.frequencies(logits.double()))
    return np.stack(found, 1)


def sent_labels(model: torch.nn.Module, code: bytes, count: int) -> torch.Tensor | None:
    """The labels at the beginning of a code."""
    if not model.num_classes:
        return None
    coder = constriction.stream.queue.RangeDecoder(np.frombuffer(code, "<u4").astype(np.uint32))
    uniform = constriction.stream.model.Uniform(model.num_classes)
    return torch.from_numpy(coder.decode(uniform, count).astype(np.int64))


def alone(model: torch.nn.Module, tokens: torch.Tensor, label: int | None, integers: np.ndarray) -> bytes:
    """The code of a single image (1, N), from its label and its integers (N, K)."""
    coder = constriction.stream.queue.RangeEncoder()
    if label is not None:
        coder.encode(np.array([label], np.int32), constriction.stream.model.Uniform(model.num_classes))
    in_order = tokens[0, drawing_order(model)].numpy().astype(np.int32)
    coder.encode(in_order, codec.LEVELS, (integers / codec.TOTAL).astype(np.float32))
    return coder.get_compressed().astype("<u4").tobytes()


def measure(name: str, tokens: torch.Tensor, labels: torch.Tensor) -> dict:
    """One model's codec on images (B, N) with these true labels."""
    common.note(f"{name}, {len(tokens)} images")
    model, path, count = ar.load_pretrained(name), cards.CHECKPOINTS / f"{name}.safetensors", len(tokens)
    began = time.perf_counter()
    code = codec.encode(model, tokens)
    encoded = time.perf_counter()
    if not torch.equal(codec.decode(model, code, count), tokens):
        raise SystemExit(f"error: {name} does not give back what it encoded")
    decoded = time.perf_counter()
    sent, crc = sent_labels(model, code, count), zlib.crc32(path.read_bytes())
    found = {
        "model": name,
        "checkpoint_bytes": path.stat().st_size,
        "code_bytes": len(code),
        "file_bytes": len(codec.pack(name, crc, tokens, code)),
        "pixel_bits": ar.pixel_bits(model, tokens, sent).double().sum().item(),
        "label_bits": count * math.log2(max(model.num_classes, 1)),
        "encode_seconds": encoded - began,
        "decode_seconds": decoded - encoded,
    }
    if sent is not None:
        found["pixel_bits_true_labels"] = ar.pixel_bits(model, tokens, labels).double().sum().item()
        found["true_labels_sent"] = int((sent == labels).sum())
    model.double()
    parts = [slice(start, start + codec.BATCH) for start in range(0, count, codec.BATCH)]
    integers = np.concatenate([step(model, tokens[part], None if sent is None else sent[part]) for part in parts])
    in_order = tokens[:, drawing_order(model)].numpy()[..., None]
    found["integer_bits"] = float(-np.log2(np.take_along_axis(integers, in_order, 2) / codec.TOTAL).sum())
    found["each_bytes"] = 0  # a file for each image
    for i in range(count):
        image, label = tokens[i : i + 1], None if sent is None else int(sent[i])
        single = alone(model, image, label, integers[i])
        if i == 0 and single != codec.encode(model.float(), image):
            raise SystemExit(f"error: {name} gives an image other integers in a batch than alone")
        found["each_bytes"] += len(codec.pack(name, crc, image, single))
    return found


# --- The other formats ------------------------------------------------------------------------------------------------


def png(picture: np.ndarray, depth: int) -> bytes:
    """A grey PNG of numbers (H, W) below 2 ** depth, at 4 or 8 bits each: the smallest of one row filter throughout."""
    height, width = picture.shape
    rows = picture if depth == 8 else picture[:, ::2] << 4 | picture[:, 1::2]  # (H, L), uint8
    left = np.pad(rows, ((0, 0), (1, 0)))[:, :-1].astype(int)
    above = np.pad(rows, ((1, 0), (0, 0)))[:-1].astype(int)
    corner = np.pad(rows, ((1, 0), (1, 0)))[:-1, :-1].astype(int)
    guess = left + above - corner
    far = [abs(guess - near) for near in (left, above, corner)]
    paeth = np.choose(np.argmin(far, 0), [left, above, corner])
    bodies = []
    for number, predicted in enumerate((np.zeros_like(left), left, above, (left + above) // 2, paeth)):
        lines = np.pad((rows - predicted).astype(np.uint8), ((0, 0), (1, 0)), constant_values=number)
        bodies.append(zlib.compress(lines.tobytes(), 9))
    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in ((b"IHDR", head), (b"IDAT", min(bodies, key=len)), (b"IEND", b"")):
        parts.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(parts)


def by_pillow(picture: np.ndarray, kind: str, **options) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, kind, **options)
    return content.getvalue()


def shrink(data: bytes) -> bytes:
    """LZMA with the shorter of its headers, and a dictionary no larger than the data needs."""
    size = min(2**26, max(2**12, 2 ** (len(data) - 1).bit_length()))
    filters = [{"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": size}]
    return lzma.compress(data, lzma.FORMAT_ALONE, filters=filters)


STREAMS = {"zlib": lambda data: zlib.compress(data, 9), "bzip2": lambda data: bz2.compress(data, 9), "LZMA": shrink}


def pictures_formats(levels: int) -> dict[str, Callable[[np.ndarray], bytes]]:
    """Formats for pictures: each from tokens (H, W), uint8, to bytes. Where there is a choice of form, the smaller."""
    scale = 255 // (levels - 1)
    depths = (4, 8) if levels == 16 else (8,)

    def smaller(make: Callable[[np.ndarray], bytes]) -> Callable[[np.ndarray], bytes]:
        return lambda tokens: min((make(tokens * factor) for factor in {1, scale}), key=len)

    formats = {
        "PNG, 8 bits, by Pillow": lambda tokens: by_pillow(tokens * scale, "PNG", optimize=True),
        "PNG": lambda tokens: min((png(tokens if d == 4 else tokens * scale, d) for d in depths), key=len),
        "WebP": smaller(lambda picture: by_pillow(picture, "WebP", lossless=True, method=6, quality=100)),
    }
    if importlib.util.find_spec("imagecodecs"):
        import imagecodecs

        formats["JPEG XL"] = smaller(lambda picture: imagecodecs.jpegxl_encode(picture, lossless=True, effort=9))
    return formats


def compare(tokens: np.ndarray, levels: int) -> dict:
    """The bytes of pictures (B, H, W), uint8, in each format: in a file for each, and in one file."""
    common.note(f"the other formats, {len(tokens)} images, {levels} levels")
    half = [tokens[..., ::2] << 4 | tokens[..., 1::2]] if levels == 16 else []  # two tokens to a byte
    each = {name: sum(len(make(picture)) for picture in tokens) for name, make in pictures_formats(levels).items()}
    together = {}
    for name, make in STREAMS.items():
        forms = [tokens, *half]
        each[name] = sum(min(len(make(form[i].tobytes())) for form in forms) for i in range(len(tokens)))
        together[name] = min(len(make(form.tobytes())) for form in forms)
    return {"images": len(tokens), "levels": levels, "each": each, "together": together}


def check_png(picture: np.ndarray) -> None:
    """Our own PNGs are PNGs."""
    for depth, scale in ((4, 17), (8, 1)):
        read = np.asarray(Image.open(io.BytesIO(png(picture, depth))))
        if not (read == picture * scale).all():
            raise SystemExit(f"error: the PNG of {depth} bits does not come back")


# --- Chapter 1's tables -----------------------------------------------------------------------------------------------


def situations(tokens: torch.Tensor) -> dict[str, tuple[int, torch.Tensor]]:
    """For each guesser, the rows of its table, and the row (B, N) for each pixel of images (B, N)."""
    pictures = tokens.view(-1, 28, 28)
    left = F.pad(pictures, (1, 0), value=LEVELS)[..., :-1].flatten(1)
    above = F.pad(pictures, (0, 0, 1, 0), value=LEVELS)[:, :-1].flatten(1)
    return {"one histogram": (1, torch.zeros_like(tokens)), "left and above": (17**2, 17 * left + above)}


def guess(train: torch.Tensor, tokens: torch.Tensor) -> list[dict]:
    """The bits of images (B, N) by the tables of chapter 1, learned from `train`; and by one that starts empty."""
    seen, rows = situations(train), []
    for name, (size, row) in situations(tokens).items():
        counts = torch.bincount((seen[name][1] * LEVELS + train).flatten(), minlength=size * LEVELS)
        table = 1 + counts.view(size, LEVELS).double()
        bits = -(table / table.sum(1, keepdim=True)).log2()[row, tokens].sum().item()
        rows.append({"table": name, "bits": bits, "numbers": size * LEVELS})
    counts = torch.bincount((row * LEVELS + tokens).flatten(), minlength=size * LEVELS).view(size, LEVELS).double()
    empty = torch.lgamma(counts.sum(1) + LEVELS) - math.lgamma(LEVELS) - torch.lgamma(counts + 1).sum(1)
    return [*rows, {"table": f"{name}, empty", "bits": empty.sum().item() / math.log(2), "numbers": 0}]


# --- Other arithmetic -------------------------------------------------------------------------------------------------


def probe(name: str, way: str, dtype: str, path: Path) -> None:
    """In a process of its own: the integers of a few images in one way, and whether the codec's file opens."""
    batch, threads, _ = WAYS[way]
    torch.set_num_threads(threads)
    digits = ar.load_images()
    tokens = ar.quantize(digits.test.images[: codec.BATCH], LEVELS).flatten(1).long()
    labels, model, few = digits.test.labels[: codec.BATCH], ar.load_pretrained(name), tokens[PROBED_IMAGES]
    packed, opens = path.parent / f"{name}.code", None
    if dtype == "float64":
        if not packed.exists():
            packed.write_bytes(codec.encode(model, few))
        try:
            opens = torch.equal(codec.decode(model, packed.read_bytes(), len(few)), few)
        except OSError:
            opens = False
    model = model.to(getattr(torch, dtype))
    if batch == 1:
        integers = np.concatenate([step(model, tokens[[i]], labels[[i]]) for i in PROBED_IMAGES])
    else:
        integers = step(model, tokens[:batch], labels[:batch])[PROBED_IMAGES]
    np.save(path.with_suffix(".npy"), integers)
    common.write(path, {"capability": torch.backends.cpu.get_cpu_capability(), "opens": opens})


def disturb(name: str, work: Path) -> list[dict]:
    """How many integers differ from the first way's, for each way and number format."""
    rows, first = [], {}
    for dtype in ("float32", "float64"):
        for number, (way, (_, _, environment)) in enumerate(WAYS.items()):
            path = work / f"{name}_{dtype}_{number}.json"
            if not path.exists():
                common.note(f"{name}, {dtype}, {way}")
                command = [sys.executable, __file__, "--work", path, "--probe", name, way, dtype]
                subprocess.run(command, env=os.environ | environment, check=True)
            integers = np.load(path.with_suffix(".npy"))
            first.setdefault(dtype, integers)
            row = {"way": way, "dtype": dtype} | json.loads(path.read_text())
            rows.append(row | differences(integers, first[dtype]))
    across = {"way": "float64 instead of float32", "dtype": "both"} | differences(first["float64"], first["float32"])
    return [*rows, across]


def differences(one: np.ndarray, two: np.ndarray) -> dict:
    """Of integers (B, N, K): how many pixels have any that differs, how many differ, and by how much at most."""
    differ = one != two
    pixels = int(differ.any(-1).sum())
    return {
        "pixels": pixels,
        "of": differ[..., 0].size,
        "integers": int(differ.sum()),
        "most": int(abs(one - two).max()),
    }


# --- The record -------------------------------------------------------------------------------------------------------


def kept(path: Path, make: Callable[[], object]) -> object:
    """What an earlier call found and kept in a file, or what `make` returns now."""
    if not path.exists():
        common.write(path, make())
    return json.loads(path.read_text())


def tables(record: dict) -> list[dict]:
    """The record as the results page shows it."""
    count = record["count"]

    def per_image(size: float) -> str:
        return f"{size / count:.1f}"

    rows = []
    for row in record["models"]:
        sizes = [per_image(row[key]) for key in ("each_bytes", "file_bytes")]
        ideal = per_image((row["pixel_bits"] + row["label_bits"]) / 8)
        rows.append([row["model"], *sizes, ideal, f"{row['checkpoint_bytes']:,}"])
    for name, size in record["rivals"]["same"]["each"].items():
        together = record["rivals"]["same"]["together"].get(name)
        rows.append([name, per_image(size), None if together is None else per_image(together), None, None])
    heads = ["Format", "A file for each", "All in one file", "By the score", "Bytes of the weights"]
    note = f"Bytes per image, {count} test images at {LEVELS} levels. The models have learned from 50,000 other images."
    return [{"heads": heads, "rows": rows, "note": note}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=64, help="images, best a multiple of 32")
    parser.add_argument("--work", type=Path, default=common.ROOT / ".work" / "codec")
    fitting = [name for name in common.digit_models() if cards.load_card(name)["config"]["num_levels"] == LEVELS]
    words = "only these models; the rest of the record stays (default: everything)"
    parser.add_argument("names", nargs="*", help=words)
    parser.add_argument("--probe", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if wrong := sorted(set(options.names) - set(fitting)):
        parser.error(f"NAME must be one of the shipped models of digits with {LEVELS} levels, not {', '.join(wrong)}")
    if options.names and options.count != ar.load_record("codec")["count"]:
        parser.error("--count must be the record's if only some models are measured")
    work, count = options.work, options.count
    if options.probe:
        probe(*options.probe, work)
        return
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    digits = ar.load_images()
    common.need_mnist(digits.name)
    pixels = digits.test.images  # (10000, 28, 28)
    tokens, labels = ar.quantize(pixels, LEVELS), digits.test.labels[:count]
    chosen = tokens[:count].flatten(1).long()
    models = []
    for name in options.names or fitting:
        path = work / f"{name}_{ar.load_card(name)['fingerprint']:.6f}_{count}.json"
        models.append(kept(path, lambda name=name: measure(name, chosen, labels)))
    if options.names:
        record = ar.load_record("codec")
        rows = {row["model"]: row for row in [*record["models"], *models]}
        finish(record | {"models": [rows[name] for name in sorted(rows)]})
        return
    check_png(tokens[0].numpy())
    sets = {"same": (tokens[:count], LEVELS), "test": (tokens, LEVELS), "test, 256 levels": (pixels, 256)}
    extra = "_jxl" if importlib.util.find_spec("imagecodecs") else ""
    rivals = {}
    for name, (pictures, levels) in sets.items():
        path = work / f"rivals_{len(pictures)}_{levels}{extra}.json"
        rivals[name] = kept(path, lambda pictures=pictures, levels=levels: compare(pictures.numpy(), levels))
    train = ar.quantize(digits.train.images, LEVELS).flatten(1).long()
    guessers = {name: guess(train, sets[name][0].flatten(1).long()) for name in ("same", "test")}
    other = {name: disturb(name, work) for name in PROBED}
    record = common.machine() | {"count": count, "models": models, "rivals": rivals, "guessers": guessers}
    record |= {"probed_images": PROBED_IMAGES, "arithmetic": other}
    finish(record)


def finish(record: dict) -> None:
    """Write the record with its tables, and print the first."""
    record["tables"] = tables(record)
    common.write(cards.RECORDS / "codec.json", record)
    common.print_table(**record["tables"][0])


if __name__ == "__main__":
    main()
