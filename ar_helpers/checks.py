"""Every argument check of the package: each names the argument, the range allowed and the value given."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

NO_NUMBERS = ("bool", "bool_", "str")  # by name, since NumPy has its own


def is_integer(values) -> bool:
    """Whether these are the integers of a tensor, bool not among them."""
    other = isinstance(values, Tensor) and (values.dtype == torch.bool or values.is_complex())
    return isinstance(values, Tensor) and not other and not values.is_floating_point()


def extremes(values: Tensor) -> tuple[int, int]:
    """The lowest and the highest value as Python ints (a uint8 tensor cannot be compared with 256), 0 when empty."""
    return (int(values.min()), int(values.max())) if values.numel() else (0, 0)


def outside(values: Tensor, highest: float) -> int | None:
    """A value that is below 0 or above the highest allowed, if there is one."""
    lowest, found = extremes(values)
    return lowest if lowest < 0 else found if found > highest else None


# --- Numbers ------------------------------------------------------------------------------------------------------


def check_at_least(lowest: float, **values) -> None:
    """Raise unless each of these numbers is at least the lowest allowed. NaN is not."""
    for name, value in values.items():
        if not value >= lowest:
            raise ValueError(f"{name} must be at least {lowest}, not {value}")


def check_range(lowest: int, highest: int, **values) -> None:
    """Raise unless each of these numbers is from lowest to highest."""
    for name, value in values.items():
        if not lowest <= value <= highest:
            raise ValueError(f"{name} must be from {lowest} to {highest}, not {value}")


def check_positive(**values) -> None:
    """Raise unless each of these is a finite number above 0."""
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be a finite number above 0, not {value}")


def check_share(**values) -> None:
    """Raise unless each of these lies in (0, 1]."""
    for name, value in values.items():
        if not 0 < value <= 1:
            raise ValueError(f"{name} must lie in (0, 1], not {value}")


def check_between(lowest: float, highest: float, **values) -> None:
    """Raise unless each of these lies between the two, which are not allowed themselves."""
    for name, value in values.items():
        if not lowest < value < highest:
            raise ValueError(f"{name} must lie between {lowest} and {highest}, not {value}")


def check_choice(name: str, value: str, allowed: Sequence[str], of: str = "one of") -> None:
    """Raise unless the value is among those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be {of} {', '.join(allowed)}, not {value!r}")


def whole_number(name: str, value) -> int:
    """The value as an int. NumPy's integers and 2.0 are whole numbers, 2.5 and True are none."""
    if type(value).__name__ in NO_NUMBERS or not _is_number(value) or value != int(value):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    return int(value)


def real_number(name: str, value) -> float:
    """The value as a float, NumPy's among them."""
    if type(value).__name__ in NO_NUMBERS or not _is_number(value, infinite=True):
        raise TypeError(f"{name} must be a number, not {value!r}")
    return float(value)


def _is_number(value, infinite: bool = False) -> bool:
    try:
        return math.isfinite(value) or infinite
    except (TypeError, ValueError):
        return False


def check_index(index: Tensor, size: int) -> None:
    """Raise IndexError unless all numbers are places of a sequence of this size, counted from either end."""
    if not is_integer(index):
        raise IndexError(f"index must be of integers, a slice or a mask of bool, not of {index.dtype}")
    if index.numel() and (index.max() >= size or index.min() < -size):
        raise IndexError(f"index must be from 0 to {size - 1}, not {index.tolist()}")


def check_mask(mask: Tensor, size: int) -> None:
    """Raise IndexError unless a mask says of each example whether it is meant."""
    if mask.shape != (size,):
        raise IndexError(f"index must have shape ({size},) as a mask, not {tuple(mask.shape)}")


def check_path(name: str, path, others: Sequence[str]) -> None:
    """Raise unless a file or folder has this path."""
    if not Path(path).expanduser().exists():
        raise ValueError(f"{name} must be {', '.join(others)} or the path of images, not {str(path)!r}: no such file")


def check_content(path, found: tuple, wanted: tuple, of: str) -> None:
    """Raise unless a file of images or labels holds as many as it should, of the right size."""
    if found != wanted:
        shapes = [" x ".join(map(str, shape)) for shape in (wanted, found)]
        raise ValueError(f"{path} must hold {shapes[0]} bytes for the {of}, not {shapes[1]}: it is of another set")


