"""What all models share: the two questions that each answers, and the cache."""

import torch.nn.functional as F
from torch import nn

from ..checks import check_cache, check_labels, check_sizes, check_tokens


class PixelModel(nn.Module):
    """The base of every model. It checks the arguments, and the subclass computes.

    A subclass has `forward`, which `fit` trains, and two methods that use it. Tokens
    and labels are int64. `every_pixel(tokens, labels)` takes whole images (B, N) to
    the logits (B, N, K) of all pixels. `next_pixels(tokens, labels, cache, first)`
    takes the first T pixels in the order of drawing (B, T) to the logits
    (B, T - first, K) of pixels `first` to T - 1: with `first` = T - 1, of the last.
    """

    channels = 1  # tokens for each pixel; for colours it may be three

    def __init__(self, fewest_classes=1, **config):
        super().__init__()
        lowest = {"num_levels": 2, "num_classes": fewest_classes, "dropout": 0}
        # All other sizes must be at least 1. The config is enough to rebuild the model.
        self.config = check_sizes(config, lowest)
        self.num_levels = self.config["num_levels"]
        self.image_size = self.config["image_size"]
        self.num_classes = self.config.get("num_classes", 0)
        self.sequence_length = self.channels * self.image_size**2  # N

    def image_logits(self, tokens, labels=None):
        """Logits (B, N, K) of whole images (B, N): each from the pixels before it."""
        whole = self.sequence_length
        check_tokens("tokens", tokens, self.num_levels, whole, whole)
        check_labels(labels, self.num_classes, len(tokens))
        labels = None if labels is None else labels.long()
        return self.every_pixel(tokens.long(), labels)

    def next_logits(self, prefix, labels=None, cache=None):
        """Logits (B, K) of pixel t, from the t pixels drawn before it, (B, t)."""
        check_tokens("prefix", prefix, self.num_levels, 0, self.sequence_length - 1)
        check_labels(labels, self.num_classes, len(prefix))
        if cache is not None:
            check_cache(cache, prefix)
        labels = None if labels is None else labels.long()
        tokens = F.pad(prefix.long(), (0, 1))  # pixel t is not known: any token will do
        return self.next_pixels(tokens, labels, cache, prefix.shape[1])[:, -1]


class Cache:
    """What a model computed for the pixels so far, so that nothing is computed twice.

    `length` is the number of pixels whose logits have been computed. To go back, make
    it smaller. Models that have nothing to keep leave the cache empty.
    """

    def __init__(self):
        self.length, self.kept = 0, {}

    def extend(self, owner, start, *new):
        """Put tensors (B, ..., T, d) behind an owner's first `start`; return all."""
        end = start + new[0].shape[-2]
        old = self.kept.get(owner, ())
        if not old or old[0].shape[-2] < end:  # room for twice as many, so this is rare
            sizes = [(*x.shape[:-2], 2 * end, x.shape[-1]) for x in new]
            rooms = [x.new_empty(size) for x, size in zip(new, sizes, strict=True)]
            for room, part in zip(rooms, old, strict=False):
                room[..., :start, :] = part[..., :start, :]
            self.kept[owner] = rooms
        for room, x in zip(self.kept[owner], new, strict=True):
            room[..., start:end, :] = x
        return [room[..., :end, :] for room in self.kept[owner]]

    def select(self, rows):
        """Keep the images with these numbers (B',), in this order, perhaps repeated."""
        for owner, rooms in self.kept.items():
            self.kept[owner] = [room[rows] for room in rooms]
