"""Models that a benchmark trains and only one chapter needs: the chapter shows them, and the package does without."""

import torch
import torch.nn.functional as F
from torch import nn

from ar_helpers.models.colours import channel_places
from ar_helpers.models.convolutions import Convolution, known, masked_kernel, places_at
from ar_helpers.models.transformer import (
    CausalStem,
    PixelTransformer,
    ResidualMLP,
    SequenceModel,
    Trunk,
    neighbour_places,
)
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


class ColourStem(CausalStem):
    """A stem for packed colours: each neighbour has a table for each channel.

    A start token, L**3, becomes red L, which no colour has, green 0 and blue 0.
    """

    def __init__(self, places, num_levels, width):
        levels = round(num_levels ** (1 / 3))
        assert levels**3 == num_levels, f"num_levels must be L**3, not {num_levels}"
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


class ChannelTransformer(PixelTransformer):
    """Chapter 5's transformer with a slot for each channel: red, green, blue."""

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
