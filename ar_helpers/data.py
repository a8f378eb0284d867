"""Images as rows of tokens: loading, quantization, and the data sets that models learn from."""

import os
import struct
import sys
import tempfile
from collections import namedtuple
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

TRAIN_SIZE, VAL_SIZE, TEST_SIZE = 50_000, 10_000, 10_000
IMAGE_SIZE = 28
# What a download may fail with; torchvision says RuntimeError when a checksum is wrong.
NO_DOWNLOAD = (URLError, ConnectionError, TimeoutError, HTTPException, RuntimeError)


class ImageSet(NamedTuple):
    """Images (M, H, W), uint8 with 0 black and 255 white, and their labels (M,), int64."""

    images: Tensor
    labels: Tensor


class Digits(namedtuple("Digits", ["train", "val", "test"])):
    """The book's one split, three `ImageSet`: train 50,000, val 10,000 (the last of the training file), test 10,000.

    `name` says whose images they really are: "digits" where the built-in ones stand in for another set.
    """

    name: str = "digits"


def quick_mode() -> bool:
    """Whether AR_QUICK asks for a quick run: built-in digits, and training runs of a few steps."""
    return os.environ.get("AR_QUICK", "") not in ("", "0")


def user_cache() -> Path:
    """The user's cache folder of this package (it need not exist yet)."""
    base = os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else os.environ.get("XDG_CACHE_HOME")
    return Path(base or Path.home() / ".cache") / "ar_helpers"


def load_images(name: str = "mnist", root: str | Path | None = None) -> Digits:
    """Load a data set of 28 x 28 grey images, split as the whole book splits it.

    Args:
        name: "mnist", "fashion_mnist" or "kmnist", which torchvision downloads on first use, or "digits": the 8 x 8
            digits that scikit-learn ships, enlarged to 28 x 28, shifted at random by up to two pixels and repeated
            until there are as many as in MNIST.
        root: folder of the data, laid out as torchvision does; else the environment variable AR_DATA, else the
            user's cache. Files already there are used as they are.

    Returns:
        Digits with train (50,000 images), val (10,000) and test (10,000). MNIST that cannot be had, or any name when
        AR_QUICK=1, gives "digits" and prints a line that says so. The shapes are the same, only the pictures differ.

    Raises:
        ValueError: name is none of the four, or a file there is damaged or cut short.
        OSError: root cannot be written, or a data set other than MNIST cannot be downloaded.
    """
    names = ("mnist", "fashion_mnist", "kmnist", "digits")
    if name not in names:
        raise ValueError(f"name must be one of {', '.join(names)}, not {name!r}")
    if quick_mode() and name != "digits":
        print(f"AR_QUICK is set: using the built-in 8 x 8 digits in place of {name}.")
        return _built_in_digits()
    if name == "digits":
        return _built_in_digits()
    root = Path(root or os.environ.get("AR_DATA") or user_cache()).expanduser()
    try:
        train, test = _torchvision_images(name, root)
    except NO_DOWNLOAD as error:
        why = " ".join(str(error).split())  # one line
        if name != "mnist":
            raise OSError(f"{name} could not be downloaded into root={str(root)!r}: {why}") from error
        print(f"MNIST could not be downloaded ({why}): using the built-in 8 x 8 digits in its place.")
        return _built_in_digits()
    head, tail = slice(0, TRAIN_SIZE), slice(TRAIN_SIZE, TRAIN_SIZE + VAL_SIZE)
    train, val = (ImageSet(train.images[part], train.labels[part]) for part in (head, tail))
    digits = Digits(train, val, test)
    digits.name = name
    return digits


def _torchvision_images(name: str, root: Path) -> tuple[ImageSet, ImageSet]:
    from torchvision import datasets

    data_set = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST, "kmnist": datasets.KMNIST}[name]
    raw = root / data_set.__name__ / "raw"
    files = {}  # path: the header, and how many bytes follow, one a pixel or a label
    for part, count in (("train", TRAIN_SIZE + VAL_SIZE), ("t10k", TEST_SIZE)):
        header = struct.pack(">4i", 2051, count, IMAGE_SIZE, IMAGE_SIZE)
        files[raw / f"{part}-images-idx3-ubyte"] = header, count * IMAGE_SIZE**2
        files[raw / f"{part}-labels-idx1-ubyte"] = struct.pack(">2i", 2049, count), count
    missing = [path for path in files if not path.is_file()]
    if missing:
        _download(data_set, root, missing)
    for path, (header, size) in files.items():
        with path.open("rb") as file:
            if file.read(len(header)) != header or path.stat().st_size != len(header) + size:
                raise ValueError(f"{path} is damaged or cut short: delete it, and it will be downloaded again")
    train, test = (data_set(root, train=train) for train in (True, False))
    return ImageSet(train.data, train.targets.long()), ImageSet(test.data, test.targets.long())


