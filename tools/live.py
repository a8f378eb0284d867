"""Make the files that the live page loads, in book/live: book/live.md says what becomes of them.

python tools/live.py export [CHECKPOINT]    int8 weights of a .safetensors file (else of transformer_small), scored
python tools/live.py examples               ten digits to begin with, drawn by the transformer, and the still picture

Options of export:
    --data NAME      images to score on: mnist, fashion_mnist, kmnist or digits (default: mnist)
    --images COUNT   how many of the test images (default: all)
    --out FILE       where to write (default: book/live/weights.js)
"""

import argparse
import base64
import hashlib
import json
import math
import sys
import zlib
from pathlib import Path

import torch
from torch import Tensor

import ar_helpers as ar
from ar_helpers.models.transformer import NEIGHBOURS

ROOT = Path(__file__).resolve().parent.parent
LIVE = ROOT / "book" / "live"
SMALL = ROOT / "ar_helpers" / "checkpoints" / "transformer_small.safetensors"
FORMAT = 1  # book/live/engine.js reads the same number
BEFORE, AFTER = "var liveWeights = ", ";\n"
HIGHEST = 127  # int8 without its -128, so that the range is the same on both sides


def to_int8(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (R, C) as integers (R, C), int8, and one scale for each row (R,), float32."""
    scales = matrix.abs().amax(1).clamp(min=1e-12) / HIGHEST
    return (matrix / scales.unsqueeze(1)).round().to(torch.int8), scales


def pack(tensors: dict[str, Tensor]) -> tuple[list, bytes, int]:
    """Names and sizes of the tensors; their bytes, first all float32 numbers, then all int8; how many are float32."""
    sizes, floats, integers = [], [], []
    for name, tensor in tensors.items():
        sizes.append([name, *tensor.shape])
        if tensor.dim() == 2:
            tensor, scales = to_int8(tensor)
            integers.append(tensor.flatten())
            floats.append(scales)
        else:
            floats.append(tensor)
    floats = torch.cat(floats)
    return sizes, floats.numpy().astype("<f4").tobytes() + torch.cat(integers).numpy().tobytes(), len(floats)


def unpack(header: dict, payload: bytes) -> dict[str, Tensor]:
    """The tensors as the page computes with them, float32: each integer times the scale of its row."""
    floats = torch.frombuffer(bytearray(payload[: 4 * header["floats"]]), dtype=torch.float32)
    integers = torch.frombuffer(bytearray(payload[4 * header["floats"] :]), dtype=torch.int8)
    tensors = {}
    for name, rows, *columns in header["tensors"]:
        part, floats = floats[:rows], floats[rows:]
        if columns:
            matrix, integers = integers[: rows * columns[0]], integers[rows * columns[0] :]
            part = matrix.view(rows, -1) * part.unsqueeze(1)
        tensors[name] = part.clone()
    return tensors


def read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """The header and the tensors of a file that `export` wrote."""
    file = json.loads(path.read_text(encoding="utf-8").removeprefix(BEFORE).removesuffix(AFTER))
    return file["header"], unpack(file["header"], base64.b64decode(file["payload"]))


def export(checkpoint: Path, out: Path, data: str, images: int | None) -> dict:
    """Write a checkpoint's weights in int8, with the score of just these weights, and return the header."""
    model = ar.load_checkpoint(checkpoint)
    if type(model) is not ar.PixelTransformer:  # the page knows no subclass
        raise ValueError(f"{checkpoint.name} holds a {type(model).__name__}; the page runs a PixelTransformer only")
    sizes, payload, floats = pack(model.state_dict())
    header = {
        "format": FORMAT,
        "architecture": type(model).__name__,
        "config": model.config,
        "neighbours": NEIGHBOURS if model.config["stem"] else [(0, -1)],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "checkpoint": {"name": checkpoint.stem, "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest()},
        "bytes": len(payload),
        "crc32": zlib.crc32(payload),
        "floats": floats,
        "tensors": sizes,
    }
    digits = ar.load_images(data)
    test = digits.test.first(images)
    was = {"float_bits_per_pixel": ar.bits_per_pixel(model, test)}
    model.load_state_dict(unpack(header, payload))
    header["score"] = {
        "data": digits.name,
        "images": len(test.images),
        "bits_per_pixel": ar.bits_per_pixel(model, test),
    } | was
    write(out, {"header": header, "payload": base64.b64encode(payload).decode()}, BEFORE)
    return header


def write(path: Path, content, before: str) -> None:
    """A classic script that sets one variable: a browser does not let a page read other files from disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(before + json.dumps(content) + AFTER, encoding="utf-8", newline="\n")


def examples() -> None:
    """Of 32 drawings of each digit, the one that the classifier is surest of; and what four endings look like."""
    from ar_helpers import metrics

    model, classifier = ar.load_pretrained("transformer"), metrics.load_classifier()
    chosen = []
    for label in range(10):
        drawn = ar.generate(model, [label] * 32, seed=label).tokens
        with torch.no_grad():
            images = ar.dequantize(drawn, model.num_levels).view(-1, 28, 28)
            chosen.append(drawn[classifier(images).softmax(1)[:, label].argmax()])
    digits = ["".join(f"{token:x}" for token in tokens.tolist()) for tokens in chosen]
    write(LIVE / "examples.js", {"num_levels": model.num_levels, "digits": digits}, "var liveExamples = ")
    still(chosen[2], LIVE / "endings.png")


def still(tokens: Tensor, path: Path, keep_rows: int = 11, scale: int = 5) -> None:
    """The top of a digit and four endings to it, for readers without scripts."""
    from PIL import Image

    model = ar.load_pretrained("transformer_small")
    beliefs = ar.label_beliefs(model, tokens.unsqueeze(0))[0, keep_rows * 28]
    labels = torch.multinomial(beliefs, 4, replacement=True, generator=torch.Generator().manual_seed(2))
    endings = ar.complete(model, tokens, keep_rows, labels=labels, seed=2).tokens
    paper, ink, given = (torch.tensor(colour, dtype=torch.float32) for colour in ((250,) * 3, (22,) * 3, (36, 89, 160)))
    pictures = []
    for number, image in enumerate([tokens, *endings]):
        grey = (image.view(28, 28, 1) / (model.num_levels - 1)).float()
        rows = torch.arange(28).view(28, 1, 1) < keep_rows
        if number == 0:
            grey = grey * rows
        picture = paper + grey * (torch.where(rows, given, ink) - paper)
        pictures.append(torch.nn.functional.pad(picture, (0, 0, 0, 1), value=math.nan))  # a gap to the next
    sheet = torch.cat(pictures, 1)[:, :-1].repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    alpha = 255 * ~sheet.isnan().any(2, keepdim=True)
    Image.fromarray(torch.cat([sheet.nan_to_num(), alpha], 2).to(torch.uint8).numpy(), "RGBA").quantize(64).save(
        path, optimize=True
    )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("export", help="a model's weights in int8, scored")
    sub.add_argument("checkpoint", nargs="?", type=Path, default=SMALL)
    sub.add_argument("--data", default="mnist", choices=("mnist", "fashion_mnist", "kmnist", "digits"))
    sub.add_argument("--images", type=int)
    sub.add_argument("--out", type=Path, default=LIVE / "weights.js")
    commands.add_parser("examples", help="ten digits to begin with, and the still picture")
    options = parser.parse_args(arguments)
    if options.command == "examples":
        examples()
        return
    try:
        header = export(options.checkpoint, options.out, options.data, options.images)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{error}\n")
    score = header["score"]
    print(f"{options.out}: {header['parameters']:,} parameters, {options.out.stat().st_size:,} bytes")
    print(f"{score['bits_per_pixel']:.4f} bits per pixel in int8, {score['float_bits_per_pixel']:.4f} before,")
    print(f"on {score['images']:,} test images of {score['data']}")


if __name__ == "__main__":
    main(sys.argv[1:])
