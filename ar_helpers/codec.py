"""Lossless compression: a model's predictions and an entropy coder turn images into bytes, and bytes into images."""

import copy
import io
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

import constriction
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .checks import check_agreement, check_range, check_tokens
from .files import progress
from .models import Cache
from .scoring import drawing_order, pixel_bits

TOTAL = 2**20  # what the integer frequencies of a pixel's levels sum to
BATCH = 32  # images that step together: both sides must take the same, because other batches round differently
MAGIC, VERSION = b"ARZ", 1
HEAD = "<3sBIIHB"  # magic, version, the CRC-32 of the checkpoint and of the pixels, images, letters of the name
MOST = 65_535  # images in a file
LEVELS = constriction.stream.model.Categorical(perfect=False)


class Packed(NamedTuple):
    """The content of a file: the model's name, the CRC-32 of its checkpoint and of the pixels, and the coded images."""

    name: str
    checkpoint: int
    pixels: int
    count: int
    code: bytes


def frequencies(logits: Tensor) -> np.ndarray:
    """Integers (B, K), at least 1 each, that stand for the probabilities of levels and sum to exactly 2^20.

    Encoder and decoder need the same integers. Float64 probabilities rounded to integers differ only if they fall on
    different sides of a rounding edge, which is rare even if two processors add in different orders.

    Args:
        logits: (B, K), float64.
    """
    probabilities = logits.softmax(-1).numpy()
    counts = 1 + np.rint(probabilities * (TOTAL - probabilities.shape[1])).astype(np.int64)
    counts[np.arange(len(counts)), counts.argmax(1)] += TOTAL - counts.sum(1)
    return counts


@torch.inference_mode()
def _step(model: nn.Module, labels: Tensor | None, count: int, code: Callable) -> Tensor:
    """Go through images pixel by pixel as encoder and decoder both must: on one thread, in float64, a batch at a time.

    `code(rows, t, shares)` gives the tokens (b,) of pixel t, in the order of drawing, of the images in slice `rows`;
    `shares` (b, K) are the frequencies of its levels, divided by their sum. Returns tokens (B, N), int64, in raster
    order.
    """
    model, threads = copy.deepcopy(model).cpu().double().eval(), torch.get_num_threads()
    order, parts = drawing_order(model), []
    torch.set_num_threads(1)
    try:
        with progress(unit="pixel", total=count * len(order)) as bar:
            for start in range(0, count, BATCH):
                rows = slice(start, min(start + BATCH, count))
                given, cache = None if labels is None else labels[rows], Cache()
                tokens = torch.zeros(rows.stop - start, len(order), dtype=torch.long)
                for t in range(len(order)):
                    logits = model.next_pixels(tokens[:, : t + 1], given, cache, t)[:, 0]  # (b, K)
                    shares = (frequencies(logits) / TOTAL).astype(np.float32)  # exact: 20 bits of 24
                    tokens[:, t] = torch.from_numpy(code(rows, t, shares).astype(np.int64))
                    bar.update(len(tokens))
                parts.append(tokens[:, order.argsort()])
    finally:
        torch.set_num_threads(threads)
    return torch.cat(parts)


def cheapest_labels(model: nn.Module, tokens: Tensor) -> Tensor | None:
    """For each image (B, N) the class (B,) with which a conditional model needs the fewest bits; else None."""
    if not model.num_classes:
        return None
    classes = range(model.num_classes)
    bits = [pixel_bits(model, tokens, torch.full((len(tokens),), label)).double().sum(1) for label in classes]
    return torch.stack(bits).argmin(0)


