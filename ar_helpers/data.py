"""Images: loading them, the built-in digits, and whether a run is to be quick."""

import contextlib
import os
import struct
import sys
import tempfile
from collections import namedtuple
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_choice

TRAIN_SIZE, VAL_SIZE, TEST_SIZE = 50_000, 10_000, 10_000
IMAGE_SIZE = 28
# What a download may fail with; torchvision says RuntimeError when a checksum is wrong.
NO_DOWNLOAD = (URLError, ConnectionError, TimeoutError, HTTPException, RuntimeError)


class ImageSet(NamedTuple):
    """Images (M, H, W), uint8 with 0 black and 255 white, and their labels (M,), int64."""

    images: Tensor
    labels: Tensor

    def first(self, count: int) -> "ImageSet":
        """The first images, so many of them or as many as there are, with their labels."""
        return ImageSet(self.images[:count], self.labels[:count])


class Digits(namedtuple("Digits", ["train", "val", "test"])):
    """The book's one split, three `ImageSet`: train 50,000, val 10,000 (the last of the training file), test 10,000.

    `name` says whose images they really are: "digits" where the built-in ones stand in for another set.
    """

    name: str = "digits"


def quick_mode() -> bool:
    """Whether AR_QUICK asks for a quick run: built-in digits, and training runs of a few steps."""
    return os.environ.get("AR_QUICK", "") not in ("", "0")


def full_or_quick(full, quick):
    """The size of an experiment, or whatever else depends on it: `full`, but `quick` when AR_QUICK=1."""
    return quick if quick_mode() else full


@contextlib.contextmanager
def claims() -> Iterator[None]:
    """Around what the book's text claims of MNIST: an error is raised only when AR_CLAIMS=1, as when the book is made.

    Else, with other pictures or on another machine, a claim that does not hold prints a line.
    """
    try:
        yield
    except Exception as error:
        if os.environ.get("AR_CLAIMS", "") not in ("", "0"):
            raise
        print(f"Here the text does not fit what was found ({type(error).__name__}).")


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
    check_choice("name", name, names)
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
