"""Helpers of the book Pixel by Pixel: autoregressive image generation, built from scratch.

import ar_helpers as ar
"""

from .data import (
    ContextWindows,
    Digits,
    ImageSet,
    ThinnedWindows,
    TokenImages,
    dequantize,
    load_images,
    quantize,
    read_picture,
)
from .models import Cache, ConditionalMLP, OneHotMLP, PatchTransformer, PixelTransformer, PositionalMLP
from .plots import animate, plot_history, show_images, show_maps
from .sampling import (
    Inpainted,
    Samples,
    complete,
    generate,
    inpaint,
    label_beliefs,
    prediction_maps,
    sampling_probabilities,
)
from .training import (
    History,
    TrainConfig,
    best_device,
    bits_per_pixel,
    fit,
    load_card,
    load_checkpoint,
    load_pretrained,
    model_table,
    save_checkpoint,
    train_or_load,
)

__all__ = [
    "Cache",
    "ConditionalMLP",
    "ContextWindows",
    "Digits",
    "History",
    "ImageSet",
    "Inpainted",
    "OneHotMLP",
    "PatchTransformer",
    "PixelTransformer",
    "PositionalMLP",
    "Samples",
    "ThinnedWindows",
    "TokenImages",
    "TrainConfig",
    "animate",
    "best_device",
    "bits_per_pixel",
    "complete",
    "dequantize",
    "fit",
    "generate",
    "inpaint",
    "label_beliefs",
    "load_card",
    "load_checkpoint",
    "load_images",
    "load_pretrained",
    "model_table",
    "plot_history",
    "prediction_maps",
    "quantize",
    "read_picture",
    "sampling_probabilities",
    "save_checkpoint",
    "show_images",
    "show_maps",
    "train_or_load",
]
