"""The models of chapter 12: ways to tell where a pixel is, and orders of drawing."""

import torch
import torch.nn.functional as F
from torch import nn

from .base import Cache
from .transformer import (
    Attention,
    Block,
    PixelTransformer,
    SequenceModel,
    Trunk,
    neighbour_places,
)

# Slot t holds pixel t - 1 and is to predict pixel t. So two pixels claim its position:
# the pixel that it holds, and its target. Slot 0 holds no pixel, which counts as -1.
POSITIONS = ("none", "learned_1d", "learned_2d", "sinusoidal_2d")
POSITIONS += ("rope_1d", "rope_2d", "rope_1d_column")


def wave_angles(number, count, base):
    """Angles (..., count): the first grows by a radian a step, the others slower."""
    speed = base ** (-torch.arange(count) / count)  # from 1 to nearly 1 / base
    return number.unsqueeze(-1) * speed


class AddedPosition(nn.Module):
    """A vector (..., D) for each position (...), to be added to slots; or nothing."""

    def __init__(self, positions, image_size, width, base=10_000):
        super().__init__()
        self.positions, self.image_size = positions, image_size
        if positions == "learned_1d":
            self.position_embedding = nn.Embedding(image_size**2, width)
            nn.init.normal_(self.position_embedding.weight, std=0.7)  # as row + column
        if positions == "learned_2d":
            self.row_embedding = nn.Embedding(image_size, width)
            nn.init.normal_(self.row_embedding.weight, std=0.5)
        if positions in ("learned_2d", "rope_1d_column"):
            self.col_embedding = nn.Embedding(image_size, width)
            nn.init.normal_(self.col_embedding.weight, std=0.5)
        if positions == "sinusoidal_2d":
            assert width % 4 == 0, f"4 does not divide width={width}"
            angles = wave_angles(torch.arange(image_size), width // 4, base)
            waves = torch.cat([angles.sin(), angles.cos()], dim=-1)  # (H, D / 2)
            self.register_buffer("waves", waves, persistent=False)

    def forward(self, position):
        position = position.clamp(min=0)  # slot 0 may hold no pixel: as if the first
        row, col = position // self.image_size, position % self.image_size
        if self.positions == "learned_1d":
            return self.position_embedding(position)
        if self.positions == "learned_2d":
            return self.row_embedding(row) + self.col_embedding(col)
        if self.positions == "sinusoidal_2d":  # half the width for each
            return torch.cat([self.waves[row], self.waves[col]], dim=-1)
        if self.positions == "rope_1d_column":
            return self.col_embedding(col)
        return 0.0  # "none", "rope_1d", "rope_2d": nothing to add


def rotate(x, angles):
    """Turn each pair (x[i], x[i + d/2]) of vectors (..., T, d) by an angle (T, d/2)."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).type_as(x)


def rotary_angles(positions, position, image_size, pairs, base):
    """The angles (T, pairs) by which the pairs of a head turn at positions (T,)."""
    if positions != "rope_2d":
        return wave_angles(position, pairs, base)
    assert pairs % 2 == 0, f"rope_2d wants an even number of pairs, not {pairs}"
    row, col = position // image_size, position.fmod(image_size)  # of -1: -1 and -1
    angles = [wave_angles(number, pairs // 2, base) for number in (row, col)]
    return torch.cat(angles, dim=-1)  # half the pairs turn with the row


class RotaryAttention(Attention):
    """Chapter 5's attention, with queries and keys that turn with their positions."""

    def __init__(self, width, heads, dropout, query_angles, key_angles):
        super().__init__(width, heads, dropout)
        self.register_buffer("query_angles", query_angles, persistent=False)  # (N, d/2)
        self.register_buffer("key_angles", key_angles, persistent=False)

    def forward(self, x, cache=None, start=0):
        joined = self.query_key_value(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = joined.permute(2, 0, 3, 1, 4)  # (B, heads, T, d) each
        now = slice(start, start + x.shape[1])
        query = rotate(query, self.query_angles[now])  # new
        key = rotate(key, self.key_angles[now])  # new: the cache holds turned keys
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


class PositionedTrunk(Trunk):
    """Chapter 5's trunk, with other ways to tell slots their position and the class.

    `told` (N,) holds the pixel whose position is added to each slot.
    """

    def __init__(self, added, told, label_as, *sizes):
        super().__init__(*sizes)
        del self.row_embedding, self.col_embedding  # `added` has its own
        self.added, self.label_as = added, label_as
        self.register_buffer("told", told, persistent=False)
        if label_as == "pixel":
            del self.class_embedding  # the class is a token among others
        else:
            nn.init.normal_(self.class_embedding.weight, std=0.5)

    def forward(self, padded, labels, start, end, cache=None):
        if self.label_as == "pixel" and labels is not None:
            padded[:, 1:2] = labels.unsqueeze(1)  # in place of pixel 0
        x = self.stem(padded, start, end)  # (B, T, D), T = end - start
        if self.label_as == "token" and start == 0:  # the class stands in front
            label = torch.zeros_like(padded[:, 0]) if labels is None else labels
            x = torch.cat([self.class_embedding(label).unsqueeze(1), x[:, 1:]], dim=1)
        if self.label_as == "added" and labels is not None:
            x = x + self.class_embedding(labels).unsqueeze(1)
        x = self.stem_mlp(x + self.added(self.told[start:end]))
        for block in self.blocks:
            x = block(x, cache, start)
        return x  # (B, T, D)


class PositionedTransformer(PixelTransformer):
    """Chapter 5's model with a choice of how it is told positions and the class.

    `target`: the added vector and the queries of RoPE speak of the pixel to predict, or
    of the pixel that a slot holds. Keys always turn with the pixel that a slot holds.
    `label_as`: "token" in slot 0; "added" to every slot; "pixel": in place of pixel 0,
    which is then drawn and scored without the label, and told to nobody.
    """

    def __init__(
        self,
        num_levels=16,
        image_size=28,
        num_classes=10,
        width=128,
        depth=4,
        heads=4,
        positions="learned_2d",
        base=10_000,
        target=True,
        label_as="token",
        stem=True,
        dropout=0.0,
    ):
        sizes = {"width": width, "depth": depth, "heads": heads, "dropout": dropout}
        super().__init__(num_levels, image_size, num_classes, stem=stem, **sizes)
        chosen = {"positions": positions, "base": base, "target": target}
        self.config |= chosen | {"label_as": label_as}
        assert positions in POSITIONS, f"positions={positions} is unknown"
        assert label_as in ("token", "added", "pixel"), f"label_as={label_as}?"
        assert label_as != "pixel" or num_classes <= num_levels, "labels are no levels"
        held = torch.arange(-1, image_size**2 - 1)  # (N,): the pixel in each slot
        told = held + 1 if target else held
        added = AddedPosition(positions, image_size, width, base)
        places = neighbour_places(image_size) if stem else None
        about = num_levels, num_classes, (image_size, image_size), places
        self.trunk = PositionedTrunk(added, told, label_as, *about, *sizes.values())
        if positions.startswith("rope"):
            pairs = width // heads // 2
            query, key = (
                rotary_angles(positions, each, image_size, pairs, base)
                for each in (told, held)
            )
            for block in self.trunk.blocks:
                block.attention = RotaryAttention(width, heads, dropout, query, key)


def order_of(name, image_size):
    """The positions (N,) of the pixels in an order of drawing with this name."""
    position = torch.arange(image_size**2).view(image_size, image_size)
    if name == "columns":
        position = position.T
    if name == "serpentine":  # every second row from right to left
        position[1::2] = position[1::2].flip(1)
    return position.flatten()


class AnyOrderTrunk(nn.Module):
    """Slots that know which pixel they hold, and which pixel they are to predict."""

    def __init__(self, num_tokens, image_size, width, depth, heads, dropout):
        super().__init__()
        self.token_embedding = nn.Embedding(num_tokens, width)
        nn.init.normal_(self.token_embedding.weight, std=0.5)  # as a row's or column's
        self.held = AddedPosition("learned_2d", image_size, width)
        self.target = AddedPosition("learned_2d", image_size, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))

    def forward(self, padded, order, start, end, cache=None):
        held = F.pad(order[:, :-1], (1, 0))  # (B, N): the class counts as pixel 0
        x = self.token_embedding(padded[:, start:end])  # (B, T, D), T = end - start
        x = x + self.held(held[:, start:end]) + self.target(order[:, start:end])
        for block in self.blocks:
            x = block(x, cache, start)
        return x  # (B, T, D)


class AnyOrderTransformer(SequenceModel):
    """Predicts an image's pixels in any order.

    With order "random", each image of a training step comes in an order of its own.
    `order` (N,), for drawing and scoring, is then raster order until another is set.
    The model can also learn a single order: "raster", "columns" or "serpentine".
    """

    def __init__(
        self,
        num_levels=16,
        image_size=28,
        num_classes=10,
        width=128,
        depth=4,
        heads=4,
        order="random",
        dropout=0.0,
    ):
        sizes = {"width": width, "depth": depth, "heads": heads, "dropout": dropout}
        super().__init__(num_levels, image_size, num_classes, order=order, **sizes)
        assert order in ("random", "raster", "columns", "serpentine"), f"order={order}?"
        self.any_order = order == "random"
        self.register_buffer("order", order_of(order, image_size), persistent=False)
        num_tokens = num_levels + max(num_classes, 1)  # each class is a token too
        self.trunk = AnyOrderTrunk(num_tokens, image_size, *sizes.values())
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, num_levels)

    def forward(self, tokens, labels=None, cache=None):
        order = self.order.expand(len(tokens), -1)  # (B, N)
        if self.training and self.any_order:
            order = torch.rand(order.shape, device=order.device).argsort(dim=1)
        drawn = tokens.gather(1, order) if cache is None else tokens
        start, end = 0 if cache is None else cache.length, tokens.shape[1]
        label = torch.zeros_like(order[:, 0]) if labels is None else labels
        label = self.num_levels + label.unsqueeze(1)  # (B, 1): its token
        padded = torch.cat([label, drawn[:, :-1]], dim=1)  # (B, T)
        logits = self.output(self.norm(self.trunk(padded, order, start, end, cache)))
        if cache is None:  # whole images come and go in raster order
            return logits.take_along_dim(order.argsort(dim=1).unsqueeze(2), dim=1)
        cache.length = end
        return logits  # (B, T - start, K), in the order of drawing

    def next_pixels(self, tokens, labels, cache, first):
        return super().next_pixels(tokens, labels, cache or Cache(), first)
