"""The models of chapter 11: the same weights at every pixel, for what is around it."""

import torch
import torch.nn.functional as F
from torch import nn

from .transformer import CausalStem, SequenceModel


def masked_kernel(size, mask):
    """The steps (down, right) that mask A or B leaves of a size x size kernel."""
    reach = range(-(size // 2), size // 2 + 1)
    last = {"A": (0, -1), "B": (0, 0)}[mask]  # steps are compared in raster order
    return [(down, right) for down in reach for right in reach if (down, right) <= last]


def places_at(steps, image_size):
    """Where the steps lead from each pixel (N, n): a pixel's number + 1; 0: outside."""
    position = torch.arange(image_size**2).unsqueeze(1)  # (N, 1)
    down, right = torch.tensor(steps).T
    row, col = position // image_size + down, position % image_size + right  # (N, n)
    inside = (row >= 0) & (col >= 0) & (col < image_size)
    return torch.where(inside, row * image_size + col + 1, 0)


class Convolution(nn.Linear):
    """The same linear layer for every pixel, of the vectors at some steps from it."""

    def __init__(self, steps, image_size, width, output_size):
        super().__init__(len(steps) * width, output_size)
        places = places_at(steps, image_size)
        self.register_buffer("places", (places - 1).clamp(min=0), persistent=False)
        self.register_buffer("inside", (places > 0).unsqueeze(-1), persistent=False)

    def forward(self, x, start=0):
        places = self.places[start : x.shape[1]]  # (T, n): for pixels from `start` on
        near = x.index_select(1, places.flatten()).unflatten(1, places.shape)
        near = near * self.inside[start : x.shape[1]]  # (B, T, n, D), outside: 0
        return super().forward(near.flatten(2))  # (B, T, output_size)


def known(cache, owner, start, x):
    """The vectors of all pixels so far: those in the cache, and the new ones x."""
    return x if cache is None else cache.extend(owner, start, x)[0]


class TwoStackLayer(nn.Module):
    """A layer of both stacks: the horizontal stack hears from the vertical stack."""

    def __init__(self, image_size, num_classes, width, dilation, gates, dropout):
        super().__init__()
        self.gates, inner = gates, 2 * width if gates else width
        above = [(dilation * d, dilation * r) for d in (-1, 0) for r in (-1, 0, 1)]
        left = [(0, -2 * dilation), (0, -dilation), (0, 0)]
        self.vertical = Convolution(above, image_size, width, inner)
        self.horizontal = Convolution(left, image_size, width, inner)
        self.link = nn.Linear(inner, inner)
        self.class_embedding = nn.Embedding(max(num_classes, 1), inner)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.outputs = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def activate(self, x):
        if not self.gates:
            return F.relu(x)
        signal, gate = x.chunk(2, dim=-1)
        return torch.tanh(signal) * torch.sigmoid(gate)

    def forward(self, v, h, label, cache=None, first=0, start=0):
        told = self.class_embedding(label).unsqueeze(1)  # (B, 1, inner)
        near = known(cache, self.vertical, first, self.norms[0](v))
        above = self.vertical(near, first)  # for the new rows
        v = v + self.dropout(self.outputs[0](self.activate(above + told)))
        near = known(cache, self.horizontal, start, self.norms[1](h))
        left = self.horizontal(near, start)  # (B, T, inner), for the new pixels
        heard = known(cache, self.link, first, self.link(above))
        heard = heard[:, start : start + h.shape[1]]
        return v, h + self.dropout(self.outputs[1](self.activate(left + heard + told)))


class PixelCNN(SequenceModel):
    """Two stacks without a blind spot: one for the rows above, one for the pixel's row.

    The kernels of the layers are stretched by 1, 2, 4, ..., `dilations` values in turn.
    """

    def __init__(
        self,
        num_levels=16,
        image_size=28,
        num_classes=10,
        width=96,
        depth=12,
        dilations=3,
        gates=False,
        dropout=0.0,
    ):
        sizes = {"width": width, "depth": depth, "dilations": dilations}
        sizes |= {"gates": gates, "dropout": dropout}
        super().__init__(num_levels, image_size, num_classes, **sizes)
        near = masked_kernel(7, "A")
        above = [step for step in near if step < (0, -3)]  # of the rows above
        places = [places_at(steps, image_size) for steps in (above, near)]
        stems = [CausalStem(each, num_levels, width) for each in places]
        self.vertical_stem, self.horizontal_stem = stems
        self.layers = nn.ModuleList()
        for number in range(depth):
            sizes = image_size, num_classes, width, 2 ** (number % dilations)
            self.layers.append(TwoStackLayer(*sizes, gates, dropout))
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, num_levels)

    def forward(self, tokens, labels=None, cache=None):
        size, end = self.image_size, tokens.shape[1]
        start = 0 if cache is None else cache.length
        first, last = -(-start // size) * size, -(-end // size) * size  # new rows
        padded = F.pad(tokens[:, :-1], (1, 0), value=self.num_levels)  # (B, T)
        label = torch.zeros_like(padded[:, 0]) if labels is None else labels
        v = self.vertical_stem(padded, first, last)  # (B, last - first, D)
        h = self.horizontal_stem(padded, start, end)  # (B, T - start, D)
        for layer in self.layers:
            v, h = layer(v, h, label, cache, first, start)
        if cache is not None:
            cache.length = end
        return self.output(self.norm(h))  # (B, T - start, K)
