"""The book's models. Each chapter builds one of them in its own cells, which a test holds equal to this file."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def extremes(values: Tensor) -> tuple[int, int]:
    """The lowest and the highest value as Python ints (a uint8 tensor cannot be compared with 256), 0 when empty."""
    return (int(values.min()), int(values.max())) if values.numel() else (0, 0)


def check_tokens(name: str, tokens: Tensor, num_levels: int, min_pixels: int, max_pixels: int) -> None:
    """Raise unless tokens are integers from 0 to num_levels - 1 of shape (B, t), min_pixels <= t <= max_pixels."""
    if not isinstance(tokens, Tensor) or tokens.dtype == torch.bool or tokens.is_floating_point():
        raise TypeError(f"{name} must be a tensor of integers, not {getattr(tokens, 'dtype', type(tokens).__name__)}")
    if tokens.dim() != 2 or not min_pixels <= tokens.shape[1] <= max_pixels:
        wanted = f"(B, {max_pixels})" if min_pixels == max_pixels else f"(B, t), t from {min_pixels} to {max_pixels}"
        raise ValueError(f"{name} must have shape {wanted}, not {tuple(tokens.shape)}")
    lowest, highest = extremes(tokens)
    if lowest < 0 or highest >= num_levels:
        bad = lowest if lowest < 0 else highest
        raise ValueError(f"{name} must hold levels from 0 to {num_levels - 1}, not {bad}")


def check_labels(labels: Tensor | None, num_classes: int, batch_size: int) -> None:
    """Raise unless there is one label for each image, or none for an unconditional model."""
    if num_classes == 0:
        if labels is not None:
            raise ValueError("labels must be None: this model is unconditional (num_classes=0)")
        return
    if labels is None:
        raise ValueError(f"labels must be given: this model is conditional (num_classes={num_classes})")
    if not isinstance(labels, Tensor) or labels.dtype == torch.bool or labels.is_floating_point():
        raise TypeError(f"labels must be a tensor of integers, not {getattr(labels, 'dtype', type(labels).__name__)}")
    if labels.shape != (batch_size,):
        raise ValueError(f"labels must have shape ({batch_size},), one for each image, not {tuple(labels.shape)}")
    lowest, highest = extremes(labels)
    if lowest < 0 or highest >= num_classes:
        raise ValueError(f"labels must be from 0 to {num_classes - 1}, not {lowest if lowest < 0 else highest}")


class WindowModel(nn.Module):
    """The base of models that see a pixel's context window: the C tokens before it.

    A subclass implements `forward(context, position=None, label=None)`: windows (..., C) that may hold the start
    token K, the pixels' places in the image (...), and perhaps their images' labels (...), all int64, to logits
    (..., K). This class turns that into the two methods every model of the book has.

    Args:
        num_levels: the number K of grey levels, at least 2.
        image_size: height and width of the images; they have N = image_size ** 2 pixels.
        context_length: the number C of tokens in a window, at least 1.
        other: whatever else rebuilds the model; kept in `config`. With num_classes, at least 1, it is conditional.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(self, num_levels: int, image_size: int, context_length: int, **other):
        super().__init__()
        self.config = {"num_levels": num_levels, "image_size": image_size, "context_length": context_length, **other}
        for name in ("num_levels", "image_size", "context_length", "hidden_size", "num_classes"):
            lowest = 2 if name == "num_levels" else 1
            if self.config.get(name, lowest) < lowest:
                raise ValueError(f"{name} must be at least {lowest}, not {self.config[name]}")
        self.num_levels, self.image_size, self.context_length = num_levels, image_size, context_length
        self.num_classes = other.get("num_classes", 0)

    def image_logits(self, tokens: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits (B, N, K) of every pixel of whole images (B, N); those at i depend on tokens before i only.

        Raises:
            TypeError: tokens or labels are no integer tensors.
            ValueError: a shape or value is wrong, or labels are missing or not wanted.
        """
        batch_size, num_pixels = len(tokens), self.image_size**2
        check_tokens("tokens", tokens, self.num_levels, num_pixels, num_pixels)
        check_labels(labels, self.num_classes, batch_size)
        padded = F.pad(tokens.long(), (self.context_length, 0), value=self.num_levels)  # (B, C + N)
        context = padded.unfold(1, self.context_length, 1)[:, :-1]  # (B, N, C)
        position = torch.arange(num_pixels, device=tokens.device).expand(batch_size, -1)  # (B, N)
        label = None if labels is None else labels.long().unsqueeze(1).expand(-1, num_pixels)  # (B, N)
        return self(context, position, label)

    def next_logits(self, prefix: Tensor, labels: Tensor | None = None, cache: None = None) -> Tensor:
        """Logits (B, K) of pixel t, given the t pixels before it, prefix (B, t) with 0 <= t < N.

        A window is all that this model computes from, so there is nothing to cache.

        Raises:
            TypeError: prefix or labels are no integer tensors.
            ValueError: a shape or value is wrong, or labels are missing or not wanted.
        """
        check_tokens("prefix", prefix, self.num_levels, 0, self.image_size**2 - 1)
        check_labels(labels, self.num_classes, len(prefix))
        padded = F.pad(prefix.long(), (self.context_length, 0), value=self.num_levels)
        position = torch.full((len(prefix),), prefix.shape[1], device=prefix.device)
        return self(padded[:, -self.context_length :], position, None if labels is None else labels.long())


def mlp(input_size, hidden_size, output_size, dropout):
    """A perceptron with two hidden layers of ReLU units, each followed by dropout."""
    return nn.Sequential(
        nn.Linear(input_size, hidden_size),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_size, hidden_size),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_size, output_size),
    )


class OneHotMLP(WindowModel):
    """Predicts a pixel from the C tokens before it, as one-hot vectors."""

    def __init__(self, num_levels=16, image_size=28, context_length=28, hidden_size=1024, dropout=0.0):
        super().__init__(num_levels, image_size, context_length, hidden_size=hidden_size, dropout=dropout)
        self.layers = mlp(context_length * (num_levels + 1), hidden_size, num_levels, dropout)

    def forward(self, context, position=None, label=None):
        one_hot = F.one_hot(context, self.num_levels + 1)  # (..., C, K + 1)
        return self.layers(one_hot.flatten(-2).float())  # (..., K)


class PositionalMLP(WindowModel):
    """Predicts a pixel from its one-hot window and from learned vectors for its row and its column."""

    def __init__(
        self, num_levels=16, image_size=28, context_length=28, hidden_size=1024, dropout=0.0, position_size=32
    ):
        sizes = {"hidden_size": hidden_size, "dropout": dropout, "position_size": position_size}
        super().__init__(num_levels, image_size, context_length, **sizes)
        self.row_embedding = nn.Embedding(image_size, position_size)
        self.col_embedding = nn.Embedding(image_size, position_size)
        self.layers = mlp(context_length * (num_levels + 1) + 2 * position_size, hidden_size, num_levels, dropout)

    def forward(self, context, position=None, label=None):
        one_hot = F.one_hot(context, self.num_levels + 1).flatten(-2).float()  # (..., C * (K + 1))
        row = self.row_embedding(position // self.image_size)  # (..., 32)
        col = self.col_embedding(position % self.image_size)
        return self.layers(torch.cat([one_hot, row, col], dim=-1))  # (..., K)


class ConditionalMLP(WindowModel):
    """Predicts a pixel from learned vectors of its window's tokens, its row, its column and its image's class."""

    def __init__(
        self,
        num_levels=16,
        image_size=28,
        context_length=28,
        hidden_size=1024,
        dropout=0.0,
        num_classes=10,
        token_size=16,
        position_size=32,
        class_size=16,
    ):
        sizes = {"token_size": token_size, "position_size": position_size, "class_size": class_size}
        sizes |= {"hidden_size": hidden_size, "dropout": dropout}
        super().__init__(num_levels, image_size, context_length, num_classes=num_classes, **sizes)
        self.token_embedding = nn.Embedding(num_levels + 1, token_size)
        self.row_embedding = nn.Embedding(image_size, position_size)
        self.col_embedding = nn.Embedding(image_size, position_size)
        self.class_embedding = nn.Embedding(num_classes, class_size)
        input_size = context_length * token_size + 2 * position_size + class_size
        self.layers = mlp(input_size, hidden_size, num_levels, dropout)

    def forward(self, context, position=None, label=None):
        tokens = self.token_embedding(context).flatten(-2)  # (..., C * 16)
        row = self.row_embedding(position // self.image_size)  # (..., 32)
        col = self.col_embedding(position % self.image_size)
        return self.layers(torch.cat([tokens, row, col, self.class_embedding(label)], dim=-1))  # (..., K)