def check_ending(ending: str, path) -> None:
    """Raise unless the file's name has this ending."""
    if path.suffix != ending:
        raise ValueError(f"path must end in {ending}, not {path.name!r}")


def check_num_levels(num_levels: int) -> None:
    """Raise unless num_levels is an integer from 2 to 256."""
    if isinstance(num_levels, bool) or not hasattr(num_levels, "__index__"):
        raise TypeError(f"num_levels must be an int, not {num_levels!r}")
    check_range(2, 256, num_levels=num_levels)


def check_sizes(config: dict, lowest: dict) -> dict:
    """A model's arguments, plain numbers for NumPy's. Raise unless each is at least the lowest of its name, or 1."""
    sizes = dict(config)
    for name, value in config.items():
        if not isinstance(value, bool | str):
            check_at_least(lowest.get(name, 1), **{name: value})
            sizes[name] = real_number(name, value) if name == "dropout" else whole_number(name, value)
    return sizes


# --- Images, tokens, labels ---------------------------------------------------------------------------------------


def check_images(images: Tensor) -> None:
    """Raise unless images are uint8, or floating point and all in [0, 1]."""
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise TypeError(f"images must be uint8 or floating point, not {images.dtype}")
    bad = ~((images >= 0) & (images <= 1))  # NaN is bad too
    if bad.any():
        raise ValueError(f"images must lie in [0, 1] when they are floating point, not {images[bad][0].item()}")


def check_integers(name: str, values: Tensor, highest: float) -> None:
    """Raise unless these are the integers of a tensor, from 0 to the highest allowed."""
    if not is_integer(values):
        raise TypeError(f"{name} must be a tensor of integers, not {getattr(values, 'dtype', type(values).__name__)}")
    bad = outside(values, highest)
    if bad is not None:
        allowed = f"from 0 to {highest}" if math.isfinite(highest) else "from 0 on"
        raise ValueError(f"{name} must be {allowed}, not {bad}")


def check_tokens(name: str, tokens: Tensor, num_levels: int, min_pixels: int, max_pixels: int) -> None:
    """Raise unless tokens are integers from 0 to num_levels - 1 of shape (B, t), min_pixels <= t <= max_pixels."""
    check_integers(name, tokens, num_levels - 1)
    if tokens.dim() != 2 or not min_pixels <= tokens.shape[1] <= max_pixels:
        wanted = f"(B, {max_pixels})" if min_pixels == max_pixels else f"(B, t), t from {min_pixels} to {max_pixels}"
        raise ValueError(f"{name} must have shape {wanted}, not {tuple(tokens.shape)}")


def check_image_rows(tokens: Tensor, labels: Tensor | None, highest: float) -> None:
    """Raise unless tokens are integers of shape (M, N) up to the highest and labels, if there are any, M integers."""
    check_integers("tokens", tokens, highest)
    if tokens.dim() != 2 or tokens.shape[1] < 1:
        raise ValueError(f"tokens must have shape (M, N), a row an image, not {tuple(tokens.shape)}; flatten(1) them")
    if labels is not None:
        check_integers("labels", labels, math.inf)
        words = f"({len(tokens)},), one for each image"
        check_shape("labels", labels, tuple(tokens.shape[:1]), words=words)


def check_labels(labels: Tensor | None, num_classes: int, batch_size: int) -> None:
    """Raise unless there is one label for each image, or none for an unconditional model."""
    if num_classes == 0:
        if labels is not None:
            raise ValueError("labels must be None: this model is unconditional (num_classes=0)")
        return
    if labels is None:
        raise ValueError(f"labels must be given: this model is conditional (num_classes={num_classes})")
    check_integers("labels", labels, num_classes - 1)
    check_shape("labels", labels, (batch_size,), words=f"({batch_size},), one for each image")


def check_cache(cache, prefix: Tensor) -> None:
    """Raise unless a cache is empty, or of as many images as the prefix (B, t) and of no pixel after pixel t - 1."""
    batch_size = next((len(parts[0]) for parts in cache.kept.values()), len(prefix))
    if batch_size != len(prefix) or cache.length > prefix.shape[1]:
        have = f"{batch_size} images up to pixel {cache.length - 1}"
        raise ValueError(f"cache must be of the same images and shorter than prefix, not of {have}")


