"""Pictures from outside: opening them in grey, and turning a photograph of a digit into an image like MNIST's."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

LONGEST = 800  # pixels along the longer side at which a digit is looked for
CROP = "crop the picture so that the digit fills most of it"


def open_picture(path: str | Path, longest: int = 4000) -> Image.Image:
    """Open any picture, upright, in mode "L", "RGB", or "RGBA" if parts of it are transparent.

    A picture larger than `longest` is reduced by a whole factor, but not below `longest`. Floats and 32-bit shades have
    no fixed scale, so they are stretched: from 0, or from the darkest shade if that is negative, to the lightest.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a readable picture.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no picture {path}")
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(path) as file,
        ):
            file.draft(file.mode, (longest, longest))  # a JPEG is decoded no larger than it needs to be
            picture = ImageOps.exif_transpose(file)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no picture that can be read ({error})") from error
    if picture.mode[0] in "IF":  # 16 bits, 32 bits, or floats
        shades = np.nan_to_num(np.asarray(picture, dtype=np.float32))
        lowest = min(shades.min(), 0)
        highest = shades.max()
        if picture.mode.startswith("I;16"):  # many cameras and scanners fill 12 of the 16 bits
            highest = 65535 if highest > 4095 else 4095
        picture = Image.fromarray((255 * (shades - lowest) / max(highest - lowest, 1e-9)).round().astype(np.uint8))
    elif picture.mode in ("LA", "La", "PA", "RGBa", "RGBA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        if picture.getextrema()[3][0] == 255:
            picture = picture.convert("RGB")
    elif picture.mode not in ("L", "RGB"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    return picture.reduce(max(1, max(picture.size) // longest))


def open_colour(path: str | Path) -> Image.Image:
    """A picture in 8-bit colours; where it is transparent it is black."""
    picture = open_picture(path)
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture)
    return picture.convert("RGB")


def open_grey(path: str | Path) -> Image.Image:
    """A picture in 8-bit grey; where it is transparent it is black."""
    return open_colour(path).convert("L")


def read_picture(path: str | Path) -> tuple[Tensor, str]:
    """Turn a picture of a single digit into an image like MNIST's: (28, 28), uint8, light on dark.

    The digit becomes 20 pixels long, with its centre of mass in the middle. A picture of 28 x 28 pixels that is light
    on dark stays as it is. In a photograph, the digit may lie anywhere, from a twentieth of the longer side on.
    Uneven light, grain, specks, faint lines on the paper and a table around the sheet are ignored.

    Returns:
        The image, and whether the picture is "dark on light" or "light on dark".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a picture, or it does not show exactly one digit.
    """
    colours = _on_its_ground(open_picture(path, LONGEST))  # (H, W, 3)
    grey = colours.max(2) / 2 + colours.min(2) / 2
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.ptp(grey) < 25:
        raise ValueError(f"{path} shows no digit: it is nearly all of one shade")
    light_ground = np.median(edge) > (grey.min() + grey.max()) / 2
    if not light_ground and grey.shape == (28, 28):
        return torch.from_numpy(colours.mean(2).round().astype(np.uint8)), "light on dark"
    for dark_on_light in (light_ground, not light_ground):  # a sheet on a dark table is dark on light all the same
        shown = colours if dark_on_light else 255 - colours
        paper = _paper(shown)
        ink = (1 - shown / paper).clip(0, 1).max(2)  # how much darker than the paper, in the channel that shows it best
        found, others = _digit(ink, may_touch=dark_on_light == light_ground)
        if found is None or not _stands_out(found, shown, paper):
            continue
        if others:
            raise ValueError(f"{path} shows more than one thing: {CROP}")
        return _as_mnist(ink, found), "dark on light" if dark_on_light else "light on dark"
    raise ValueError(f"{path} shows no digit that can be told from what is around it: {CROP}")


def _on_its_ground(picture: Image.Image) -> np.ndarray:
    """Colours (H, W, 3), float32. What is transparent takes the shade that sets off what is not."""
    if picture.mode == "RGBA":
        *_, opacity = picture.split()
        visible = np.asarray(picture.convert("L"))[np.asarray(opacity) > 127]
        low, shade, high = np.percentile(visible, (5, 50, 95)) if visible.size else (0, 0, 0)
        if high - low < 25:  # all of one shade: the drawing is in the opacity
            shade = 0 if shade > 127 else 255
        ground = Image.new("RGBA", picture.size, (round(shade),) * 3 + (255,))
        picture = Image.alpha_composite(ground, picture)
    return np.asarray(picture.convert("RGB"), dtype=np.float32)


def _paper(colours: np.ndarray) -> np.ndarray:
    """The colour of the paper at every pixel, (H, W, 3), at least 1.

    It is the lightest nearby, in a window wider than any stroke: a closing, as is usual for documents.
    """
    from scipy import ndimage

    height, width = colours.shape[:2]
    factor = max(1, max(height, width) // 200)
    small = np.asarray(Image.fromarray(colours.astype(np.uint8)).reduce(factor), dtype=np.float32)
    window = max(3, round(0.45 * min(small.shape[:2])))
    paper = ndimage.grey_closing(small, (window, window, 1))
    paper = ndimage.gaussian_filter(paper, (window / 8, window / 8, 0))
    paper = Image.fromarray(paper.round().astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    return np.maximum(np.asarray(paper, dtype=np.float32), 1)


def _stands_out(found: np.ndarray, colours: np.ndarray, paper: np.ndarray) -> bool:
    """Whether strokes have another colour than what is beside them, unlike the paper between strokes, or a shadow."""
    from scipy import ndimage

    channel = (1 - colours[found] / paper[found]).mean(0).argmax()
    shades, contrast = colours[..., channel], (paper - colours)[..., channel]
    thickness = 2 * ndimage.distance_transform_edt(found).max()
    away = ndimage.distance_transform_edt(~found)
    beside = (away > thickness / 2 + 1) & (away <= thickness + 3)
    differ = np.abs(shades[beside] - np.median(shades[found])) > 0.4 * np.median(contrast[found])
    return differ.size == 0 or differ.mean() > 0.7


def _digit(ink: np.ndarray, may_touch: bool) -> tuple[np.ndarray | None, bool]:
    """Where the digit's strokes are, (H, W) bool, if there are any; and whether there is something else as large."""
    from scipy import ndimage

    longest = max(ink.shape)
    smooth = ndimage.gaussian_filter(ink, 1.0 if longest > 200 else 0)
    middle = np.median(smooth)
    grain = middle + 6 * np.median(np.abs(smooth - middle))  # four standard deviations
    for threshold in (0.5, 0.35, 0.25, 0.18, 0.12):
        if threshold < grain:
            return None, False
        parts = _parts(smooth > threshold)
        large = [part for part in parts if part.length >= max(4, longest / 20) and not part.is_margin]
        strokes = [part for part in large if part.is_stroke()]
        inner = [part for part in strokes if not part.touches]
        if inner or (strokes and may_touch and threshold > 0.3):  # a shadow is faint, and reaches the edge
            break
    else:
        return None, False
    main = max(inner or strokes, key=lambda part: part.mask.sum())
    pen = np.percentile(smooth[main.at][main.mask], 75)
    parts = _parts(smooth > 0.4 * pen)
    core = main.of(ink.shape)
    main = max(parts, key=lambda part: core[part.at][part.mask].sum())
    found, others = main.of(ink.shape), False
    reach = ndimage.distance_transform_edt(~found)
    for part in parts:
        if part is main or part.length < 0.15 * main.length or (part.touches and not main.touches):
            continue
        if reach[part.at][part.mask].min() <= 0.12 * main.length and part.length < 0.8 * main.length:
            found[part.at] |= part.mask  # the pen was lifted
        elif part.length >= 0.5 * main.length and part.is_stroke():
            others = True
    return found, others


class _Part:
    """A connected part of a mask: the slices it lies `at`, and its own `mask` there."""

    def __init__(self, at, mask: np.ndarray, shape: tuple):
        self.at, self.mask, self.length = at, mask, max(mask.shape)
        ends = [(side.start == 0, side.stop == size) for side, size in zip(at, shape, strict=True)]
        self.touches = any(map(any, ends))  # the picture's edge
        edges = [(mask[0], mask[-1], shape[1]), (mask[:, 0], mask[:, -1], shape[0])]
        self.is_margin = any(  # it fills one edge of the picture, and does not reach the other
            (first and not last and one.sum() > 0.9 * size) or (last and not first and other.sum() > 0.9 * size)
            for (first, last), (one, other, size) in zip(ends, edges, strict=True)
        )

    def of(self, shape: tuple) -> np.ndarray:
        whole = np.zeros(shape, bool)
        whole[self.at] = self.mask
        return whole

    def is_stroke(self) -> bool:
        """Whether it is thin, as a pen's work is, with few holes: no sheet, table, shadow or grain."""
        from scipy import ndimage, spatial

        padded = np.pad(self.mask, 1)
        if ndimage.label(~padded)[1] > 12:  # the outside and eleven holes
            return False
        thickness = 2 * ndimage.distance_transform_edt(padded).max() / self.length
        if thickness <= 0.33 or min(self.mask.shape) < 3:
            return thickness <= 0.6
        hull = spatial.ConvexHull(np.argwhere(self.mask))
        return thickness <= 0.5 and self.mask.sum() < 0.75 * hull.volume  # in two dimensions, the area


def _parts(mask: np.ndarray) -> list[_Part]:
    from scipy import ndimage

    numbers, _ = ndimage.label(mask, np.ones((3, 3)))
    boxes = ndimage.find_objects(numbers)
    return [_Part(at, numbers[at] == number, mask.shape) for number, at in enumerate(boxes, 1)]


def _as_mnist(ink: np.ndarray, found: np.ndarray) -> Tensor:
    """The strokes in a box of 20 x 20 pixels, and that in one of 28 x 28 with their centre of mass in the middle."""
    from scipy import ndimage

    pen = np.percentile(ink[found], 75)
    near = ndimage.binary_dilation(found, iterations=max(1, max(ink.shape) // 200))
    ink = np.where(near, (ink / pen * 1.2 - 0.1).clip(0, 1), 0).astype(np.float32)  # the paper's grain does not count
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
    return torch.from_numpy(np.round(255 * digit).astype(np.uint8))
