"""The book's models: each file holds what its chapters build, and a test compares."""

from .base import Cache
from .base import PixelModel as PixelModel
from .colours import NestedColourTransformer
from .convolutions import PixelCNN
from .greys import GreyTransformer
from .patches import NestedTransformer, PatchTransformer
from .positions import AnyOrderTransformer, PositionedTransformer
from .transformer import PixelTransformer
from .transformer import SequenceModel as SequenceModel
from .windows import ConditionalMLP, OneHotMLP, PositionalMLP
from .windows import WindowModel as WindowModel

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
    "PixelTransformer",
    "PositionalMLP",
    "PositionedTransformer",
]
