"""The book's models: each file holds what its chapters build, and a test compares."""

from .base import Cache, PixelModel
from .convolutions import MaskedPixelCNN, NeighbourhoodMLP, PixelCNN
from .greys import GreyTransformer
from .patches import NestedTransformer, PatchTransformer
from .transformer import PixelTransformer, SequenceModel
from .windows import ConditionalMLP, OneHotMLP, PositionalMLP, WindowModel

__all__ = [
    "Cache",
    "ConditionalMLP",
    "GreyTransformer",
    "MaskedPixelCNN",
    "NeighbourhoodMLP",
    "NestedTransformer",
    "OneHotMLP",
    "PatchTransformer",
    "PixelCNN",
    "PixelModel",
    "PixelTransformer",
    "PositionalMLP",
    "SequenceModel",
    "WindowModel",
]
