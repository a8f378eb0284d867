"""The models of chapters 2 to 4: each predicts a pixel from its context window."""

import torch
import torch.nn.functional as F
from torch import nn

from .base import PixelModel


class WindowModel(PixelModel):
    """The base of models that see a pixel's context window: the C tokens before it.

    A subclass has `forward(context, position=None, label=None)`: windows (..., C) that
    may hold the start token K, the pixels' positions (...) and perhaps the labels of
    their images (...) to logits (..., K).
    """

    def __init__(self, num_levels, image_size, context_length, **other):
        sizes = {"num_levels": num_levels, "image_size": image_size}
        super().__init__(**sizes, context_length=context_length, **other)
        self.context_length = context_length

    def every_pixel(self, tokens, labels):
        return self.next_pixels(tokens, labels, None, 0)

    def next_pixels(self, tokens, labels, cache, first):
        length = self.context_length
        padded = F.pad(tokens, (length, 0), value=self.num_levels)  # (B, C + T)
        context = padded.unfold(1, length, 1)[:, first:-1]  # (B, T - first, C)
        position = torch.arange(first, tokens.shape[1], device=tokens.device)
        position = position.expand(len(tokens), -1)  # (B, T - first)
        label = None if labels is None else labels.unsqueeze(1).expand_as(position)
        return self(context, position, label)  # computed from the windows: no cache


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

    def __init__(
        self,
        num_levels=16,
        image_size=28,
        context_length=28,
        hidden_size=1024,
        dropout=0.0,
    ):
        sizes = {"hidden_size": hidden_size, "dropout": dropout}
        super().__init__(num_levels, image_size, context_length, **sizes)
        input_size = context_length * (num_levels + 1)
        self.layers = mlp(input_size, hidden_size, num_levels, dropout)

    def forward(self, context, position=None, label=None):
        one_hot = F.one_hot(context, self.num_levels + 1)  # (..., C, K + 1)
        numbers = one_hot.flatten(-2).type_as(self.layers[0].weight)
        return self.layers(numbers)  # (..., C * (K + 1)) to (..., K)


class PositionalMLP(WindowModel):
    """Predicts a pixel from its one-hot window and vectors of its row and column."""

    def __init__(
        self,
        num_levels=16,
        image_size=28,
        context_length=28,
        hidden_size=1024,
        dropout=0.0,
        position_size=32,
    ):
        sizes = {"hidden_size": hidden_size, "dropout": dropout}
        sizes["position_size"] = position_size
        super().__init__(num_levels, image_size, context_length, **sizes)
        self.row_embedding = nn.Embedding(image_size, position_size)
        self.col_embedding = nn.Embedding(image_size, position_size)
        input_size = context_length * (num_levels + 1) + 2 * position_size
        self.layers = mlp(input_size, hidden_size, num_levels, dropout)

    def forward(self, context, position=None, label=None):
        one_hot = F.one_hot(context, self.num_levels + 1)  # (..., C, K + 1)
        row = self.row_embedding(position // self.image_size)  # (..., 32)
        col = self.col_embedding(position % self.image_size)
        tokens = one_hot.flatten(-2).type_as(row)  # (..., C * (K + 1))
        return self.layers(torch.cat([tokens, row, col], dim=-1))  # (..., K)


class ConditionalMLP(WindowModel):
    """Predicts a pixel from vectors of its window's tokens, row, column and class."""

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
        sizes = {"hidden_size": hidden_size, "dropout": dropout}
        sizes |= {"token_size": token_size, "position_size": position_size}
        sizes |= {"class_size": class_size, "num_classes": num_classes}
        super().__init__(num_levels, image_size, context_length, **sizes)
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
        joined = torch.cat([tokens, row, col, self.class_embedding(label)], dim=-1)
        return self.layers(joined)  # (..., 528) to (..., K)
