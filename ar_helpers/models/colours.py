"""The model of colours: a small transformer in each patch draws its channels."""

import torch

from .patches import NestedTransformer, TransformerHead, patch_places
from .transformer import CausalStem


def channel_places(pixels):
    """The places (S, 3 n) of all channels of the pixels at some places (S, n)."""
    first = 3 * (pixels.unsqueeze(-1) - 1) + torch.arange(1, 4)  # (S, n, 3)
    return torch.where(pixels.unsqueeze(-1) > 0, first, 0).flatten(1)  # 0: outside


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
