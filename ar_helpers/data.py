"""Images: loading them, the built-in digits, and whether a run is to be quick."""

import contextlib
import gzip
import math
import os
import re
import socket
import struct
import sys
import tempfile
import zlib
from collections import namedtuple
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from .checks import check_agreement, check_at_least, check_content, check_path
from .files import progress, read_tensors, switched_on, write_tensors
from .landscapes import VERSION, landscapes
from .pictures import open_colour, open_grey

TRAIN_SIZE, VAL_SIZE, TEST_SIZE = 50_000, 10_000, 10_000
IMAGE_SIZE = 28
GREY = ("mnist", "fashion_mnist", "kmnist", "digits")
NAMES = (*GREY, "landscapes", "landscapes_32", "photographs", "cifar10")
PATCH = 32  # rows and columns of a piece of a photograph
FILES = [f"{part}-{what}" for part in ("train", "t10k") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")]
PATIENCE = 20  # seconds
# What a download may fail with; torchvision says RuntimeError when a checksum is wrong.
NO_DOWNLOAD = (URLError, ConnectionError, TimeoutError, HTTPException, RuntimeError)


class ImageSet(NamedTuple):
    """Images (M, H, W), or in colour (M, H, W, 3), uint8 with 0 black and 255 white, and their labels (M,), int64."""

    images: Tensor
    labels: Tensor

    def first(self, count: int) -> "ImageSet":
        """The first `count` images, or all if there are fewer, with their labels."""
        return ImageSet(self.images[:count], self.labels[:count])


class Digits(namedtuple("Digits", ["train", "val", "test"])):
    """Three `ImageSet`: train (50,000 images), val (10,000, the last of the training file) and test (10,000).

    `name` is the data set that was really loaded: "digits" if the built-in digits replace a data set that is missing.
    """

    name: str = "digits"


def quick_mode() -> bool:
    """Whether AR_QUICK asks for a quick run: built-in digits, and training runs of a few steps."""
    return switched_on("AR_QUICK")


def full_or_quick(full, quick):
    """Return `full`, or `quick` if AR_QUICK=1: the size of an experiment."""
    return quick if quick_mode() else full


@contextlib.contextmanager
def claims() -> Iterator[None]:
    """A context for assertions of the text's claims about MNIST.

    With AR_CLAIMS=1, a claim that does not hold raises an error. Otherwise it prints a line, so that readers with
    other images or machines can run every cell.
    """
    try:
        yield
    except Exception as error:
        if switched_on("AR_CLAIMS"):
            raise
        print(f"Here the text does not fit what was found ({type(error).__name__}).")


def user_cache() -> Path:
    """The user's cache folder of this package (it need not exist yet)."""
    base = os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else os.environ.get("XDG_CACHE_HOME")
    return Path(base or Path.home() / ".cache") / "ar_helpers"


def load_images(name: str | Path = "mnist", root: str | Path | None = None, colour_size: int | None = None) -> Digits:
    """Load images, split into a training, a validation and a test set.

    Args:
        name: "mnist", "fashion_mnist" or "kmnist", 28 x 28, which torchvision downloads on first use; "digits": the
            8 x 8 digits that scikit-learn ships, enlarged to 28 x 28, shifted at random by up to two pixels and
            repeated until there are as many as in MNIST; one of the names of colour images below; or the path of
            images of your own.
        root: folder of the data, laid out as torchvision does; else the environment variable AR_DATA, else the
            user's cache. Files already there are used, also gzipped, and also with a dot instead of the hyphen
            before "idx".
        colour_size: a folder of pictures of your own keeps its colours, and the middle square of each is resized to so
            many pixels a side. The names below, and idx files, ignore it.

    Returns:
        Digits with train (50,000 images), val (10,000) and test (10,000). If MNIST cannot be downloaded, or with
        AR_QUICK=1 instead of any grey images, the result is "digits", and a printed line says so. The shapes stay
        the same.

    In colour are:

    - "landscapes" or "landscapes_32": 10,000, 1,000 and 1,000 procedural landscapes of 64 x 64 or 32 x 32 pixels with
      labels from 0 to 15 for season and time of day. They are made on first use, in less than half a minute, and kept
      in the folder of the data. AR_QUICK=1 makes a few.
    - "photographs": 1,400, 250 and 200 pieces of 32 x 32 pixels of the two photographs that scikit-learn ships, with
      the photograph's number as the label. No two sets share a pixel.
    - "cifar10": 45,000, 5,000 and 10,000 photographs of 32 x 32 pixels, which torchvision downloads on first use.
      With AR_QUICK=1 it is "photographs".

    Your own images may be:

    - A folder of pictures that Pillow can open. Without colour_size they become grey, and the middle square of each is
      resized to 28 x 28. Transparent areas become black. Sub-folders are classes. If all their names are numbers,
      these are the labels; otherwise, or from 100 on, the classes are numbered in the order of their names. Without
      sub-folders all labels are 0. If there are folders "train" and "test" (or "training", "testing"), and perhaps
      "val" (or "valid", "validation"), the classes are inside each of them.
    - A folder with four idx files named like MNIST's, or only the two for training, with any number and size of
      images; or a single idx file of images. Its labels are read from the file of the same name with "labels" and
      "idx1" instead of "images" and "idx3", if there is such a file.

    Images marked for testing become the test set. The validation set is then the folder "val", or else the last sixth
    of the other images. If none are marked, a fixed seed chooses a seventh for testing and a seventh for validation.

    Raises:
        ValueError: name is unknown, or a file is damaged or has the wrong content.
        OSError: root cannot be written, or a data set other than MNIST cannot be downloaded.
    """
    if name not in NAMES:
        check_path("name", name, NAMES)
    root = Path(root or os.environ.get("AR_DATA") or user_cache()).expanduser()
    if colour_size is not None and name not in NAMES:
        check_at_least(1, colour_size=colour_size)
        return _own_images(Path(name).expanduser(), colour_size)
    if name in ("landscapes", "landscapes_32"):
        return _landscapes(name, root)
    if name == "photographs" or (name == "cifar10" and quick_mode()):
        return _photographs()
    if name == "cifar10":
        return _cifar10(root)
    if quick_mode() and name != "digits":
        print(f"AR_QUICK is set: using the built-in 8 x 8 digits in place of {name}.")
        return _built_in_digits()
    if name == "digits":
        return _built_in_digits()
    if name not in NAMES:
        return _own_images(Path(name).expanduser())
    class_name = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}[name]
    raw = root / class_name / "raw"
    places = [raw, raw.parent] + [root] * (name == "mnist")
    missing = [file for file in FILES if _find(places, file) is None]
    if missing:
        try:
            _download(class_name, root, missing)
        except NO_DOWNLOAD as error:
            why = " ".join(str(error).split())  # one line
            if name != "mnist":
                raise OSError(f"{name} could not be downloaded into root={str(root)!r}: {why}") from error
            print(f"MNIST could not be downloaded ({why}), and {raw} lacks {', '.join(missing)}: "
                  f"using the built-in 8 x 8 digits in its place.")  # fmt: skip
            return _built_in_digits()
    parts = [_idx_pair(*(_find(places, file) for file in pair)) for pair in (FILES[:2], FILES[2:])]
    for (images, _), size, file in zip(parts, (TRAIN_SIZE + VAL_SIZE, TEST_SIZE), FILES[::2], strict=True):
        check_content(_find(places, file), tuple(images.shape), (size, IMAGE_SIZE, IMAGE_SIZE), name)
    return _split(name, *parts, val_size=VAL_SIZE)


