"""The book's models. Each chapter builds one of them in its own cells, which a test holds equal to this file."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def extremes(values: Tensor) -> tuple[int, int]:
    """The lowest and the highest value as Python ints (a uint8 tensor cannot be compared with 256), 0 when empty."""
    return (int(values.min()), int(values.max())) if values.numel() else (0, 0)


def check_tokens(name: str, tokens: Tensor, num_levels: int, min_pixels: int, max_pixels: int) -> None:
    """Raise unless tokens are integers from 0 to num_levels - 1 of shape (B, t), min_pixels <= t <= max_pixels."""
    if not isinstance(tokens, Tensor) or tokens.dtype == torch.bool or tokens.is_floating_point():
        raise TypeError(f"{name} must be a tensor of integers, not {getattr(tokens, 'dtype', type(tokens).__name__)}")
    if tokens.dim() != 2 or not min_pixels <= tokens.shape[1] <= max_pixels:
        wanted = f"(B, {max_pixels})" if min_pixels == max_pixels else f"(B, t), t from {min_pixels} to {max_pixels}"
        raise ValueError(f"{name} must have shape {wanted}, not {tuple(tokens.shape)}")
    lowest, highest = extremes(tokens)
    if lowest < 0 or highest >= num_levels:
        bad = lowest if lowest < 0 else highest
        raise ValueError(f"{name} must hold levels from 0 to {num_levels - 1}, not {bad}")


def check_labels(labels: Tensor | None, num_classes: int, batch_size: int) -> None:
    """Raise unless there is one label for each image, or none for an unconditional model."""
    if num_classes == 0:
        if labels is not None:
            raise ValueError("labels must be None: this model is unconditional (num_classes=0)")
        return
    if labels is None:
        raise ValueError(f"labels must be given: this model is conditional (num_classes={num_classes})")
    if not isinstance(labels, Tensor) or labels.dtype == torch.bool or labels.is_floating_point():
        raise TypeError(f"labels must be a tensor of integers, not {getattr(labels, 'dtype', type(labels).__name__)}")
    if labels.shape != (batch_size,):
        raise ValueError(f"labels must have shape ({batch_size},), one for each image, not {tuple(labels.shape)}")
    lowest, highest = extremes(labels)
    if lowest < 0 or highest >= num_classes:
        raise ValueError(f"labels must be from 0 to {num_classes - 1}, not {lowest if lowest < 0 else highest}")


def check_sizes(config: dict, **lowest: int) -> None:
    """Raise unless the numbers that size a model are at least `lowest` of their name: else 1, but 2 grey levels."""
    lowest = {"num_levels": 2, "dropout": 0} | lowest
    for name, value in config.items():
        if not isinstance(value, (bool, str)) and value < lowest.get(name, 1):
            raise ValueError(f"{name} must be at least {lowest.get(name, 1)}, not {value}")


class WindowModel(nn.Module):
    """The base of models that see a pixel's context window: the C tokens before it.

    A subclass implements `forward(context, position=None, label=None)`: windows (..., C) that may hold the start
    token K, the pixels' places in the image (...), and perhaps their images' labels (...), all int64, to logits
    (..., K). This class turns that into the two methods every model of the book has.

    Args:
        num_levels: the number K of grey levels, at least 2.
        image_size: height and width of the images; they have N = image_size ** 2 pixels.
        context_length: the number C of tokens in a window, at least 1.
        other: whatever else rebuilds the model; kept in `config`. With num_classes, at least 1, it is conditional.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(self, num_levels: int, image_size: int, context_length: int, **other):
        super().__init__()
        self.config = {"num_levels": num_levels, "image_size": image_size, "context_length": context_length, **other}
        check_sizes(self.config)
        self.num_levels, self.image_size, self.context_length = num_levels, image_size, context_length
        self.num_classes = other.get("num_classes", 0)

    def image_logits(self, tokens: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits (B, N, K) of every pixel of whole images (B, N); those at i depend on tokens before i only.

        Raises:
            TypeError: tokens or labels are no integer tensors.
            ValueError: a shape or value is wrong, or labels are missing or not wanted.
        """
        batch_size, num_pixels = len(tokens), self.image_size**2
        check_tokens("tokens", tokens, self.num_levels, num_pixels, num_pixels)
        check_labels(labels, self.num_classes, batch_size)
        padded = F.pad(tokens.long(), (self.context_length, 0), value=self.num_levels)  # (B, C + N)
        context = padded.unfold(1, self.context_length, 1)[:, :-1]  # (B, N, C)
        position = torch.arange(num_pixels, device=tokens.device).expand(batch_size, -1)  # (B, N)
        label = None if labels is None else labels.long().unsqueeze(1).expand(-1, num_pixels)  # (B, N)
        return self(context, position, label)

    def next_logits(self, prefix: Tensor, labels: Tensor | None = None, cache: "Cache | None" = None) -> Tensor:
        """Logits (B, K) of pixel t, given the t pixels before it, prefix (B, t) with 0 <= t < N.

        A window is all that this model computes from, so there is nothing to cache.

        Raises:
            TypeError: prefix or labels are no integer tensors.
            ValueError: a shape or value is wrong, or labels are missing or not wanted.
        """
        check_tokens("prefix", prefix, self.num_levels, 0, self.image_size**2 - 1)
        check_labels(labels, self.num_classes, len(prefix))
        padded = F.pad(prefix.long(), (self.context_length, 0), value=self.num_levels)
        position = torch.full((len(prefix),), prefix.shape[1], device=prefix.device)
        return self(padded[:, -self.context_length :], position, None if labels is None else labels.long())


def mlp(input_size, hidden_size, output_size, dropout):
    """A perceptron with two hidden layers of ReLU units, each followed by dropout."""
    return nn.Sequential(
        nn.Linear(input_size, hidden_size),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_size, hidden_size),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_size, output_size),
    )


class OneHotMLP(WindowModel):
    """Predicts a pixel from the C tokens before it, as one-hot vectors."""

    def __init__(self, num_levels=16, image_size=28, context_length=28, hidden_size=1024, dropout=0.0):
        super().__init__(num_levels, image_size, context_length, hidden_size=hidden_size, dropout=dropout)
        self.layers = mlp(context_length * (num_levels + 1), hidden_size, num_levels, dropout)

    def forward(self, context, position=None, label=None):
        one_hot = F.one_hot(context, self.num_levels + 1)  # (..., C, K + 1)
        return self.layers(one_hot.flatten(-2).float())  # (..., K)


class PositionalMLP(WindowModel):
    """Predicts a pixel from its one-hot window and from learned vectors for its row and its column."""

    def __init__(
        self, num_levels=16, image_size=28, context_length=28, hidden_size=1024, dropout=0.0, position_size=32
    ):
        sizes = {"hidden_size": hidden_size, "dropout": dropout, "position_size": position_size}
        super().__init__(num_levels, image_size, context_length, **sizes)
        self.row_embedding = nn.Embedding(image_size, position_size)
        self.col_embedding = nn.Embedding(image_size, position_size)
        self.layers = mlp(context_length * (num_levels + 1) + 2 * position_size, hidden_size, num_levels, dropout)

    def forward(self, context, position=None, label=None):
        one_hot = F.one_hot(context, self.num_levels + 1).flatten(-2).float()  # (..., C * (K + 1))
        row = self.row_embedding(position // self.image_size)  # (..., 32)
        col = self.col_embedding(position % self.image_size)
        return self.layers(torch.cat([one_hot, row, col], dim=-1))  # (..., K)


class ConditionalMLP(WindowModel):
    """Predicts a pixel from learned vectors of its window's tokens, its row, its column and its image's class."""

    def __init__(
        self,
        num_levels=16,
        image_size=28,
        context_length=28,
        hidden_size=1024,
        dropout=0.0,
        num_classes=10,
        token_size=16,
        position_size=32,
        class_size=16,
    ):
        sizes = {"token_size": token_size, "position_size": position_size, "class_size": class_size}
        sizes |= {"hidden_size": hidden_size, "dropout": dropout}
        super().__init__(num_levels, image_size, context_length, num_classes=num_classes, **sizes)
        self.token_embedding = nn.Embedding(num_levels + 1, token_size)
        self.row_embedding = nn.Embedding(image_size, position_size)
        self.col_embedding = nn.Embedding(image_size, position_size)
        self.class_embedding = nn.Embedding(num_classes, class_size)
        input_size = context_length * token_size + 2 * position_size + class_size
        self.layers = mlp(input_size, hidden_size, num_levels, dropout)

    def forward(self, context, position=None, label=None):
        tokens = self.token_embedding(context).flatten(-2)  # (..., C * 16)
        row = self.row_embedding(position // self.image_size)  # (..., 32)
        col = self.col_embedding(position % self.image_size)
        return self.layers(torch.cat([tokens, row, col, self.class_embedding(label)], dim=-1))  # (..., K)


class Cache:
    """The keys and values that attention computed for the tokens so far, so that nothing is computed twice.

    `length` is how many tokens that is, counting the class in front of the pixels. `generate` makes an empty cache
    and `next_logits` fills it; models that have nothing to keep leave it empty.
    """

    def __init__(self):
        self.length, self.kept = 0, {}

    def start(self, padded: Tensor) -> int:
        """The first of these tokens (B, 1 + t) that is new here; raises ValueError if none is, or B is another."""
        batch_size = next((len(parts[0]) for parts in self.kept.values()), len(padded))
        if batch_size != len(padded) or self.length >= padded.shape[1]:
            have = f"{batch_size} images up to pixel {self.length - 1}"
            raise ValueError(f"cache must be of the same images and shorter than prefix, not of {have}")
        return self.length

    def extend(self, layer: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add a layer's newest keys and values (B, heads, T, D / heads), and return all it has by now."""
        end = self.length + key.shape[2]
        if layer not in self.kept or self.kept[layer][0].shape[2] < end:  # room for as many again, so that this is rare
            old = self.kept.get(layer, ())
            self.kept[layer] = tuple(new.new_empty(*new.shape[:2], 2 * end, new.shape[3]) for new in (key, value))
            for part, roomier in zip(old, self.kept[layer], strict=False):
                roomier[:, :, : self.length] = part[:, :, : self.length]
        for part, new in zip(self.kept[layer], (key, value), strict=True):
            part[:, :, self.length : end] = new
        return tuple(part[:, :, :end] for part in self.kept[layer])

    def select(self, rows: Tensor) -> None:
        """Keep the images with these numbers (B',), in this order; one may come several times."""
        self.kept = {layer: tuple(part[rows] for part in parts) for layer, parts in self.kept.items()}


class SequenceModel(nn.Module):
    """The base of models that see all the tokens before a pixel.

    A subclass implements `predict(padded, label, start=0, cache=None)`: the start token K and then t pixels, padded
    (B, 1 + t), and a class (B,), all int64, to logits (B, 1 + t - start, K) of pixels start to t. What it computed
    for those before start is in the cache, to which it adds. This class turns that into what every model has.

    Args:
        num_levels: the number K of grey levels, at least 2.
        image_size: height and width of the images; they have N = image_size ** 2 pixels.
        num_classes: how many classes a label may name, 0 for an unconditional model, whose label is always 0.
        other: whatever else rebuilds the model; kept in `config`.

    Raises:
        ValueError: a number is out of its range, width is no multiple of heads, or positions is unknown.
    """

    def __init__(self, num_levels: int, image_size: int, num_classes: int, **other):
        super().__init__()
        self.config = {"num_levels": num_levels, "image_size": image_size, "num_classes": num_classes, **other}
        check_sizes(self.config, num_classes=0)
        if other["width"] % other["heads"]:
            raise ValueError(f"heads must divide width={other['width']}, not {other['heads']}")
        if other.get("positions", "none") not in ("learned_2d", "none"):
            raise ValueError(f"positions must be learned_2d or none, not {other['positions']!r}")
        self.num_levels, self.image_size, self.num_classes = num_levels, image_size, num_classes

    def forward(self, tokens: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits (B, N, K) of every pixel of whole images (B, N); those at i depend on tokens before i only.

        Raises:
            TypeError: tokens or labels are no integer tensors.
            ValueError: a shape or value is wrong, or labels are missing or not wanted.
        """
        check_tokens("tokens", tokens, self.num_levels, self.image_size**2, self.image_size**2)
        return self._predict(tokens[:, :-1], labels, None)

    image_logits = forward

    def next_logits(self, prefix: Tensor, labels: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Logits (B, K) of pixel t, given the t pixels before it, prefix (B, t) with 0 <= t < N.

        With a cache, computes only what is not in it yet, and adds that.

        Raises:
            TypeError: prefix or labels are no integer tensors.
            ValueError: a shape or value is wrong, labels are missing or not wanted, or the cache is of other images.
        """
        check_tokens("prefix", prefix, self.num_levels, 0, self.image_size**2 - 1)
        return self._predict(prefix, labels, cache)[:, -1]

    def _predict(self, prefix: Tensor, labels: Tensor | None, cache: Cache | None) -> Tensor:
        check_labels(labels, self.num_classes, len(prefix))
        padded = F.pad(prefix.long(), (1, 0), value=self.num_levels)  # (B, 1 + t)
        label = torch.zeros_like(padded[:, 0]) if labels is None else labels.long()
        if cache is None:
            return self.predict(padded, label)
        logits = self.predict(padded, label, cache.start(padded), cache)
        cache.length = padded.shape[1]
        return logits


class Attention(nn.Module):
    """Every slot gathers what it needs from itself and the slots before it, with several heads at once."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x, cache=None):
        joined = self.query_key_value(x).unflatten(-1, (3, self.heads, -1))  # (B, T, 3, heads, D / heads)
        query, key, value = joined.permute(2, 0, 3, 1, 4)  # (B, heads, T, D / heads) each
        if cache is not None:
            key, value = cache.extend(self, key, value)
        new, total = query.shape[2], key.shape[2]
        # Several slots that join a cache need a mask of their own; a single one, the newest, may look at all.
        mask = torch.ones(new, total, dtype=torch.bool, device=x.device).tril(total - new) if 1 < new < total else None
        dropout = self.dropout if self.training else 0.0
        gathered = F.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal=new == total)
        return self.output(gathered.transpose(1, 2).flatten(2))  # (B, T, D)


class ResidualMLP(nn.Module):
    """Two layers that see each slot by itself, normalized, and add to it what they make of it."""

    def __init__(self, width, dropout):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return x + self.dropout(self.layers(self.norm(x)))  # (B, T, D)


class Block(nn.Module):
    """What every layer of a transformer is: attention between the slots, then an MLP on each."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.mlp = ResidualMLP(width, dropout)

    def forward(self, x, cache=None):
        x = x + self.dropout(self.attention(self.norm(x), cache))
        return self.mlp(x)  # (B, T, D)


# The pixels that the stem looks at, as steps down and to the right of the pixel to predict: all of them come earlier.
NEIGHBOURS = [(0, -3), (0, -2), (0, -1)] + [(row, col) for row in (-2, -1) for col in (-2, -1, 0, 1, 2)]


def neighbour_slots(image_size):
    """For each pixel (N, 13): where its neighbours stand in a row of one start token and then all the pixels."""
    place = torch.arange(image_size**2)
    slots = []
    for down, right in NEIGHBOURS:
        row, col = place // image_size + down, place % image_size + right
        inside = (row >= 0) & (col >= 0) & (col < image_size)
        if (down, right) == (0, -1):
            inside[:] = True  # the pixel just before, on the row above if need be: so each pixel is seen at once
        slots.append(torch.where(inside, row * image_size + col + 1, 0))  # 0: the start token, for what lies outside
    return torch.stack(slots, dim=1)


class CausalStem(nn.Module):
    """Looks at 13 earlier pixels near the one to predict: chapter 4's window, bent round it, in front of attention."""

    def __init__(self, num_levels, image_size, width):
        super().__init__()
        self.register_buffer("slots", neighbour_slots(image_size), persistent=False)  # (N, 13)
        tables = (num_levels + 1) * torch.arange(len(NEIGHBOURS))  # each neighbour has a table of its own
        self.register_buffer("tables", tables, persistent=False)  # (13,): where it starts
        self.token_embedding = nn.EmbeddingBag(len(NEIGHBOURS) * (num_levels + 1), width, mode="sum")
        nn.init.normal_(self.token_embedding.weight, std=0.15)

    def forward(self, padded, start):
        near = padded[:, self.slots[start : padded.shape[1]]]  # (B, T, 13), tokens
        near = near + self.tables
        return self.token_embedding(near.flatten(0, 1)).unflatten(0, near.shape[:2])  # (B, T, D), 13 vectors summed


class PreviousPixel(nn.Module):
    """What a plain transformer starts from: the pixel just before, as a learned vector."""

    def __init__(self, num_levels, width):
        super().__init__()
        self.token_embedding = nn.Embedding(num_levels + 1, width)

    def forward(self, padded, start):
        return self.token_embedding(padded[:, start:])  # (B, T, D)


class PixelTransformer(SequenceModel):
    """Predicts a pixel from all the pixels before it and, where there are classes, from the class in front of them."""

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
        sizes = {"width": width, "depth": depth, "heads": heads}
        super().__init__(num_levels, image_size, num_classes, **sizes, positions=positions, stem=stem, dropout=dropout)
        self.class_embedding = nn.Embedding(max(num_classes, 1), width)  # without classes, one vector to start from
        self.row_embedding = nn.Embedding(image_size, width)
        self.col_embedding = nn.Embedding(image_size, width)
        self.stem = CausalStem(num_levels, image_size, width) if stem else PreviousPixel(num_levels, width)
        self.stem_mlp = ResidualMLP(width, dropout) if stem else nn.Identity()
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, num_levels)
        for embedding in (self.class_embedding, self.row_embedding, self.col_embedding):
            nn.init.normal_(embedding.weight, std=0.5)

    def predict(self, padded, label, start=0, cache=None):
        x = self.stem(padded, start)  # (B, T, D), for pixels start to t
        if start == 0:
            x = torch.cat([self.class_embedding(label).unsqueeze(1), x[:, 1:]], dim=1)  # the class stands in front
        place = torch.arange(start, padded.shape[1], device=padded.device)
        if self.config["positions"] == "learned_2d":
            x = x + self.row_embedding(place // self.image_size) + self.col_embedding(place % self.image_size)
        x = self.stem_mlp(x)
        for block in self.blocks:
            x = block(x, cache)
        return self.output(self.norm(x))  # (B, T, K)


def patch_order(image_size, height, width):
    """The numbers (N,) of an image's pixels patch by patch, and within each patch row by row."""
    number = torch.arange(image_size**2)
    return number.view(-1, height, image_size // width, width).transpose(1, 2).flatten()


def neighbour_patches(image_size, height, width):
    """For each patch (S, 4 P): where its neighbours' pixels stand in a row of one start token and then all patches."""
    across, pixels = image_size // width, height * width
    patch = torch.arange(image_size**2 // pixels)
    slots = []
    for down, right in [(0, -1), (-1, -1), (-1, 0), (-1, 1)]:
        row, col = patch // across + down, patch % across + right
        inside = (row >= 0) & (col >= 0) & (col < across)
        if (down, right) == (0, -1):
            inside = patch > 0  # the patch just before, on the row above if need be
        begins = pixels * (row * across + col) + 1
        places = begins.unsqueeze(1) + torch.arange(pixels)  # (S, P)
        slots.append(torch.where(inside.unsqueeze(1), places, 0))  # 0: the start token, for what lies outside
    return torch.cat(slots, dim=1)


class PatchStem(nn.Module):
    """Looks at all the pixels of the four earlier patches that touch the one to predict."""

    def __init__(self, num_levels, image_size, patch_height, patch_width, width):
        super().__init__()
        slots = neighbour_patches(image_size, patch_height, patch_width)  # (S, 4 P)
        self.register_buffer("slots", slots, persistent=False)
        tables = (num_levels + 1) * torch.arange(slots.shape[1])  # each of the 4 P pixels has a table of its own
        self.register_buffer("tables", tables, persistent=False)
        self.token_embedding = nn.EmbeddingBag(slots.shape[1] * (num_levels + 1), width, mode="sum")
        nn.init.normal_(self.token_embedding.weight, std=0.15)

    def forward(self, padded, first, last):
        near = padded[:, self.slots[first : last + 1]] + self.tables  # (B, S, 4 P), tokens
        return self.token_embedding(near.flatten(0, 1)).unflatten(0, near.shape[:2])  # (B, S, D)


class InnerHead(nn.Module):
    """Predicts the pixels of a patch one after the other, from what its slot knows and the pixels before in it."""

    def __init__(self, num_levels, pixels, width, dropout):
        super().__init__()
        self.register_buffer("tables", num_levels * torch.arange(pixels - 1), persistent=False)
        self.token_embedding = nn.Embedding(max(pixels - 1, 1) * num_levels, width)  # the last one tells nobody
        self.col_embedding = nn.Embedding(pixels, width)  # which pixel of the patch
        self.mlp = ResidualMLP(width, dropout)
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, num_levels)
        nn.init.normal_(self.token_embedding.weight, std=0.15)
        nn.init.normal_(self.col_embedding.weight, std=0.5)

    def forward(self, slots, patches, wanted):
        told = self.token_embedding(patches[..., :-1] + self.tables)  # (B, S, P - 1, D)
        told = F.pad(told, (0, 0, 1, 0)).cumsum(2)  # (B, S, P, D): at each pixel, all those before it in the patch
        u = slots.unsqueeze(2) + self.col_embedding.weight + told
        return self.output(self.norm(self.mlp(u.flatten(1, 2)[:, wanted])))  # (B, T, K)


class IndependentHead(nn.Module):
    """Predicts all the pixels of a patch at once, none of which knows what the others will be."""

    def __init__(self, num_levels, pixels, width):
        super().__init__()
        self.pixels = pixels
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, pixels * num_levels)

    def forward(self, slots, patches, wanted):
        logits = self.output(self.norm(slots)).unflatten(2, (self.pixels, -1))  # (B, S, P, K)
        return logits.flatten(1, 2)[:, wanted]  # (B, T, K)


class PatchTrunk(nn.Module):
    """The transformer between stem and head: a slot for each patch, which knows the class and all patches before."""

    def __init__(self, num_levels, image_size, num_classes, patch_height, patch_width, width, depth, heads, dropout):
        super().__init__()
        self.across = image_size // patch_width
        self.class_embedding = nn.Embedding(max(num_classes, 1), width)  # without classes, one vector to start from
        self.row_embedding = nn.Embedding(image_size // patch_height, width)
        self.col_embedding = nn.Embedding(self.across, width)
        self.stem = PatchStem(num_levels, image_size, patch_height, patch_width, width)
        self.stem_mlp = ResidualMLP(width, dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        for embedding in (self.class_embedding, self.row_embedding, self.col_embedding):
            nn.init.normal_(embedding.weight, std=0.5)

    def forward(self, padded, label, first, last, cache=None):
        x = self.stem(padded, first, last)  # (B, S, D), for patches first to last
        if first == 0:
            x = torch.cat([self.class_embedding(label).unsqueeze(1), x[:, 1:]], dim=1)  # the class stands in front
        patch = torch.arange(first, last + 1, device=padded.device)
        x = x + self.row_embedding(patch // self.across) + self.col_embedding(patch % self.across)
        x = self.stem_mlp(x)
        for block in self.blocks:
            x = block(x, cache)
        return x


class PatchModel(SequenceModel):
    """The base of models that draw patch by patch: it puts pixels into that order, and keeps slots in the cache.

    A subclass has `trunk(padded, label, first, last, cache)`, which gives the slots (B, S, D) of patches first to last,
    and `head(slots, patches, wanted)`, which turns slots and their patches' tokens (B, S, P) into the logits (B, T, K)
    of the pixels with the numbers `wanted`. `order` (N,) holds the raster numbers of the pixels as they are drawn:
    `image_logits` takes and gives raster order all the same, `next_logits` takes a prefix in the model's own.

    Args:
        patch_height, patch_width: of a patch of P pixels; they must divide image_size.
        other: as for `SequenceModel`.

    Raises:
        ValueError: a number is out of its range, does not divide image_size, or width is no multiple of heads.
    """

    def __init__(self, num_levels, image_size, num_classes, patch_height, patch_width, **other):
        sizes = {"patch_height": patch_height, "patch_width": patch_width}
        super().__init__(num_levels, image_size, num_classes, **sizes, **other)
        for name, size in sizes.items():
            if image_size % size:
                raise ValueError(f"{name} must divide image_size={image_size}, not {size}")
        self.pixels = patch_height * patch_width
        self.register_buffer("order", patch_order(image_size, patch_height, patch_width), persistent=False)

    def forward(self, tokens: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits (B, N, K) of every pixel of whole images (B, N), both in raster order.

        Those of a pixel depend on the pixels that are drawn before it only.

        Raises:
            TypeError: tokens or labels are no integer tensors.
            ValueError: a shape or value is wrong, or labels are missing or not wanted.
        """
        check_tokens("tokens", tokens, self.num_levels, self.image_size**2, self.image_size**2)
        return self._predict(tokens[:, self.order[:-1]], labels, None)[:, self.order.argsort()]

    image_logits = forward

    def predict(self, padded, label, start=0, cache=None):
        end = padded.shape[1]  # pixels start to end - 1 are wanted
        first, last = -(-start // self.pixels), (end - 1) // self.pixels  # and the slots from first to last are new
        slots = [] if first * self.pixels == start else [cache.kept[self][0]]  # that of a patch begun before
        if cache is not None:
            cache.length = first  # attention keeps a key for each slot, not for each pixel
        if first <= last:
            slots.append(self.trunk(padded, label, first, last, cache))
        slots = torch.cat(slots, dim=1)  # (B, S, D)
        if cache is not None:
            cache.kept[self] = (slots[:, -1:],)
        begins = start // self.pixels * self.pixels  # the first pixel of the first of these patches
        patches = F.pad(padded[:, begins + 1 :], (0, (last + 1) * self.pixels - end + 1))  # what is not known yet: 0
        wanted = torch.arange(start - begins, end - begins, device=padded.device)
        return self.head(slots, patches.unflatten(1, (-1, self.pixels)), wanted)


class PatchTransformer(PatchModel):
    """Predicts an image patch by patch: one slot of a transformer for each, and a small head for its pixels."""

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
        sizes = {"patch_height": patch_height, "patch_width": patch_width, "width": width}
        sizes |= {"depth": depth, "heads": heads, "dropout": dropout}
        super().__init__(num_levels, image_size, num_classes, independent=independent, **sizes)
        self.trunk = PatchTrunk(num_levels, image_size, num_classes, **sizes)
        if independent:
            self.head = IndependentHead(num_levels, self.pixels, width)
        else:
            self.head = InnerHead(num_levels, self.pixels, width, dropout)
