"""Helpers of the book Pixel by Pixel: autoregressive image generation, built from scratch.

import ar_helpers as ar
"""

from . import models
from .cards import load_card, load_checkpoint, load_pretrained, load_record, model_table, save_checkpoint, train_or_load
from .data import Digits, ImageSet, claims, full_or_quick, load_images
from .models import *  # noqa: F403 - those that models/__init__.py lists
from .pictures import read_picture
from .plots import animate, plot_history, show_images, show_maps, style, table
from .sampling import Inpainted, Samples, complete, generate, inpaint, sampling_probabilities
from .scoring import bits_per_pixel, label_beliefs, pixel_bits, prediction_maps
from .tokens import (
    ContextWindows,
    ThinnedWindows,
    TokenImages,
    dequantize,
    image_tokens,
    pack_colours,
    quantize,
    unpack_colours,
)
from .training import History, TrainConfig, best_device, fit

__all__ = [
    *models.__all__,
    "ContextWindows",
    "Digits",
    "History",
    "ImageSet",
    "Inpainted",
    "Samples",
    "ThinnedWindows",
    "TokenImages",
    "TrainConfig",
    "animate",
    "best_device",
    "bits_per_pixel",
    "claims",
    "complete",
    "dequantize",
    "fit",
    "full_or_quick",
    "generate",
    "image_tokens",
    "inpaint",
    "label_beliefs",
    "load_card",
    "load_checkpoint",
    "load_images",
    "load_pretrained",
    "load_record",
    "model_table",
    "pack_colours",
    "pixel_bits",
    "plot_history",
    "prediction_maps",
    "quantize",
    "read_picture",
    "sampling_probabilities",
    "save_checkpoint",
    "show_images",
    "show_maps",
    "style",
    "table",
    "train_or_load",
    "unpack_colours",
]
