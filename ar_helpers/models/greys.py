"""The model of chapter 9: a transformer that knows grey levels as numbers."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .transformer import PixelTransformer, SequenceModel, Trunk, neighbour_places


def grey_curves(num_levels, count=16):
    """The levels as numbers: cosines of each level's grey value, from slow to fast."""
    value = (torch.arange(num_levels) + 0.5) / num_levels  # (K,)
    speed = torch.arange(min(count, num_levels))  # (C,)
    return torch.cos(math.pi * value.unsqueeze(1) * speed)  # (K, C)


class GreyStem(nn.Module):
    """A stem whose tables are curves over the grey scale, and a row for each level."""

    def __init__(self, places, num_levels, width):
        super().__init__()
        self.register_buffer("places", places, persistent=False)  # (S, n)
        count = places.shape[1]
        tables = (num_levels + 1) * torch.arange(count)  # (n,): where each table starts
        self.register_buffer("tables", tables, persistent=False)
        curves = F.pad(grey_curves(num_levels), (0, 2, 0, 1))  # with two more columns:
        curves[-1, -2] = 1  # the start token is no grey,
        curves[0, -1] = 1  # and black, the background, is more than a dark grey
        self.register_buffer("curves", curves, persistent=False)  # (K + 1, C)
        self.smooth = nn.Parameter(torch.randn(count, curves.shape[1], width) * 0.04)
        self.own = nn.Parameter(torch.zeros(count, num_levels + 1, width))

    def forward(self, padded, start, end):
        table = (self.curves @ self.smooth + self.own).flatten(0, 1)
        near = padded[:, self.places[start:end]] + self.tables  # (B, T, n)
        summed = F.embedding_bag(near.flatten(0, 1), table, mode="sum")
        return summed.unflatten(0, near.shape[:2])  # (B, T, D)


class GreyOutput(nn.Module):
    """Logits as curves over the grey scale, and weights of its own for each level."""

    def __init__(self, width, num_levels):
        super().__init__()
        self.register_buffer("curves", grey_curves(num_levels), persistent=False)
        self.own = nn.Parameter(torch.zeros(num_levels, width))
        self.bias = nn.Parameter(torch.zeros(num_levels))
        self.smooth = nn.Linear(width, self.curves.shape[1], bias=False)

    def forward(self, x):
        return F.linear(x, self.own, self.bias) + self.smooth(x) @ self.curves.T


class GreyTransformer(SequenceModel):
    """The transformer with a stem and an output that know levels as numbers."""

    def __init__(
        self,
        num_levels=256,
        image_size=28,
        num_classes=10,
        width=96,
        depth=2,
        heads=4,
        dropout=0.0,
    ):
        sizes = {"width": width, "depth": depth, "heads": heads, "dropout": dropout}
        super().__init__(num_levels, image_size, num_classes, **sizes)
        places = neighbour_places(image_size)
        grid = image_size, image_size
        self.trunk = Trunk(num_levels, num_classes, grid, places, **sizes)
        self.trunk.stem = GreyStem(places, num_levels, width)
        self.norm, self.output = nn.LayerNorm(width), GreyOutput(width, num_levels)
        self.trunk.spread_embeddings()

    forward = PixelTransformer.forward  # only the stem and the output are new
