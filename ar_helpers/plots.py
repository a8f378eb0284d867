"""Figures and tables. Each function returns its figure or table: end a notebook cell with the call."""

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from .checks import check_agreement, check_at_least, check_ending
from .files import write
from .tokens import channel_levels, unpack_colours

GREY = "#7b7b7b"  # has enough contrast with white and with nearly black
INK, ACCENT = "#0072b2", "#d55e00"  # of the colour-blind-safe palette of Okabe and Ito
PALETTE = (INK, ACCENT, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", GREY)


class Table(str):
    """A Markdown table that a notebook shows as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_markdown_(self) -> str:
        return str(self)


def table(heads: Sequence, rows: Iterable[Sequence], caption: str = "") -> str:
    """A Markdown table with the first column aligned left and all further columns aligned right.

    Args:
        heads: the columns' names.
        rows: one sequence for each row, as long as heads; entries become strings.
        caption: text above the table. If it begins with a number, as in ``Table 1.2. The score``, that is bold.
    """
    rows = [list(map(str, row)) for row in rows]
    for row in rows:
        check_agreement(f"rows must have {len(heads)} entries, as heads has", len(row) == len(heads), len(row))
    head, *lines = (f"| {' | '.join(row)} |" for row in [list(map(str, heads)), *rows])
    above = [re.sub(r"^Table \d+\.\d+\.", r"**\g<0>**", caption), ""] if caption else []
    return Table("\n".join([*above, head, "|:--" + "|--:" * (len(heads) - 1) + "|", *lines]))


def style() -> None:
    """Set matplotlib's defaults for the book's figures, which are readable on light and on dark pages."""
    plt.rcParams.update(
        {
            "figure.dpi": 144,
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "axes.titlesize": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.fontsize": 9,
            "legend.framealpha": 0,
            "axes.prop_cycle": plt.cycler(color=PALETTE),
            **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
            **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), GREY),
        }
    )


def as_pictures(images: Tensor, num_levels: int | None) -> np.ndarray:
    """Images (M, H, W), (M, H, W, 3) or rows of tokens (M, N) as values from 0 to 1, (M, H, W) or (M, H, W, 3)."""
    pixels = np.asarray(images.cpu() if isinstance(images, Tensor) else images)
    if pixels.ndim == 2:
        channels = 1 if math.isqrt(pixels.shape[1]) ** 2 == pixels.shape[1] else 3
        side = math.isqrt(pixels.shape[1] // channels)
        square = channels * side * side == pixels.shape[1]
        check_agreement("images of shape (M, N) must be square", square, f"of {pixels.shape[1]} pixels")
        pixels = pixels.reshape(-1, side, side, *[channels] * (channels > 1))
    colour = pixels.ndim == 4 and pixels.shape[3] == 3
    words = "images must have shape (M, H, W), (M, H, W, 3) or (M, N)"
    check_agreement(words, colour or pixels.ndim == 3, pixels.shape)
    check_agreement("images must hold at least one image", len(pixels) > 0, "none")
    if num_levels is not None:
        levels = channel_levels(num_levels)
        if levels < num_levels:
            check_agreement("num_levels must be at most 256 for images with three channels", not colour, num_levels)
            pixels = unpack_colours(torch.from_numpy(pixels), levels).numpy()
        return (pixels + 0.5) / levels
    return pixels / 255 if pixels.dtype == np.uint8 else pixels


def _grid(count: int, columns: int) -> tuple[int, int]:
    """Rows and columns of a grid for so many images."""
    check_at_least(1, columns=columns)
    columns = min(columns, count)
    return math.ceil(count / columns), columns


def show_images(
    images: Tensor,
    num_levels: int | None = None,
    columns: int = 10,
    titles: Sequence[str] | None = None,
    size: float = 0.8,
) -> Figure:
    """A grid of images, from 0 (black) to 1 (white), without smoothing.

    Args:
        images: grey (M, H, W), colour (M, H, W, 3), or (M, N) rows of square images, grey or with three channels for
            each pixel: tokens when num_levels is given, else uint8 or floats from 0 to 1.
        num_levels: the number of levels K of tokens, above 256 of packed colours. Each token is drawn at the centre of
            its bin.
        columns: images in a row.
        titles: (M,) strings, drawn above the images.
        size: the width of an image in inches.
    """
    pictures = as_pictures(images, num_levels)
    agree = titles is None or len(titles) == len(pictures)
    check_agreement(f"titles must be {len(pictures)}, one for each image", agree, len(titles or ()))
    rows, columns = _grid(len(pictures), columns)
    height = size * (1.28 if titles is not None else 1.04)
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * size * 1.04, rows * height), squeeze=False, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    for i, axis in enumerate(axes.flat):
        axis.axis("off")
        if i < len(pictures):
            axis.imshow(pictures[i], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            if titles is not None:
                axis.set_title(titles[i], fontsize=9, pad=3)
    plt.close(figure)
    return figure


def show_maps(
    tokens: Tensor, probabilities: Tensor, entropies: Tensor, num_levels: int, titles: Sequence[str] | None = None
) -> Figure:
    """A row of three panels for each image: the image, the probability of each pixel, the entropy before each pixel.

    Args:
        tokens: (M, N), of square images, or with a token for each channel (M, 3 N).
        probabilities: as tokens, shown from 0 to 1; the product over a pixel's channels.
        entropies: as tokens, in bits, shown from 0 to log2 num_levels; the sum over a pixel's channels, thrice as far.
        num_levels: the number of levels K, or of packed colours K**3.
        titles: (M,) strings.
    """
    shapes = [tuple(part.shape) for part in (tokens, probabilities, entropies)]
    alike = len(set(shapes)) == 1
    check_agreement("tokens, probabilities and entropies must be of one shape", alike, ", ".join(map(str, shapes)))
    agree = titles is None or len(titles) == len(tokens)
    check_agreement(f"titles must be {len(tokens)}, one for each image", agree, len(titles or ()))
    chances, surprise = as_pictures(probabilities, None), as_pictures(entropies, None)
    most = math.log2(num_levels)
    if chances.ndim == 4:  # a map of pixels: their channels together
        chances, surprise, most = chances.prod(3), surprise.sum(3), 3 * most
    kinds = (
        ("image", as_pictures(tokens, num_levels), "gray", 1.0, "grey value"),
        ("probability of the pixel", chances, "viridis", 1.0, "probability"),
        ("entropy of the prediction", surprise, "magma", most, "bits"),
    )
    rows = len(kinds[0][1])
    figure, axes = plt.subplots(rows, 3, figsize=(8, 0.4 + 2.1 * rows), squeeze=False, layout="compressed")
    figure.get_layout_engine().set(wspace=0.1)  # a scale's name stands with its scale, not with the next panel
    for column, (title, values, colours, highest, unit) in enumerate(kinds):
        axes[0, column].set_title(title, fontsize=10)
        for row in range(rows):
            axis = axes[row, column]
            shown = axis.imshow(values[row], cmap=colours, vmin=0, vmax=highest, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        if values.ndim == 3:  # colours need no scale
            figure.colorbar(shown, ax=axes[:, column], label=unit, shrink=0.9)
    for row, title in enumerate(titles or ()):
        axes[row, 0].set_ylabel(title, fontsize=10)
    plt.close(figure)
    return figure


def plot_history(histories, baselines: Mapping[str, float] | None = None) -> Figure:
    """Training and validation loss in bits per pixel against steps.

    Args:
        histories: a `History`, or a mapping from names to histories.
        baselines: a mapping from names to bits per pixel, drawn as horizontal lines for comparison.
    """
    histories = histories if isinstance(histories, Mapping) else {"": histories}
    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for (name, history), colour in zip(histories.items(), PALETTE, strict=False):
        axis.plot(history.train_steps, history.train_bits, color=colour, alpha=0.6, label=f"{name} training".strip())
        if history.val_bits:
            label = f"{name} validation".strip()
            axis.plot(history.val_steps, history.val_bits, "o-", color=colour, markersize=4, label=label)
    for (name, bits), style in zip((baselines or {}).items(), ("--", ":", "-."), strict=False):
        axis.axhline(bits, color=GREY, linestyle=style, linewidth=1, label=f"{name} ({bits:.3f})")
    axis.set_xlabel("training steps")
    axis.set_ylabel("bits per pixel")
    lowest = min((bits for history in histories.values() for bits in history.train_bits + history.val_bits), default=1)
    axis.set_ylim(0.95 * lowest, 1.05 * max((baselines or {}).values(), default=2 * lowest))  # the start may stick out
    axis.grid(alpha=0.25)
    figure.legend(loc="outside upper left", ncols=3, fontsize=9)  # where no line can run through it
    plt.close(figure)
    return figure


def tile(pictures: np.ndarray, columns: int, scale: int) -> np.ndarray:
    """Pictures (M, H, W) or (M, H, W, 3), uint8, in a grid with thin lines between, `scale` times as wide and high."""
    count, height, width, *channels = pictures.shape
    rows, columns = _grid(count, columns)
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, *channels), 96, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = (i // columns) * (height + 1) + 1, (i % columns) * (width + 1) + 1
        canvas[top : top + height, left : left + width] = picture
    return enlarge(canvas, scale)


def enlarge(picture: np.ndarray, scale: int) -> np.ndarray:
    """Each pixel of a picture (H, W) or (H, W, 3) as a square of `scale` pixels a side; at least 1."""
    check_at_least(1, scale=scale)
    return picture.repeat(scale, 0).repeat(scale, 1)


def animate(
    tokens: Tensor,
    num_levels: int,
    path: str | Path | None = None,
    columns: int = 5,
    frames: int = 49,
    seconds: float = 4.0,
    scale: int = 4,
) -> bytes:
    """A looping GIF of images being drawn in raster order. It begins with a pause on the finished images.

    Args:
        tokens: (M, N), or with a token for each channel (M, 3 N), of square images, drawn together as a grid.
        num_levels: the number of levels K, or of packed colours K**3.
        path: a file to write the GIF to, ending in .gif, or None.
        columns: images in a row of the grid.
        frames: the number of pictures, at least 2.
        seconds: the duration of the drawing, at least 1/50 s for each picture; the pause adds two seconds.
        scale: screen pixels for one pixel of an image.

    Returns:
        The bytes of the GIF.
    """
    pictures = np.round(as_pictures(tokens, num_levels) * 255).astype(np.uint8)
    check_at_least(2, frames=frames)
    if path is not None:
        check_ending(".gif", Path(path))
    height, width, *channels = pictures[0].shape
    order = np.arange(height * width).reshape(height, width, *[1] * len(channels))
    finished, *stages = (
        Image.fromarray(tile(np.where(order < drawn, pictures, 48).astype(np.uint8), columns, scale))
        for drawn in [order.size, *np.linspace(0, order.size, frames).round()[:-1]]
    )  # finished first: programs that show a still show that
    ends = np.linspace(0, 100 * seconds, frames).round()  # in hundredths of a second, which is what a GIF counts in
    check_at_least(0.02 * (frames - 1), seconds=seconds)  # programs show what is shorter than two of them for ten
    times = [2000, *(10 * np.diff(ends)).astype(int).tolist()]
    buffer = io.BytesIO()
    finished.save(buffer, "GIF", save_all=True, append_images=stages, duration=times, loop=0, optimize=False)
    if path is not None:
        write(path, buffer.getvalue())
    return buffer.getvalue()
