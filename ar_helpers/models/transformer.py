"""The model of chapter 5: a transformer over all pixels before the one to predict."""

import torch
import torch.nn.functional as F
from torch import nn

from .base import PixelModel


class SequenceModel(PixelModel):
    """The base of models that see all the tokens before a pixel.

    A subclass has `forward(tokens, labels=None, cache=None)`: pixels (B, T) and labels
    (B,) to logits (B, T, K), each from the pixels before it. With a cache, it computes
    what is not there yet, adds that, and returns the logits of those pixels only.
    """

    def __init__(self, num_levels, image_size, num_classes, **other):
        sizes = {"num_levels": num_levels, "image_size": image_size}
        sizes["num_classes"] = num_classes  # 0: the model is not conditional
        super().__init__(fewest_classes=0, **sizes, **other)

    def every_pixel(self, tokens, labels):
        return self(tokens, labels)

    def next_pixels(self, tokens, labels, cache, first):
        return self(tokens, labels, cache)[:, first - tokens.shape[1] :]


class Attention(nn.Module):
    """Every slot gathers what it needs from itself and the slots before it."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        assert width % heads == 0, f"heads={heads} does not divide width={width}"
        self.heads, self.dropout = heads, dropout
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x, cache=None, start=0):
        joined = self.query_key_value(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = joined.permute(2, 0, 3, 1, 4)  # (B, heads, T, d) each
        if cache is not None:
            key, value = cache.extend(self, start, key, value)
        new, total = query.shape[2], key.shape[2]
        mask = None  # a single new slot may look at all
        if 1 < new < total:  # several that join a cache need a mask of their own
            mask = query.new_ones(new, total, dtype=torch.bool).tril(total - new)
        options = {"dropout_p": self.dropout if self.training else 0.0}
        options |= {"attn_mask": mask, "is_causal": new == total}
        gathered = F.scaled_dot_product_attention(query, key, value, **options)
        return self.output(gathered.transpose(1, 2).flatten(2))  # (B, T, D)


class ResidualMLP(nn.Module):
    """An MLP on each slot, with layer norm before and a residual connection around."""

    def __init__(self, width, dropout):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return x + self.dropout(self.layers(self.norm(x)))  # (B, T, D)


class Block(nn.Module):
    """A layer of a transformer: attention between the slots, then an MLP on each."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.mlp = ResidualMLP(width, dropout)

    def forward(self, x, cache=None, start=0):
        x = x + self.dropout(self.attention(self.norm(x), cache, start))
        return self.mlp(x)  # (B, T, D)


# The pixels that the stem looks at: steps down and right from the pixel to predict.
NEIGHBOURS = [(0, -3), (0, -2), (0, -1)]
NEIGHBOURS += [(row, col) for row in (-2, -1) for col in (-2, -1, 0, 1, 2)]


def neighbour_places(image_size):
    """Each pixel's neighbours (N, 13), as places in a row that a start token begins."""
    position = torch.arange(image_size**2)
    places = []
    for down, right in NEIGHBOURS:
        row, col = position // image_size + down, position % image_size + right
        inside = (row >= 0) & (col >= 0) & (col < image_size)
        if (down, right) == (0, -1):
            inside[:] = True  # the pixel just before, if need be on the row above
        place = row * image_size + col + 1
        places.append(torch.where(inside, place, 0))  # 0: the start token, for outside
    return torch.stack(places, dim=1)


class CausalStem(nn.Module):
    """Looks at a few earlier pixels near the one to predict, in front of attention."""

    def __init__(self, places, num_levels, width):
        super().__init__()
        self.register_buffer("places", places, persistent=False)  # (S, n)
        count = places.shape[1]  # of the neighbours: each has a table of its own
        tables = (num_levels + 1) * torch.arange(count)  # (n,): where it starts
        self.register_buffer("tables", tables, persistent=False)
        size = count * (num_levels + 1)
        self.token_embedding = nn.EmbeddingBag(size, width, mode="sum")
        nn.init.normal_(self.token_embedding.weight, std=0.15)  # the sum of 13: 0.5

    def forward(self, padded, start, end):
        near = padded[:, self.places[start:end]] + self.tables  # (B, T, n), tokens
        summed = self.token_embedding(near.flatten(0, 1))
        return summed.unflatten(0, near.shape[:2])  # (B, T, D)


class PreviousPixel(nn.Module):
    """Looks at the pixel just before only, as a learned vector."""

    def __init__(self, num_levels, width):
        super().__init__()
        self.token_embedding = nn.Embedding(num_levels + 1, width)

    def forward(self, padded, start, end):
        return self.token_embedding(padded[:, start:end])  # (B, T, D)


class Trunk(nn.Module):
    """A transformer without its output: slots that know the class and what came before.

    The slots stand for the cells of a grid of rows and columns. `places` (S, n) says
    where each slot's stem looks in a row of the start token and the pixels; None: at
    the one just before.
    """

    def __init__(
        self, num_levels, num_classes, grid, places, width, depth, heads, dropout
    ):
        super().__init__()
        (rows, self.cols), self.positions = grid, "learned_2d"
        self.class_embedding = nn.Embedding(max(num_classes, 1), width)
        self.row_embedding = nn.Embedding(rows, width)
        self.col_embedding = nn.Embedding(self.cols, width)
        if places is None:
            self.stem, self.stem_mlp = PreviousPixel(num_levels, width), nn.Identity()
        else:
            self.stem = CausalStem(places, num_levels, width)
            self.stem_mlp = ResidualMLP(width, dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))

    def spread_embeddings(self):
        for embedding in (self.class_embedding, self.row_embedding, self.col_embedding):
            nn.init.normal_(embedding.weight, std=0.5)  # as large as the stem's sum

    def forward(self, padded, labels, start, end, cache=None):
        x = self.stem(padded, start, end)  # (B, T, D), T = end - start
        if start == 0:  # the class stands in front
            label = torch.zeros_like(padded[:, 0]) if labels is None else labels
            x = torch.cat([self.class_embedding(label).unsqueeze(1), x[:, 1:]], dim=1)
        if self.positions == "learned_2d":
            slot = torch.arange(start, end, device=x.device)
            x = x + self.row_embedding(slot // self.cols)
            x = x + self.col_embedding(slot % self.cols)
        x = self.stem_mlp(x)
        for block in self.blocks:
            x = block(x, cache, start)
        return x  # (B, T, D)


class PixelTransformer(SequenceModel):
    """Predicts a pixel from all the pixels before it and perhaps the image's class."""

    def __init__(
        self,
        num_levels=16,
        image_size=28,
        num_classes=10,
        width=128,
        depth=4,
        heads=4,
        positions="learned_2d",
        stem=True,
        dropout=0.0,
    ):
        sizes = {"width": width, "depth": depth, "heads": heads, "dropout": dropout}
        other = {"positions": positions, "stem": stem}
        super().__init__(num_levels, image_size, num_classes, **sizes, **other)
        assert positions in ("learned_2d", "none"), f"positions={positions} is unknown"
        places = neighbour_places(image_size) if stem else None
        grid = image_size, image_size
        self.trunk = Trunk(num_levels, num_classes, grid, places, **sizes)
        self.trunk.positions = positions
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, num_levels)
        self.trunk.spread_embeddings()

    def forward(self, tokens, labels=None, cache=None):
        padded = F.pad(tokens[:, :-1], (1, 0), value=self.num_levels)  # (B, T)
        start, end = 0 if cache is None else cache.length, tokens.shape[1]
        x = self.trunk(padded, labels, start, end, cache)
        if cache is not None:
            cache.length = end
        return self.output(self.norm(x))  # (B, T - start, K)
