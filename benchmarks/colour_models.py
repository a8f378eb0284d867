"""Models of colour images, for chapter 13."""

import torch

from ar_helpers.models.patches import NestedTransformer, TransformerHead, patch_places
from ar_helpers.models.transformer import (
    CausalStem,
    PixelTransformer,
    ResidualMLP,
    Trunk,
    neighbour_places,
)


class ColourStem(CausalStem):
    """A stem for packed colours: each neighbour has a table for each channel.

    A start token, L**3, counts as red L, which no colour has, and no green or blue.
    """

    def __init__(self, places, num_levels, width):
        levels = round(num_levels ** (1 / 3))
        three = 3 * places.unsqueeze(-1) + torch.arange(3)  # (S, n, 3)
        super().__init__(three.flatten(1), levels, width)
        self.levels = levels

    def forward(self, padded, start, end):
        red, rest = padded // self.levels**2, padded % self.levels**2
        green, blue = rest // self.levels, rest % self.levels
        channels = torch.stack([red, green, blue], dim=-1)  # (B, T, 3)
        return super().forward(channels.flatten(1), start, end)


class ColourTransformer(PixelTransformer):
    """Chapter 5's transformer for packed colours, a token for each pixel."""

    def __init__(self, num_levels=4096, image_size=32, num_classes=16, **sizes):
        super().__init__(num_levels, image_size, num_classes, stem=False, **sizes)
        del self.config["stem"], self.config["positions"]  # there is no choice
        width, places = self.config["width"], neighbour_places(image_size)
        self.trunk.stem = ColourStem(places, num_levels, width)
        self.trunk.stem_mlp = ResidualMLP(width, self.config["dropout"])


def channel_places(pixels):
    """The places (S, 3 n) of all channels of the pixels at some places (S, n)."""
    first = 3 * (pixels.unsqueeze(-1) - 1) + torch.arange(1, 4)  # (S, n, 3)
    return torch.where(pixels.unsqueeze(-1) > 0, first, 0).flatten(1)  # 0: outside


class ChannelTransformer(PixelTransformer):
    """Chapter 5's transformer with a slot for each channel: red, green, blue, in turn."""

    channels = 3

    def __init__(self, num_levels=16, image_size=32, num_classes=16, **sizes):
        super().__init__(num_levels, image_size, num_classes, stem=False, **sizes)
        del self.config["stem"], self.config["positions"]  # there is no choice
        near = channel_places(neighbour_places(image_size)).repeat_interleave(3, dim=0)
        slot = torch.arange(3 * image_size**2).unsqueeze(1)  # (3 N, 1)
        own = slot - slot % 3 + torch.arange(1, 3)  # red and green of the same pixel
        places = torch.cat([near, torch.where(own <= slot, own, 0)], dim=1)
        grid = image_size, 3 * image_size  # each channel has a column of its own
        names = "width", "depth", "heads", "dropout"
        sizes = [self.config[name] for name in names]
        self.trunk = Trunk(num_levels, num_classes, grid, places, *sizes)
        self.trunk.spread_embeddings()


class NestedColourTransformer(NestedTransformer):
    """Chapter 8's model in a model, with a token for each channel of each pixel."""

    channels = 3

    def __init__(
        self,
        num_levels=16,
        image_size=32,
        num_classes=16,
        patch_height=2,
        patch_width=2,
        **sizes,
    ):
        sizes |= {"patch_height": patch_height, "patch_width": patch_width}
        super().__init__(num_levels, image_size, num_classes, **sizes)
        self.patch_size *= 3
        self.order = (3 * self.order.unsqueeze(1) + torch.arange(3)).flatten()  # (3 N,)
        places = channel_places(patch_places(image_size, patch_height, patch_width))
        width, dropout = self.config["width"], self.config["dropout"]
        self.trunk.stem = CausalStem(places, num_levels, width)
        inner = [self.config[f"inner_{name}"] for name in ("width", "depth", "heads")]
        self.head = TransformerHead(num_levels, self.patch_size, width, *inner, dropout)