def _download(data_set: type, root: Path, missing: list[Path]) -> None:
    """Download beside the final place, then rename, so that a download cut short leaves nothing behind."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        aside = tempfile.TemporaryDirectory(dir=root, prefix="download-")
    except OSError as error:
        raise OSError(
            f"root={str(root)!r} cannot be written ({error}): name a folder that can, or set AR_DATA"
        ) from error
    with aside as folder:
        print(f"Downloading {data_set.__name__} ...", flush=True)
        data_set(folder, download=True)
        for path in missing:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(folder) / path.relative_to(root), path)


def _built_in_digits() -> Digits:
    from sklearn.datasets import load_digits

    source = load_digits()
    small = torch.from_numpy(source.images).float().unsqueeze(1) / 16  # (1797, 1, 8, 8), in [0, 1]
    large = F.interpolate(small, size=(20, 20), mode="bicubic", align_corners=False).clamp(0, 1)
    images = F.pad(large * 255, (4, 4, 4, 4)).round().to(torch.uint8).squeeze(1)  # (1797, 28, 28)
    labels = torch.from_numpy(source.target).long()
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(images), generator=generator)
    parts = []
    for rows, size in zip(order.split([1257, 270, 270]), (TRAIN_SIZE, VAL_SIZE, TEST_SIZE), strict=True):
        rows = rows.repeat(-(-size // len(rows)))[:size]
        shifted = images[rows]
        shift = torch.randint(25, (size,), generator=generator)  # one of 5 x 5 shifts
        for s in range(25):
            chosen = shift == s
            shifted[chosen] = shifted[chosen].roll((s // 5 - 2, s % 5 - 2), (1, 2))
        parts.append(ImageSet(shifted, labels[rows]))
    return Digits(*parts)


def check_num_levels(num_levels: int) -> None:
    """Raise unless num_levels is an integer from 2 to 256."""
    if isinstance(num_levels, bool) or not isinstance(num_levels, int):
        raise TypeError(f"num_levels must be an int, not {num_levels!r}")
    if not 2 <= num_levels <= 256:
        raise ValueError(f"num_levels must be from 2 to 256, not {num_levels}")


def quantize(images: Tensor, num_levels: int) -> Tensor:
    """Cut the grey scale into num_levels equal bins and return each pixel's bin: its token.

    Args:
        images: any shape; uint8 from 0 to 255, or floating point from 0 to 1. NumPy arrays are taken too.
        num_levels: the number of bins K, from 2 to 256.

    Returns:
        Tokens of the same shape, uint8, from 0 to K - 1: x * K // 256 for integers, floor(x * K) for floating point,
        where white, 1.0, belongs to the last bin.

    Raises:
        TypeError: images are neither uint8 nor floating point, or num_levels is no int.
        ValueError: num_levels is outside 2..256, or a pixel lies outside [0, 1] or is NaN.
    """
    check_num_levels(num_levels)
    images = torch.as_tensor(images)
    if images.dtype == torch.uint8:
        return (images.int() * num_levels // 256).to(torch.uint8)
    if not images.is_floating_point():
        raise TypeError(f"images must be uint8 or floating point, not {images.dtype}")
    outside = ~((images >= 0) & (images <= 1))  # NaN is outside too
    if outside.any():
        value = images[outside][0].item()
        raise ValueError(f"images must lie in [0, 1] when they are floating point, not {value}")
    return (images.float() * num_levels).floor().clamp(max=num_levels - 1).to(torch.uint8)


def dequantize(tokens: Tensor, num_levels: int) -> Tensor:
    """Return the centre of each token's bin: grey values (t + 0.5) / K between 0 and 1, float32, of the same shape.

    Raises:
        TypeError: tokens are not integers, or num_levels is no int.
        ValueError: num_levels is outside 2..256, or a token is outside 0..K - 1.
    """
    check_num_levels(num_levels)
    tokens = torch.as_tensor(tokens)
    _check_tokens(tokens, num_levels)
    return (tokens.float() + 0.5) / num_levels


def _check_tokens(tokens: Tensor, num_levels: int | None = None) -> None:
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise TypeError(f"tokens must be integers, not {tokens.dtype}")
    lowest = int(tokens.min()) if tokens.numel() else 0  # as Python ints: a uint8 cannot be compared with 256
    highest = int(tokens.max()) if tokens.numel() else 0
    if lowest < 0 or (num_levels is not None and highest >= num_levels):
        allowed = "0 on" if num_levels is None else f"0 to {num_levels - 1}"
        raise ValueError(f"tokens must be from {allowed}, not {lowest if lowest < 0 else highest}")


def _check_rows(tokens: Tensor, labels: Tensor | None) -> None:
    if tokens.dim() != 2 or tokens.shape[1] < 1:
        raise ValueError(f"tokens must have shape (M, N), a row an image, not {tuple(tokens.shape)}; flatten(1) them")
    if labels is None:
        return
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers, not {labels.dtype}")
    if labels.shape != tokens.shape[:1]:
        raise ValueError(f"labels must have shape ({len(tokens)},), one for each image, not {tuple(labels.shape)}")


class ContextWindows(Dataset):
    """Every pixel of every image as one example: the tokens just before it, and the pixel itself.

    Example image * N + pixel is ((context, position, label), target): the C tokens before the pixel (C,), the pixel's
    place in the image from 0 to N - 1, the image's label (None without labels) and the pixel's own token, all int64.
    Where the window reaches back beyond the first pixel it holds the start token, whose value is num_levels.
    `windows[i]` is one example, `windows[indices]` a whole batch with a leading axis; for a DataLoader give the
    batches of indices as its sampler and `batch_size=None`.

    Args:
        tokens: (M, N) integers from 0 to num_levels - 1.
        labels: (M,) integers, or None.
        context_length: the number C of tokens in a window, at least 1.
        num_levels: the number K of grey levels, from 2 to 256.

    Raises:
        TypeError: tokens or labels are not integers.
        ValueError: a shape is wrong, a token is outside its range, or context_length is below 1.
    """

    def __init__(self, tokens: Tensor, labels: Tensor | None = None, *, context_length: int, num_levels: int):
        check_num_levels(num_levels)
        tokens = torch.as_tensor(tokens)
        labels = None if labels is None else torch.as_tensor(labels)
        _check_rows(tokens, labels)
        _check_tokens(tokens, num_levels)
        if context_length < 1:
            raise ValueError(f"context_length must be at least 1, not {context_length}")
        smallest = torch.uint8 if num_levels < 256 else torch.int16
        self.padded = F.pad(tokens.to(smallest), (context_length, 0), value=num_levels)  # (M, C + N)
        self.windows = self.padded.unfold(1, context_length + 1, 1)  # (M, N, C + 1), a view: nothing is copied
        self.tokens = self.padded[:, context_length:]  # (M, N)
        self.labels = None if labels is None else labels.long()
        self.context_length, self.num_levels = context_length, num_levels

    def __len__(self) -> int:
        return self.tokens.numel()

    def __getitem__(self, index: int | Tensor) -> tuple:
        index = torch.as_tensor(index)
        size = self.tokens.numel()
        if index.numel() and (index.max() >= size or index.min() < -size):
            raise IndexError(f"index must be from 0 to {size - 1}, not {index.tolist()}")
        index = index % size
        num_pixels = self.tokens.shape[1]
        image, position = index // num_pixels, index % num_pixels
        # Picking from the padded images as one long row is twice as fast as by image and position.
        start = index + image * self.context_length
        window = self.padded.flatten().unfold(0, self.context_length + 1, 1).index_select(0, start.flatten())
        window = window.long().view(*index.shape, -1)  # (..., C + 1): the context, then the target
        label = None if self.labels is None else self.labels[image]
        return (window[..., :-1], position, label), window[..., -1]


class ThinnedWindows(ContextWindows):
    """Context windows of which the dull ones are shown less often, and count for more when they are.

    Where all is black nearby, the next pixel nearly always is black too, and there is little to learn. Of the windows
    whose two last tokens (to the left, for a window of one row) and three first ones (above) are black or start tokens,
    only the share `keep` is kept, chosen at random, and each of those counts 1 / keep times. So a mean of weighted
    losses over a random batch has the same expectation as a plain mean over all windows: importance sampling.

    Example i is (inputs, target, weight), inputs and target as in `ContextWindows`, weight float32 with mean 1.

    Args:
        tokens, labels, context_length, num_levels: as for `ContextWindows`.
        keep: the share of the dull windows that stay, in (0, 1].
        seed: decides which.

    Raises:
        TypeError, ValueError: as `ContextWindows`, and when keep is outside its range.
    """

    def __init__(self, tokens, labels=None, *, context_length, num_levels, keep=0.125, seed=0):
        super().__init__(tokens, labels, context_length=context_length, num_levels=num_levels)
        if not 0 < keep <= 1:
            raise ValueError(f"keep must lie in (0, 1], not {keep}")
        context = self.windows[..., :-1]
        dull = torch.ones(self.tokens.shape, dtype=torch.bool)
        for part in (context[..., -2:], context[..., :3]):
            dull &= ((part == 0) | (part == num_levels)).all(-1)
        dull = dull.flatten()
        chosen = torch.rand(len(dull), generator=torch.Generator().manual_seed(seed)) < keep
        self.indices = (chosen | ~dull).nonzero().squeeze(1)
        weights = torch.where(dull[self.indices], 1 / keep, 1.0)
        self.weights, self.keep = weights / weights.mean(), keep

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int | Tensor) -> tuple:
        return *super().__getitem__(self.indices[index]), self.weights[index]


class TokenImages(Dataset):
    """Every image as one example, for models that read whole images.

    Example i is ((tokens, label), tokens): the image's tokens (N,) and its label (None without labels), int64;
    `images[indices]` is a whole batch.

    Args:
        tokens: (M, N) integers, not negative.
        labels: (M,) integers, or None.

    Raises:
        TypeError: tokens or labels are not integers.
        ValueError: a shape is wrong, or a token is negative.
    """

    def __init__(self, tokens: Tensor, labels: Tensor | None = None):
        self.tokens = torch.as_tensor(tokens)
        labels = None if labels is None else torch.as_tensor(labels)
        _check_rows(self.tokens, labels)
        _check_tokens(self.tokens)
        self.labels = None if labels is None else labels.long()

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int | Tensor) -> tuple:
        tokens = self.tokens[index].long()
        return (tokens, None if self.labels is None else self.labels[index]), tokens


def read_picture(path: str | Path) -> tuple[Tensor, str]:
    """A picture of one digit as MNIST has it: (28, 28), uint8, light on dark, 20 pixels long, its centre of mass amid.

    Returns the picture, and how its own colours were understood: "dark on light" or "light on dark". One that is
    light on dark and of 28 x 28 pixels is taken as it is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no picture, or one of a single shade.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no picture {path}")
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGBA")
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no picture that can be read ({error})") from error
    white = Image.new("RGBA", picture.size, "white")
    grey = np.asarray(Image.alpha_composite(white, picture).convert("L"), dtype=np.float32)
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ground = np.median(edge)
    dark_on_light = ground > (grey.min() + grey.max()) / 2
    if dark_on_light:
        grey, ground = 255 - grey, 255 - ground
    contrast = grey.max() - ground
    if contrast < 25:
        raise ValueError(f"{path} shows no digit: it is nearly all of one shade")
    words = "dark on light" if dark_on_light else "light on dark"
    if not dark_on_light and grey.shape == (28, 28):
        return torch.from_numpy(grey.astype(np.uint8)), words
    ink = np.clip((grey - ground) / contrast * 1.2 - 0.1, 0, 1)  # neither the paper's grain nor a pale pen counts
    rows, cols = np.nonzero(ink.max(1) > 0)[0], np.nonzero(ink.max(0) > 0)[0]
    ink = ink[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    longest = max(ink.shape)
    size = tuple(max(1, round(20 * side / longest)) for side in reversed(ink.shape))
    small = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BOX if longest > 20 else Image.BICUBIC))
    small = np.clip(small / small.max(), 0, 1)
    height, width = small.shape
    middle = [(np.indices(small.shape)[axis] * small).sum() / small.sum() for axis in (0, 1)]
    top, left = (
        int(np.clip(round(13.5 - centre), 0, 28 - side)) for centre, side in zip(middle, small.shape, strict=True)
    )
    digit = np.zeros((28, 28), np.float32)
    digit[top : top + height, left : left + width] = small
    return torch.from_numpy(np.round(255 * digit).astype(np.uint8)), words