def check_shape(name: str, tensor: Tensor, *allowed: tuple, words: str = "") -> None:
    """Raise unless a tensor has one of the shapes allowed."""
    if tuple(tensor.shape) not in allowed:
        raise ValueError(f"{name} must have shape {words or allowed[0]}, not {tuple(tensor.shape)}")


def check_bool(name: str, tensor: Tensor) -> None:
    """Raise unless a tensor is of bool."""
    if tensor.dtype != torch.bool:
        raise TypeError(f"{name} must be a tensor of bool, not {tensor.dtype}")


def check_agreement(message: str, agree: bool, given) -> None:
    """Raise unless the arguments agree with each other as the message says that they must."""
    if not agree:
        raise ValueError(f"{message}, not {given}")


def check_image_set(name: str, images, side: int | None = None) -> None:
    """Raise unless these are images (M, H, W), uint8, with labels (M,), at least one; of this side if one is named."""
    pixels, labels = getattr(images, "images", None), getattr(images, "labels", None)
    grey_or_colour = isinstance(pixels, Tensor) and (pixels.dim() == 3 or (pixels.dim() == 4 and pixels.shape[3] == 3))
    if not grey_or_colour or not isinstance(labels, Tensor):
        shapes = "images (M, H, W) or (M, H, W, 3)"
        raise TypeError(f"{name} must be an ImageSet of {shapes}, as digits.val is, not {describe(images)}")
    check_agreement(f"{name} must hold at least one image", len(pixels) > 0, "none")
    if side is not None and tuple(pixels.shape[1:3]) != (side, side):
        height, width = pixels.shape[1:3]
        raise ValueError(f"{name} must be of {side} x {side} pixels, as the model's images are, not {height} x {width}")


def describe(thing) -> str:
    """What a thing is, in a word, for a message."""
    return f"a {type(thing).__name__}"


def check_finite(what: str, tensors: dict, why: str) -> None:
    """Raise unless all tensors hold finite numbers only."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{what} must hold finite numbers, not what {name} holds: {why}")


def check_batch_size(batch_size: int, size: int) -> None:
    """Raise unless there are enough examples for a batch."""
    if size < batch_size:
        raise ValueError(f"batch_size must be at most the {size} examples there are, not {batch_size}")


def check_dataset(model, dataset, num_levels) -> None:
    """Raise unless a model can learn from a data set: the same kind, levels, context, size and kind of labels."""
    tokens = getattr(dataset, "tokens", None)
    if not isinstance(tokens, Tensor) or tokens.dim() != 2:
        more = ": for some of the images make one of their tokens" if type(dataset).__name__ == "Subset" else ""
        kinds = "a ContextWindows, a ThinnedWindows or a TokenImages"
        raise ValueError(f"dataset must be {kinds}, not {describe(dataset)}{more}")
    wanted = "windows" if hasattr(model, "context_length") else "whole images"
    found = "windows" if hasattr(dataset, "context_length") else "whole images"
    check_agreement(f"dataset must be of {wanted} for this model", wanted == found, f"of {found}")
    check_agreement("dataset must hold at least one image", len(dataset) > 0, "none")
    labels = getattr(dataset, "labels", None)
    check_labels(labels, model.num_classes, 0 if labels is None else len(labels))
    for name in ("num_levels", "context_length"):
        ours, theirs = getattr(model, name, None), getattr(dataset, name, None)
        if ours is not None and theirs is not None and ours != theirs:
            raise ValueError(f"dataset has {name}={theirs}, but the model has {name}={ours}")
    highest = max(int(part.max()) for part in dataset.tokens.split(4096))
    if highest >= num_levels:
        raise ValueError(f"dataset has tokens up to {highest}, but the model has num_levels={num_levels}")
    length, channels = dataset.tokens.shape[1], getattr(model, "channels", 1)
    if length != channels * model.image_size**2:
        theirs = f"image_size={model.image_size}" + f" and {channels} tokens for each" * (channels > 1)
        raise ValueError(f"dataset has images of {length} tokens, but the model has {theirs}")
