"""Models that a benchmark trains and only one chapter needs: the chapter shows them, and the package does without."""

import torch
import torch.nn.functional as F
from torch import nn

from ar_helpers.models.convolutions import Convolution, known, masked_kernel, places_at
from ar_helpers.models.transformer import CausalStem, SequenceModel
from ar_helpers.models.windows import ConditionalMLP

# A window of 28 pixels, as steps down and right from the pixel to predict.
FOUR_ROWS = [(down, right) for down in (-3, -2, -1) for right in range(-3, 4)]
FOUR_ROWS += [(0, right) for right in range(-7, 0)]


class NeighbourhoodMLP(ConditionalMLP):
    """Chapter 4's MLP with a window in two dimensions."""

    def __init__(self, **sizes):
        super().__init__(**sizes)
        down, right = torch.tensor(FOUR_ROWS).T
        back = -(self.image_size * down + right)  # how many tokens back, from 1
        self.context_length = back.max().item()
        self.register_buffer("index", self.context_length - back, persistent=False)
        self.register_buffer("right", right, persistent=False)

    def forward(self, context, position=None, label=None):
        col = (position % self.image_size).unsqueeze(-1) + self.right  # (..., 28)
        inside = (col >= 0) & (col < self.image_size)
        near = torch.where(inside, context[..., self.index], self.num_levels)
        return super().forward(near, position, label)


class MaskedLayer(nn.Module):
    """A masked convolution that knows the class, with a residual connection."""

    def __init__(self, image_size, num_classes, width, dropout):
        super().__init__()
        self.norm, steps = nn.LayerNorm(width), masked_kernel(3, "B")
        self.convolution = Convolution(steps, image_size, width, width)
        self.class_embedding = nn.Embedding(max(num_classes, 1), width)
        self.output, self.dropout = nn.Linear(width, width), nn.Dropout(dropout)

    def forward(self, x, label, cache=None, start=0):
        seen = self.convolution(known(cache, self, start, self.norm(x)), start)
        told = self.class_embedding(label).unsqueeze(1)  # (B, 1, D)
        return x + self.dropout(self.output(F.relu(seen + told)))  # (B, T, D)


class MaskedPixelCNN(SequenceModel):
    """One masked convolution after another: the first with mask A, the rest with B."""

    def __init__(
        self,
        num_levels=16,
        image_size=28,
        num_classes=10,
        width=96,
        depth=12,
        dropout=0.0,
    ):
        sizes = {"width": width, "depth": depth, "dropout": dropout}
        super().__init__(num_levels, image_size, num_classes, **sizes)
        places = places_at(masked_kernel(7, "A"), image_size)
        self.stem = CausalStem(places, num_levels, width)
        sizes = image_size, num_classes, width, dropout
        self.layers = nn.ModuleList(MaskedLayer(*sizes) for _ in range(depth))
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, num_levels)

    def forward(self, tokens, labels=None, cache=None):
        padded = F.pad(tokens[:, :-1], (1, 0), value=self.num_levels)  # (B, T)
        start, end = 0 if cache is None else cache.length, tokens.shape[1]
        label = torch.zeros_like(padded[:, 0]) if labels is None else labels
        x = self.stem(padded, start, end)
        for layer in self.layers:
            x = layer(x, label, cache, start)
        if cache is not None:
            cache.length = end
        return self.output(self.norm(x))  # (B, T - start, K)


def on_canvas(model, image_size):
    """The same model for images of another size.

    Learned vectors belong to rows, columns or pixels. Those that were never learned are
    copies of the nearest row's, column's or pixel's. All other parts fit any size.
    """
    old, weights = model.image_size, dict(model.state_dict())
    nearest = torch.arange(image_size).clamp(max=old - 1)
    for name, weight in weights.items():
        if name.endswith(("row_embedding.weight", "col_embedding.weight")):
            weights[name] = weight[nearest]
        if name.endswith("position_embedding.weight"):
            weights[name] = weight[(old * nearest.unsqueeze(1) + nearest).flatten()]
    other = type(model)(**model.config | {"image_size": image_size})
    other.load_state_dict(weights)
    return other.to(next(model.parameters())).train(model.training)
