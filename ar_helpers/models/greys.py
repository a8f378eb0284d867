"""The model of chapter 9 for fine grey levels: it also knows them as numbers."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .transformer import CausalStem, PixelTransformer, neighbour_places


def grey_waves(num_levels, count):
    """Cosines over the scale from black to white (K, count), the slowest first."""
    grey = (torch.arange(num_levels) + 0.5) / num_levels  # (K,), between 0 and 1
    return torch.cos(math.pi * torch.outer(grey, torch.arange(count)))


class GreyStem(CausalStem):
    """Looks up each neighbour in its table, and also reads the waves of its grey."""

    def __init__(self, places, num_levels, width, waves):
        super().__init__(places, num_levels, width)
        values = F.pad(grey_waves(num_levels, waves), (0, 0, 0, 1))  # start token: 0
        self.register_buffer("waves", values, persistent=False)  # (K + 1, waves)
        self.linear = nn.Linear(places.shape[1] * waves, width, bias=False)

    def forward(self, padded, start, end):
        near = self.waves[padded[:, self.places[start:end]]]  # (B, T, n, waves)
        smooth = self.linear(near.flatten(2))
        return smooth + super().forward(padded, start, end)  # (B, T, D)


class GreyOutput(nn.Linear):
    """A linear layer whose rows are smooth in the grey level but for corrections."""

    def __init__(self, width, num_levels, waves):
        super().__init__(width, num_levels)
        self.register_buffer("waves", grey_waves(num_levels, waves), persistent=False)
        self.smooth = nn.Parameter(torch.zeros(waves, width))

    def forward(self, x):
        weight = self.weight + self.waves @ self.smooth  # (K, D)
        return F.linear(x, weight, self.bias)


class GreyTransformer(PixelTransformer):
    """A pixel transformer that is told how bright a level is, not only its name.

    `waves` numbers describe a level. The other sizes are those of a PixelTransformer.
    """

    def __init__(
        self, num_levels=256, image_size=28, num_classes=10, waves=32, **sizes
    ):
        super().__init__(num_levels, image_size, num_classes, **sizes)
        assert waves >= 1, f"waves={waves} is less than 1"
        self.config["waves"] = int(waves)
        width, places = self.config["width"], neighbour_places(image_size)
        if self.config["stem"]:
            self.trunk.stem = GreyStem(places, num_levels, width, waves)
        self.output = GreyOutput(width, num_levels, waves)
