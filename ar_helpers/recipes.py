"""How each shipped model is trained: the table that `train NAME` reads. A card records a finished run."""

from dataclasses import replace
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from . import models
from .tokens import ThinnedWindows, TokenImages
from .training import TrainConfig


class Recipe(NamedTuple):
    """A model's class, sizes that differ from the class's defaults, data as on a card, and configuration.

    `images` is the name of the data set, as `load_images` takes it.
    """

    model: type[models.PixelModel]
    sizes: dict
    data: dict
    config: TrainConfig
    images: str = "mnist"


IMAGES = {"images": 50_000, "crc32": 3893162552, "keep": 1.0}  # MNIST's, at 16 levels
LANDSCAPES = {"images": 10_000, "crc32": 3567442328, "keep": 1.0}  # of 64 x 64 pixels
ALL_GREYS = IMAGES | {"crc32": 1384265727}  # at 256 levels
WINDOWS = IMAGES | {"keep": 0.125}  # of the dull ones

MLP = TrainConfig(steps=9_500, batch_size=1024, learning_rate=2e-3, arithmetic="bfloat16")
TRANSFORMER = TrainConfig(
    steps=2_950,
    batch_size=16,
    learning_rate=4e-3,
    muon_rate=1e-2,
    weight_decay=0.1,
    warmup=0.1,
    clip=1.0,
    arithmetic="bfloat16",
)
FULL = replace(TRANSFORMER, steps=22_150, batch_size=128, warmup=0.05, shift=1, average=0.999)  # for a GPU
COLOUR_RUN = replace(FULL, steps=3_500, batch_size=32, shift=0)  # for a GPU
SMALL = replace(TRANSFORMER, steps=2_000)
HOUR = replace(TRANSFORMER, steps=10_000, batch_size=8)  # within an hour of two cores

BINARY = {"num_levels": 2, "num_classes": 0, "width": 96}  # as published figures on binarized images are
SINUSOIDAL = {"num_levels": 256, "positions": "sinusoidal_2d", "label_as": "pixel", "stem": False}  # sim, chapter 12
ROPE = {"positions": "rope_2d", "width": 80, "depth": 3}
COLOURS = {"image_size": 64, "width": 96, "depth": 4, "heads": 3, "inner_width": 48, "inner_heads": 2}
WIDE = {"width": 192, "depth": 5, "heads": 6, "dropout": 0.1}


def patches(height: int, width: int, independent: bool = False) -> Recipe:
    sizes = {"patch_height": height, "patch_width": width, "independent": independent}
    return Recipe(models.PatchTransformer, sizes, IMAGES, SMALL)


RECIPES = {
    "one_hot_mlp": Recipe(models.OneHotMLP, {}, WINDOWS, replace(MLP, steps=10_000)),
    "positional_mlp": Recipe(models.PositionalMLP, {}, WINDOWS, MLP),
    "conditional_mlp": Recipe(models.ConditionalMLP, {}, WINDOWS, MLP),
    "transformer": Recipe(models.PixelTransformer, {}, IMAGES, TRANSFORMER),
    "transformer_full": Recipe(models.PixelTransformer, WIDE, IMAGES, FULL),
    "transformer_small": Recipe(models.PixelTransformer, {"width": 80, "depth": 3}, IMAGES, SMALL),
    "transformer_256": Recipe(models.GreyTransformer, {}, ALL_GREYS, HOUR),
    "transformer_binary": Recipe(models.PixelTransformer, BINARY, ALL_GREYS, replace(HOUR, binarize=True)),
    "patch_1x2": patches(1, 2),
    "patch_2x2": patches(2, 2),
    "patch_4x4": patches(4, 4),
    "patch_1x2_independent": patches(1, 2, independent=True),
    "patch_2x2_independent": patches(2, 2, independent=True),
    "patch_4x4_independent": patches(4, 4, independent=True),
    "nested_4x4": Recipe(models.NestedTransformer, {}, IMAGES, replace(SMALL, arithmetic="float32")),
    "pixelcnn": Recipe(models.PixelCNN, {}, IMAGES, replace(TRANSFORMER, steps=3_400)),
    "any_order": Recipe(models.AnyOrderTransformer, {}, IMAGES, replace(TRANSFORMER, steps=5_900)),
    "sinusoidal_256": Recipe(models.PositionedTransformer, SINUSOIDAL, ALL_GREYS, HOUR),
    "transformer_small_rope": Recipe(models.PositionedTransformer, ROPE, IMAGES, SMALL),
    "landscapes": Recipe(models.NestedColourTransformer, COLOURS, LANDSCAPES, COLOUR_RUN, "landscapes"),
}


def data_set(model: models.PixelModel, tokens: Tensor, labels: Tensor) -> Dataset:
    """The training set of a recipe: whole images (M, N), or context windows with the dull windows thinned."""
    labels = labels if model.num_classes else None
    if isinstance(model, models.WindowModel):
        return ThinnedWindows(tokens, labels, context_length=model.context_length, num_levels=model.num_levels)
    return TokenImages(tokens, labels)