def _split(name, train: ImageSet, test: ImageSet | None = None, val: ImageSet | None = None, val_size=None) -> Digits:
    """Three parts: as they are; or two, whose first gives its end for validation; or one, mixed with a fixed seed."""
    count = len(train.images)
    sizes = {part: tuple(images.images.shape[1:]) for part, images in (("train", train), ("test", test)) if images}
    check_agreement(f"the images in {name} must be of the same size", len(set(sizes.values())) == 1, sizes)
    if test is None:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        check_at_least(3, **{f"the number of images in {name}": count})
        seventh = max(1, count // 7)
        rows = order[2 * seventh :], order[:seventh], order[seventh : 2 * seventh]
        train, val, test = (ImageSet(train.images[part], train.labels[part]) for part in rows)
    elif val is None:
        check_at_least(2, **{f"the number of training images in {name}": count})
        head = count - (val_size or max(1, count // 6))
        train, val = train.first(head), ImageSet(train.images[head:], train.labels[head:])
    digits = Digits(train, val, test)
    digits.name = name
    return digits


# --- Images in colour ---------------------------------------------------------------------------------------------


def _landscapes(name: str, root: Path) -> Digits:
    """Procedural landscapes, from a file that an earlier call wrote, or made here."""
    size, sizes = 32 if name == "landscapes_32" else 64, full_or_quick([10_000, 1_000, 1_000], [32, 8, 8])
    path, total = root / "landscapes" / f"{name}_version_{VERSION}.safetensors", sum(sizes)
    if quick_mode():
        kept = dict(zip(("images", "labels"), map(torch.from_numpy, landscapes(total, size=size)), strict=True))
    elif path.exists():
        kept, _ = read_tensors(path)
    else:
        print(f"Making {total:,} landscapes, which are kept in {path} ...", flush=True)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)  # if it cannot be, say so before the work
            starts = progress(range(0, total, 500), unit="500 landscapes")
            made = [landscapes(min(500, total - start), 0, size, start) for start in starts]
            images, labels = (torch.from_numpy(np.concatenate(part)) for part in zip(*made, strict=True))
            kept = {"images": images, "labels": labels}
            write_tensors(path, kept, {})
        except OSError as error:
            raise OSError(f"root={str(root)!r} cannot be written ({error}): set AR_DATA to another folder") from error
    parts = zip(kept["images"].split(sizes), kept["labels"].long().split(sizes), strict=True)
    digits = Digits(*(ImageSet(*part) for part in parts))
    digits.name = name
    return digits


def _photographs() -> Digits:
    """Pieces of scikit-learn's two photographs: the left of each to learn from, then strips to validate and to test."""
    from sklearn.datasets import load_sample_images

    pieces, labels = {}, {}
    edges = {"train": (0, 464), "val": (464, 560), "test": (560, 640)}  # columns
    for part, (left, right) in edges.items():
        views = [
            torch.from_numpy(photo[:, left:right].copy()).unfold(0, PATCH, PATCH // 2).unfold(1, PATCH, PATCH // 2)
            for photo in load_sample_images().images  # (427, 640, 3) each
        ]
        views = [view.flatten(0, 1).permute(0, 2, 3, 1) for view in views]  # (M, 32, 32, 3)
        pieces[part] = torch.cat(views).contiguous()
        labels[part] = torch.arange(len(views)).repeat_interleave(len(views[0]))
    digits = Digits(*(ImageSet(pieces[part], labels[part]) for part in edges))
    digits.name = "photographs"
    return digits


def _cifar10(root: Path) -> Digits:
    from torchvision.datasets import CIFAR10

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:  # torchvision downloads only what is not there, or is damaged
        parts = [CIFAR10(root, train=train, download=True) for train in (True, False)]
    except NO_DOWNLOAD as error:
        why = " ".join(str(error).split())
        raise OSError(f"cifar10 could not be loaded from root={str(root)!r}, or downloaded: {why}") from error
    finally:
        socket.setdefaulttimeout(before)
    train, test = (ImageSet(torch.from_numpy(part.data), torch.tensor(part.targets)) for part in parts)
    return _split("cifar10", train, test, val_size=5_000)


# --- Files of images ----------------------------------------------------------------------------------------------


def _find(places: Iterable[Path], name: str) -> Path | None:
    """An idx file in the first place that has it, perhaps compressed, or with a dot in its name as some copies have."""
    for place in places:
        for spelling in (name, name.replace("-idx", ".idx")):
            for path in (place / spelling, place / f"{spelling}.gz"):
                if path.is_file():
                    return path
    return None


def read_idx(path: Path) -> Tensor:
    """The numbers from 0 to 255 in an idx file, the format of MNIST (LeCun et al., 1998), compressed or not."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged or cut short ({error})") from error
    if content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(
            f"{path} is no idx file of bytes: it begins with {content[:4].hex(' ') or 'nothing'}, not 00 00 08"
        )
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    start = 4 + 4 * len(shape)
    if len(content) != start + math.prod(shape):
        raise ValueError(f"{path} is damaged or cut short: for {' x '.join(map(str, shape))} bytes it should have "
                         f"{start + math.prod(shape):,}, and it has {len(content):,}")  # fmt: skip
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)


def _idx_pair(images_path: Path, labels_path: Path | None) -> ImageSet:
    """The images of a file and their labels; 0 for all where there is no file of labels."""
    images = read_idx(images_path)
    check_agreement(f"{images_path} must hold images (M, H, W)", images.dim() == 3, f"{tuple(images.shape)}")
    if labels_path is None:
        return ImageSet(images, torch.zeros(len(images), dtype=torch.int64))
    labels = read_idx(labels_path)
    check_content(labels_path, tuple(labels.shape), (len(images),), f"labels of {images_path.name}")
    return ImageSet(images, labels.long())


def _own_images(path: Path, colour_size: int | None = None) -> Digits:
    """Images of a reader's own: idx files, or a folder of pictures."""
    if path.is_file():
        labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
        return _split(str(path), _idx_pair(path, labels if labels != path and labels.is_file() else None))
    train, _, test, _ = files = [_find([path, path / "raw"], file) for file in FILES]
    if train is not None:
        return _split(str(path), _idx_pair(*files[:2]), None if test is None else _idx_pair(*files[2:]))
    folders = {folder.name.lower(): folder for folder in sorted(path.iterdir()) if folder.is_dir()}
    kinds = "train(ing)?", "test(ing)?", "val(id(ation)?)?"
    train, test, val = ([folders[name] for name in folders if re.fullmatch(kind, name)][:1] for kind in kinds)
    parts = train + test + val if train and test else [path]
    found = [_picture_paths(part) for part in parts]
    classes = sorted({name for paths in found for name in paths.values()} - {""})
    numbered = all(name.isdecimal() and int(name) < 100 for name in classes)
    labels = {"": 0} | {name: int(name) if numbered else number for number, name in enumerate(classes)}
    return _split(str(path), *(_pictures(paths, labels, colour_size) for paths in found))


def _picture_paths(folder: Path) -> dict[Path, str]:
    """The pictures in a folder and its sub-folders, and of each the sub-folder's name, its class."""
    endings = Image.registered_extensions()
    paths = [each for each in sorted(folder.rglob("*")) if each.suffix.lower() in endings and each.name[0] != "."]
    files = FILES[0], FILES[1]
    wanted = f"{folder} must hold pictures, or idx files named {' and '.join(files)}"
    check_agreement(wanted, bool(paths), "other files")
    classes = {each: each.relative_to(folder).parts[0] if each.parent != folder else "" for each in paths}
    mixed = "" in classes.values() and len(set(classes.values())) > 1
    check_agreement(f"the pictures in {folder} must all lie in sub-folders, or none", not mixed, "some of them")
    return classes


def _pictures(paths: dict[Path, str], labels: dict[str, int], colour_size: int | None) -> ImageSet:
    side, shape, read = IMAGE_SIZE, (), open_grey
    if colour_size is not None:
        side, shape, read = colour_size, (3,), open_colour
    images = torch.empty(len(paths), side, side, *shape, dtype=torch.uint8)
    for image, path in zip(images, progress(paths, unit="picture"), strict=True):
        square = ImageOps.fit(read(path), (side, side), Image.Resampling.BILINEAR)
        image.copy_(torch.from_numpy(np.array(square)))
    return ImageSet(images, torch.tensor([labels[name] for name in paths.values()]))


def _download(class_name: str, root: Path, missing: list[str]) -> None:
    """Download beside the final place, then rename, so that a download cut short leaves nothing behind."""
    from torchvision import datasets

    raw = root / class_name / "raw"
    try:
        root.mkdir(parents=True, exist_ok=True)
        aside = tempfile.TemporaryDirectory(dir=root, prefix="download-")
    except OSError as error:
        raise OSError(
            f"root={str(root)!r} cannot be written ({error}): name a folder that can, or set AR_DATA"
        ) from error
    before = socket.getdefaulttimeout()
    with aside as folder:
        print(f"Downloading {class_name}, giving up when nothing comes for {PATIENCE} seconds ...", flush=True)
        socket.setdefaulttimeout(PATIENCE)  # some networks swallow what is sent, and torchvision would wait for ever
        try:
            getattr(datasets, class_name)(folder, download=True)
        finally:
            socket.setdefaulttimeout(before)
        raw.mkdir(parents=True, exist_ok=True)
        for file in missing:
            os.replace(Path(folder) / class_name / "raw" / file, raw / file)


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
