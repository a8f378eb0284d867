"""Scores: how many bits a model needs for images, and its predictions pixel by pixel."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_agreement, check_at_least, check_image_set
from .data import ImageSet
from .files import progress
from .tokens import binarize, image_tokens, is_colour


def entropy_bits(probabilities: Tensor) -> Tensor:
    """Entropy (...) in bits of distributions (..., K), Shannon (1948): from 0 (certain) to log2 K (uniform)."""
    return torch.special.entr(probabilities).sum(-1) / math.log(2)


def prediction_maps(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The probability that a model gave to each pixel of images, and the entropy of each prediction.

    Args:
        logits: (..., K), as `model.image_logits` gives them.
        tokens: (...) integers, the true pixels.

    Returns:
        Probabilities (...), from 0 to 1, and entropies (...) in bits, from 0 to log2 K.
    """
    fits = logits.shape[:-1] == tokens.shape
    check_agreement("tokens must have the shape of logits less its last axis", fits, tuple(tokens.shape))
    probabilities = logits.float().softmax(-1)
    chosen = probabilities.gather(-1, tokens.long().unsqueeze(-1)).squeeze(-1)
    return chosen, entropy_bits(probabilities)


@torch.no_grad()
def pixel_bits(model: nn.Module, tokens: Tensor, labels: Tensor | None = None) -> Tensor:
    """The cost of each pixel in bits: -log2 p(pixel | pixels before it).

    Args:
        model: any model of the book. It is evaluated in evaluation mode, a few images at a time.
        tokens: (B, N) integers, whole images in raster order.
        labels: (B,) integers, for a conditional model.

    Returns:
        Bits (B, N), float32, on the CPU, at least 0.
    """
    device = next(model.parameters()).device
    batch_size = 8 if device.type == "cpu" else 64  # what still fits a processor's cache
    rows = torch.arange(len(tokens)).split(batch_size)
    was_training, bits = model.training, []
    model.eval()
    try:
        for part in rows:
            given = None if labels is None else labels[part].to(device)
            pixels = tokens[part].to(device)
            logits = model.image_logits(pixels, given).float()  # (b, N, K)
            nats = F.cross_entropy(logits.flatten(0, 1), pixels.long().flatten(), reduction="none")
            bits.append(nats.view(pixels.shape).cpu() / math.log(2))
    finally:
        model.train(was_training)
    return torch.cat(bits)


def bits_per_pixel(model: nn.Module, images: ImageSet, quiet: bool = False) -> float:
    """The mean of -log2 p(pixel | pixels before it) over all pixels of all images: the measure of the whole book.

    Args:
        model: any model of the book. Conditional models are told the true labels.
        images: images (M, H, W) or (M, H, W, 3), uint8, and their labels (M,); they become tokens here.
        quiet: show no bar.

    Returns:
        Bits per pixel, at least 0; a uniform guess has log2 K, or with a token for each channel 3 log2 K.
    """
    check_image_set("images", images, model.image_size)
    total = 0.0
    with progress(unit="image", total=len(images.images), quiet=quiet) as bar:
        for pixels, labels in zip(images.images.split(200), images.labels.split(200), strict=True):
            tokens = image_tokens(pixels, model)
            total += pixel_bits(model, tokens, labels if model.num_classes else None).double().sum().item()
            bar.update(len(pixels))
    return total / len(images.images) / model.image_size**2


def binarized(images: ImageSet, seed: int) -> ImageSet:
    """The images with their pixels drawn black or white, as `tokens.binarize` does."""
    return images._replace(images=255 * binarize(images.images, seed).to(torch.uint8))


def binary_nats(model: nn.Module, images: ImageSet, draws: int = 5) -> tuple[float, float]:
    """The mean of -log p(image) in nats over dynamically binarized images, the measure of published tables.

    Args:
        model: any model of two levels. Conditional models are told the true labels.
        images: images (M, H, W), uint8, and their labels (M,).
        draws: how often the images are binarized, with the seeds 0, 1 and so on; at least 2.

    Returns:
        The mean over the draws, and its standard error.
    """
    check_agreement("model must have num_levels=2", model.num_levels == 2, model.num_levels)
    check_at_least(2, draws=draws)
    pixels = model.image_size**2
    bits = torch.tensor([bits_per_pixel(model, binarized(images, seed)) for seed in range(draws)], dtype=torch.double)
    nats = pixels * math.log(2) * bits
    return nats.mean().item(), nats.std().item() / math.sqrt(draws)


def fingerprint(model: nn.Module) -> float:
    """The bits per pixel on 16 fixed pseudo-random images: equal for two models only if they compute the same."""
    generator = torch.Generator().manual_seed(0)
    size = (16, model.image_size, model.image_size) + (3,) * is_colour(model)
    images = torch.randint(256, size, generator=generator, dtype=torch.uint8)
    return bits_per_pixel(model, ImageSet(images, torch.arange(16) % max(model.num_classes, 1)))


def drawing_order(model: nn.Module) -> Tensor:
    """The positions (N,) of the pixels in the order in which a model draws them: 0, 1, 2 ... for most models."""
    raster = torch.arange(model.sequence_length, device=next(model.parameters()).device)
    return getattr(model, "order", raster)


def label_beliefs(model: nn.Module, tokens: Tensor) -> Tensor:
    """The probability of each class after every pixel of an image, by Bayes' rule with equal priors.

    Args:
        model: a conditional model.
        tokens: (B, N) of whole images.

    Returns:
        Probabilities (B, N + 1, num_classes), float32, on the CPU. Index t is for the first t pixels in the order in
        which the model draws them.
    """
    check_agreement("model must be conditional", model.num_classes > 0, "one with num_classes=0")
    order, evidence = drawing_order(model).cpu(), []
    for label in range(model.num_classes):
        bits = pixel_bits(model, tokens, torch.full((len(tokens),), label))[:, order]
        evidence.append(F.pad(-bits.double().cumsum(1), (1, 0)))  # log2 of the probability of the first t pixels
    return (torch.stack(evidence, dim=-1) * math.log(2)).softmax(-1).float()
