"""The models that draw patch by patch, with a slot of a transformer for each patch."""

import torch
import torch.nn.functional as F
from torch import nn

from .base import Cache
from .transformer import Block, ResidualMLP, SequenceModel, Trunk


def patch_order(image_size, height, width):
    """The pixels (N,) of an image in the order of drawing, one patch after another."""
    fits = image_size % height == image_size % width == 0
    assert fits, f"{height} x {width} pixels do not divide image_size={image_size}"
    position = torch.arange(image_size**2)
    position = position.view(-1, height, image_size // width, width)
    return position.transpose(1, 2).flatten()


def patch_places(image_size, height, width):
    """The pixels (S, 4 P) of the four earlier patches that touch each patch.

    Each is a place in a row: the start token, then all pixels in the order of drawing.
    """
    cols, patch_size = image_size // width, height * width
    patch = torch.arange(image_size**2 // patch_size)
    places = []
    for down, right in [(0, -1), (-1, -1), (-1, 0), (-1, 1)]:
        row, col = patch // cols + down, patch % cols + right
        inside = (row >= 0) & (col >= 0) & (col < cols)
        if (down, right) == (0, -1):
            inside = patch > 0  # the patch just before, if need be on the row above
        begins = patch_size * (row * cols + col) + 1
        pixels = begins.unsqueeze(1) + torch.arange(patch_size)  # (S, P)
        places.append(torch.where(inside.unsqueeze(1), pixels, 0))  # 0: outside
    return torch.cat(places, dim=1)


class InnerHead(nn.Module):
    """Predicts a patch's pixels in turn, from its slot and those drawn before."""

    def __init__(self, num_levels, patch_size, width, dropout):
        super().__init__()
        telling = patch_size - 1  # the last pixel of a patch tells nobody
        tables = num_levels * torch.arange(telling)  # each pixel has a table of its own
        self.register_buffer("tables", tables, persistent=False)
        self.token_embedding = nn.Embedding(max(telling, 1) * num_levels, width)
        self.pixel_embedding = nn.Embedding(patch_size, width)  # which pixel it is
        self.mlp = ResidualMLP(width, dropout)
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, num_levels)
        nn.init.normal_(self.token_embedding.weight, std=0.15)
        nn.init.normal_(self.pixel_embedding.weight, std=0.5)

    def forward(self, slots, patches, wanted):
        told = self.token_embedding(patches[..., :-1] + self.tables)  # (B, S, P - 1, D)
        told = F.pad(told, (0, 0, 1, 0)).cumsum(2)  # (B, S, P, D): of all pixels before
        u = slots.unsqueeze(2) + self.pixel_embedding.weight + told
        u = self.mlp(u.flatten(1, 2)[:, wanted])  # (B, T, D)
        return self.output(self.norm(u))  # (B, T, K)


class IndependentHead(nn.Module):
    """Predicts a patch's pixels all at once, each without knowing the others."""

    def __init__(self, num_levels, patch_size, width):
        super().__init__()
        self.patch_size = patch_size
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, patch_size * num_levels)

    def forward(self, slots, patches, wanted):
        logits = self.output(self.norm(slots)).unflatten(2, (self.patch_size, -1))
        return logits.flatten(1, 2)[:, wanted]  # (B, S, P, K) to (B, T, K)


