"""Images as rows of tokens: quantization and training sets."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from .checks import (
    check_agreement,
    check_at_least,
    check_image_rows,
    check_images,
    check_index,
    check_integers,
    check_mask,
    check_num_levels,
    check_share,
    whole_number,
)


def quantize(images: Tensor, num_levels: int) -> Tensor:
    """Cut the grey scale into num_levels equal bins and return each pixel's bin: its token.

    Args:
        images: any shape; uint8 from 0 to 255, or floating point from 0 to 1. NumPy arrays are taken too.
        num_levels: the number of bins K, from 2 to 256.

    Returns:
        Tokens of the same shape, uint8, from 0 to K - 1. They are x * K // 256 for integers and floor(x * K) for
        floating point, where white, 1.0, belongs to the last bin.
    """
    check_num_levels(num_levels)
    images = torch.as_tensor(images)
    check_images(images)
    if images.dtype == torch.uint8:
        tokens = torch.empty_like(images, memory_format=torch.contiguous_format)
        for part, out in zip(images.reshape(-1).split(2**22), tokens.view(-1).split(2**22), strict=True):
            out.copy_(part.int() * num_levels // 256)  # a part at a time: an int takes four bytes
        return tokens
    return (images.float() * num_levels).floor().clamp(max=num_levels - 1).to(torch.uint8)


def dequantize(tokens: Tensor, num_levels: int) -> Tensor:
    """Return the centre of each token's bin: grey values (t + 0.5) / K between 0 and 1, float32, of the same shape."""
    check_num_levels(num_levels)
    tokens = torch.as_tensor(tokens)
    check_integers("tokens", tokens, num_levels - 1)
    return (tokens.float() + 0.5) / num_levels


def pack_colours(tokens: Tensor, num_levels: int = 16) -> Tensor:
    """Join the levels of red, green and blue to one token: (red * L + green) * L + blue.

    Args:
        tokens: (..., 3) integers from 0 to L - 1, as `quantize` returns them for colour images (..., H, W, 3).
        num_levels: the number L of levels of a channel, from 2 to 256.

    Returns:
        Tokens (...) from 0 to L**3 - 1, int16 where L**3 and a start token fit, else int32.
    """
    check_num_levels(num_levels)
    tokens = torch.as_tensor(tokens)
    check_integers("tokens", tokens, num_levels - 1)
    check_agreement("tokens must have three channels in the last axis", tokens.shape[-1:] == (3,), tuple(tokens.shape))
    red, green, blue = tokens.int().unbind(-1)
    packed = (red * num_levels + green) * num_levels + blue
    return packed.to(torch.int16 if num_levels**3 < 2**15 else torch.int32)


def unpack_colours(tokens: Tensor, num_levels: int = 16) -> Tensor:
    """The levels (..., 3), uint8, of red, green and blue that `pack_colours` joined to tokens (...)."""
    check_num_levels(num_levels)
    tokens = torch.as_tensor(tokens)
    check_integers("tokens", tokens, num_levels**3 - 1)
    tokens = tokens.int()
    parts = tokens // num_levels**2, tokens // num_levels % num_levels, tokens % num_levels
    return torch.stack(parts, dim=-1).to(torch.uint8)


def channel_levels(num_levels: int) -> int:
    """The number of levels of a grey value or a channel: num_levels, or above 256, of packed colours, its cube root."""
    levels = round(num_levels ** (1 / 3)) if num_levels > 256 else num_levels
    whole = num_levels <= 256 or levels**3 == num_levels
    check_agreement("num_levels must be at most 256, or for packed colours a third power", whole, num_levels)
    return levels


def is_colour(model) -> bool:
    """Whether a model draws in colour: it has three tokens for each pixel, or more levels than a grey image."""
    return model.channels == 3 or model.num_levels > 256


def image_tokens(images: Tensor, model) -> Tensor:
    """The tokens (B, N) of images (B, H, W), or in colour (B, H, W, 3), as a model takes them.

    A token stands for a grey pixel, for the colour of a pixel, or for one of its channels, in the order red, green and
    blue. Images are uint8, or floating point from 0 to 1.
    """
    levels = channel_levels(model.num_levels) if model.channels == 1 else model.num_levels
    tokens = quantize(images, levels)
    return (pack_colours(tokens, levels) if levels < model.num_levels else tokens).flatten(1)


def binarize(images: Tensor, seed: int) -> Tensor:
    """Draw black-and-white pixels: each is white with its grey value x / 255 as the probability.

    This is how published figures on binary MNIST binarize "dynamically" (Salakhutdinov and Murray, 2008).

    Args:
        images: any shape, integers from 0 to 255.
        seed: of the draws.

    Returns:
        Tokens of the same shape, int64, 0 or 1.
    """
    images = torch.as_tensor(images)
    check_integers("images", images, 255)
    draws = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed)).to(images.device)
    return (draws * 255 < images).long()


def rows_of(index, size: int) -> Tensor:
    """The numbers (...) of the examples that an index selects from `size` examples.

    It is a number (negative: from the end), a slice, a mask (size,) of bool, or a list, array or tensor of numbers.
    """
    if isinstance(index, slice):
        numbers = range(*index.indices(size))
        return torch.arange(len(numbers)) * numbers.step + numbers.start
    index = torch.as_tensor(index)
    if index.dtype == torch.bool:
        check_mask(index, size)
        return index.nonzero().squeeze(1)
    index = index.long() if index.numel() == 0 else index  # an empty list is of no type
    check_index(index, size)
    return index % size