def encode(model: nn.Module, tokens: Tensor) -> bytes:
    """The code of images: a conditional model's labels first, then all pixels, with a range coder (Martin, 1979).

    Args:
        model: any model of the book.
        tokens: (B, N) integers, whole images in raster order, B at least 1.

    Returns:
        About as many bits as the model's score says, and some 40 more to end the code.
    """
    check_tokens("tokens", tokens, model.num_levels, model.sequence_length, model.sequence_length)
    labels, coder = cheapest_labels(model, tokens), constriction.stream.queue.RangeEncoder()
    if labels is not None:
        coder.encode(labels.numpy().astype(np.int32), constriction.stream.model.Uniform(model.num_classes))
    in_order = tokens.cpu()[:, drawing_order(model).cpu()].numpy().astype(np.int32)

    def put(rows, t, shares):
        coder.encode(in_order[rows, t], LEVELS, shares)
        return in_order[rows, t]

    _step(model, labels, len(tokens), put)
    return coder.get_compressed().astype("<u4").tobytes()


def decode(model: nn.Module, code: bytes, count: int) -> Tensor:
    """The images (B, N), int64, of what `encode` returned with the same model, by their number `count`.

    Raises:
        OSError: the code is not of this model and this number of images, as far as that shows.
    """
    check_agreement("code must be whole words of 4 bytes", len(code) % 4 == 0, f"{len(code)} bytes")
    coder = constriction.stream.queue.RangeDecoder(np.frombuffer(code, "<u4").astype(np.uint32))
    try:
        labels = None
        if model.num_classes:
            uniform = constriction.stream.model.Uniform(model.num_classes)
            labels = torch.from_numpy(coder.decode(uniform, count).astype(np.int64))

        return _step(model, labels, count, lambda rows, t, shares: coder.decode(LEVELS, shares))
    except AssertionError as error:
        raise OSError("the code is damaged, or not of this model") from error


def checksum(tokens: Tensor) -> int:
    """The CRC-32 of images (B, N)."""
    return zlib.crc32(tokens.cpu().numpy().astype("<u2").tobytes())


def pack(name: str, checkpoint: int, tokens: Tensor, code: bytes) -> bytes:
    """The content of a file: a header, the code, and a CRC-32 of both.

    Args:
        name: of the shipped model.
        checkpoint: the CRC-32 of its file of weights.
        tokens: (B, N), the images that were encoded, from 1 to 65,535.
        code: what `encode` returned for them.
    """
    check_range(1, MOST, images=len(tokens))
    letters = name.encode()
    head = struct.pack(HEAD, MAGIC, VERSION, checkpoint, checksum(tokens), len(tokens), len(letters))
    return seal(head + letters + code)


def seal(content: bytes) -> bytes:
    """Bytes and their CRC-32, which shows any single damage of up to 32 bits (Peterson and Brown, 1961)."""
    return content + struct.pack("<I", zlib.crc32(content))


def unpack(content: bytes, source: str = "the file") -> Packed:
    """Read what `pack` returned.

    Args:
        content: of the file.
        source: how errors call it.

    Raises:
        OSError: it is foreign, of another version, damaged or cut short.
    """
    size = struct.calcsize(HEAD)
    if content[:3] != MAGIC:
        raise OSError(f"{source} was not written by `compress`: it does not begin with {MAGIC.decode()}")
    if len(content) < size + 4 or seal(content[:-4]) != content:
        raise OSError(f"{source} is damaged or cut short")
    _, version, checkpoint, pixels, count, letters = struct.unpack(HEAD, content[:size])
    if version != VERSION:
        raise OSError(f"{source} is of version {version} of the format, and this package reads version {VERSION}")
    return Packed(content[size : size + letters].decode(), checkpoint, pixels, count, content[size + letters : -4])


def rivals(pictures: np.ndarray) -> dict[str, int]:
    """The bytes of pictures (B, H, W), uint8, in other lossless formats: a file for each picture, or one for all."""
    formats = {"PNG": {"optimize": True}, "WebP": {"lossless": True, "method": 6}}
    sizes = {f"{name}, a file for each": 0 for name in formats}
    for picture in map(Image.fromarray, pictures):
        for name, options in formats.items():
            content = io.BytesIO()
            picture.save(content, name, **options)
            sizes[f"{name}, a file for each"] += content.tell()
    return sizes | {"lzma, all in one": len(lzma.compress(pictures.tobytes(), preset=9 | lzma.PRESET_EXTREME))}