class PatchModel(SequenceModel):
    """The base of models that draw patch by patch: a slot of a transformer for each.

    A subclass has `head(slots, patches, wanted)`: slots (B, S, D) and their patches'
    tokens (B, S, P) to the logits (B, T, K) of the pixels with the numbers `wanted`.
    `order` (N,) holds the positions of the pixels in the order of drawing.
    """

    def __init__(self, patch_height, patch_width, **config):
        super().__init__(patch_height=patch_height, patch_width=patch_width, **config)
        self.patch_size = patch_height * patch_width
        order = patch_order(self.image_size, patch_height, patch_width)
        self.register_buffer("order", order, persistent=False)
        places = patch_places(self.image_size, patch_height, patch_width)
        grid = self.image_size // patch_height, self.image_size // patch_width
        sizes = {name: config[name] for name in ("width", "depth", "heads", "dropout")}
        self.trunk = Trunk(self.num_levels, self.num_classes, grid, places, **sizes)
        self.trunk.spread_embeddings()

    def forward(self, tokens, labels=None, cache=None):
        if cache is not None:  # the first T pixels, in the order of drawing
            return self.go_on(tokens, labels, cache)
        drawn = tokens[:, self.order]  # whole images
        padded = F.pad(drawn[:, :-1], (1, 0), value=self.num_levels)  # (B, N)
        patches = drawn.unflatten(1, (-1, self.patch_size))  # (B, S, P)
        slots = self.trunk(padded, labels, 0, patches.shape[1])  # (B, S, D)
        logits = self.head(slots, patches, slice(None))  # (B, N, K)
        return logits[:, self.order.argsort()]  # in raster order again

    def go_on(self, tokens, labels, cache):
        size, start, end = self.patch_size, cache.length, tokens.shape[1]
        begun, first, last = start // size, -(-start // size), -(-end // size)
        if first < last:  # the slots of patches first to last - 1 are new
            padded = F.pad(tokens[:, :-1], (1, 0), value=self.num_levels)
            new = self.trunk(padded, labels, first, last, cache)
            cache.extend(self, first, new)
        slots = cache.kept[self][0][:, begun:last]  # (B, S, D)
        patches = F.pad(tokens[:, begun * size :], (0, last * size - end))
        patches = patches.unflatten(1, (-1, size))  # (B, S, P)
        cache.length = end
        wanted = torch.arange(start, end, device=tokens.device) - begun * size
        return self.head(slots, patches, wanted)  # (B, T - start, K)

    def next_pixels(self, tokens, labels, cache, first):
        return super().next_pixels(tokens, labels, cache or Cache(), first)


class PatchTransformer(PatchModel):
    """Predicts an image patch by patch: a transformer, and a small head for pixels."""

    def __init__(
        self,
        num_levels=16,
        image_size=28,
        num_classes=10,
        patch_height=2,
        patch_width=2,
        independent=False,
        width=80,
        depth=3,
        heads=4,
        dropout=0.0,
    ):
        sizes = {"width": width, "depth": depth, "heads": heads, "dropout": dropout}
        sizes |= {"patch_height": patch_height, "patch_width": patch_width}
        sizes |= {"num_levels": num_levels, "image_size": image_size}
        super().__init__(num_classes=num_classes, independent=independent, **sizes)
        if independent:
            self.head = IndependentHead(num_levels, self.patch_size, width)
            self.groups = [self.patch_size] * (image_size**2 // self.patch_size)
        else:
            self.head = InnerHead(num_levels, self.patch_size, width, dropout)


class TransformerHead(nn.Module):
    """Predicts a patch's pixels one by one: a small transformer that knows its slot."""

    def __init__(
        self, num_levels, patch_size, slot_width, width, depth, heads, dropout
    ):
        super().__init__()
        self.num_levels = num_levels
        self.slot = nn.Sequential(
            nn.LayerNorm(slot_width), nn.Linear(slot_width, width)
        )
        self.token_embedding = nn.Embedding(num_levels + 1, width)  # K: none before it
        self.pixel_embedding = nn.Embedding(patch_size, width)  # which pixel it is
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, num_levels)
        for embedding in (self.token_embedding, self.pixel_embedding):
            nn.init.normal_(embedding.weight, std=0.5)  # about as large as the slot

    def forward(self, slots, patches, wanted):
        before = F.pad(patches[..., :-1], (1, 0), value=self.num_levels)  # (B, S, P)
        x = self.token_embedding(before) + self.pixel_embedding.weight  # (B, S, P, D)
        x = (x + self.slot(slots).unsqueeze(2)).flatten(0, 1)  # (B S, P, D)
        for block in self.blocks:
            x = block(x)  # every patch is a sequence of its own
        x = x.unflatten(0, slots.shape[:2]).flatten(1, 2)[:, wanted]  # (B, T, D)
        return self.output(self.norm(x))  # (B, T, K)


class NestedTransformer(PatchModel):
    """A transformer over patches, and a small transformer in each patch."""

    def __init__(
        self,
        num_levels=16,
        image_size=28,
        num_classes=10,
        patch_height=4,
        patch_width=4,
        width=80,
        depth=3,
        heads=4,
        inner_width=64,
        inner_depth=2,
        inner_heads=4,
        dropout=0.0,
    ):
        sizes = {"width": width, "depth": depth, "heads": heads, "dropout": dropout}
        sizes |= {"patch_height": patch_height, "patch_width": patch_width}
        sizes |= {"num_levels": num_levels, "image_size": image_size}
        inner = {"inner_width": inner_width, "inner_depth": inner_depth}
        inner["inner_heads"] = inner_heads
        super().__init__(num_classes=num_classes, **sizes, **inner)
        sizes = inner_width, inner_depth, inner_heads, dropout
        self.head = TransformerHead(num_levels, self.patch_size, width, *sizes)
