"""The book's models: each file holds what its chapters build, and a test compares."""

from .base import Cache, PixelModel
from .colours import NestedColourTransformer
from .convolutions import PixelCNN
from .greys import GreyTransformer
from .patches import NestedTransformer, PatchTransformer
from .positions import AnyOrderTransformer, PositionedTransformer
from .transformer import PixelTransformer, SequenceModel
from .windows import ConditionalMLP, OneHotMLP, PositionalMLP, WindowModel

__all__ = [
    "AnyOrderTransformer",
    "Cache",
    "ConditionalMLP",
    "GreyTransformer",
    "NestedColourTransformer",
    "NestedTransformer",
    "OneHotMLP",
    "PatchTransformer",
    "PixelCNN",
    "PixelModel",
    "PixelTransformer",
    "PositionalMLP",
    "PositionedTransformer",
    "SequenceModel",
    "WindowModel",
]