class ContextWindows(Dataset):
    """Every pixel of every image as an example: the tokens just before it, and the pixel itself.

    Example image * N + position is ((context, position, label), target): the C tokens before the pixel (C,), its
    raster number from 0 to N - 1, the image's label (None without labels) and the pixel's own token, all int64.
    Before the first pixel, the window holds the start token, whose value is num_levels. `windows[i]` is an example;
    `windows[indices]`, a slice or a mask of bool give a batch with a leading axis. For a DataLoader, pass batches of
    indices as the sampler and `batch_size=None`.

    Args:
        tokens: (M, N) integers from 0 to num_levels - 1.
        labels: (M,) integers, or None.
        context_length: the number C of tokens in a window, at least 1.
        num_levels: the number K of grey levels, from 2 to 256.
    """

    def __init__(self, tokens: Tensor, labels: Tensor | None = None, *, context_length: int, num_levels: int):
        check_num_levels(num_levels)
        tokens = torch.as_tensor(tokens)
        labels = None if labels is None else torch.as_tensor(labels)
        check_image_rows(tokens, labels, num_levels - 1)
        check_at_least(1, context_length=context_length)
        context_length, num_levels = whole_number("context_length", context_length), int(num_levels)
        smallest = torch.uint8 if num_levels < 256 else torch.int16
        self.padded = F.pad(tokens.to(smallest), (context_length, 0), value=num_levels)  # (M, C + N)
        self.windows = self.padded.unfold(1, context_length + 1, 1)  # (M, N, C + 1), a view: nothing is copied
        self.tokens = self.padded[:, context_length:]  # (M, N)
        self.labels = None if labels is None else labels.long()
        self.context_length, self.num_levels = context_length, num_levels

    def __len__(self) -> int:
        return self.tokens.numel()

    def __getitem__(self, index: int | slice | Tensor) -> tuple:
        index = rows_of(index, self.tokens.numel())
        num_pixels = self.tokens.shape[1]
        image, position = index // num_pixels, index % num_pixels
        # Picking from the padded images as one long row is twice as fast as by image and position.
        start = index + image * self.context_length
        window = self.padded.flatten().unfold(0, self.context_length + 1, 1).index_select(0, start.flatten())
        window = window.long().view(*index.shape, self.context_length + 1)  # (..., C + 1): the context, then the target
        label = None if self.labels is None else self.labels[image]
        return (window[..., :-1], position, label), window[..., -1]


class ThinnedWindows(ContextWindows):
    """Context windows in which dull windows appear less often, with a larger weight: importance sampling.

    A window is dull if its last two tokens (to the left, for a window of one row) and its first three tokens (above)
    are black or start tokens. The next pixel is then nearly always black, and there is little to learn. Only the share
    `keep` of the dull windows is kept, chosen at random, with the weight 1 / keep. So the mean of weighted
    losses over a random batch has the same expectation as the plain mean over all windows.

    Example i is (inputs, target, weight), inputs and target as in `ContextWindows`, weight float32 with mean 1.

    Args:
        tokens, labels, context_length, num_levels: as for `ContextWindows`.
        keep: the share of dull windows to keep, in (0, 1].
        seed: chooses the dull windows to keep.
    """

    def __init__(self, tokens, labels=None, *, context_length, num_levels, keep=0.125, seed=0):
        super().__init__(tokens, labels, context_length=context_length, num_levels=num_levels)
        check_share(keep=keep)
        black = (self.padded == 0) | (self.padded == num_levels)  # (M, C + N)
        dull, places = torch.ones(self.tokens.shape, dtype=torch.bool), range(self.context_length)
        for place in {*places[-2:], *places[:3]}:  # in the window
            dull &= black[:, place : place + dull.shape[1]]
        dull = dull.flatten()
        chosen = torch.rand(len(dull), generator=torch.Generator().manual_seed(seed)) < keep
        self.indices = (chosen | ~dull).nonzero().squeeze(1)
        weights = torch.where(dull[self.indices], 1 / keep, 1.0)
        self.weights, self.keep = weights / weights.mean(), keep

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int | slice | Tensor) -> tuple:
        rows = rows_of(index, len(self))
        return *super().__getitem__(self.indices[rows]), self.weights[rows]


class TokenImages(Dataset):
    """Every image as an example, for models that read whole images.

    Example i is ((tokens, label), tokens): the image's tokens (N,) and its label (None without labels), int64;
    `images[indices]`, a slice or a mask of bool give a whole batch.

    Args:
        tokens: (M, N) integers, not negative.
        labels: (M,) integers, or None.
    """

    def __init__(self, tokens: Tensor, labels: Tensor | None = None):
        self.tokens = torch.as_tensor(tokens)
        labels = None if labels is None else torch.as_tensor(labels)
        check_image_rows(self.tokens, labels, math.inf)
        self.labels = None if labels is None else labels.long()

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int | slice | Tensor) -> tuple:
        rows = rows_of(index, len(self))
        tokens = self.tokens[rows].long()
        return (tokens, None if self.labels is None else self.labels[rows]), tokens
