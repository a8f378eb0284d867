"""Drawing: from a model's logits to images, one pixel at a time."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .models import Cache, check_labels, check_tokens


class Samples(NamedTuple):
    """Generated images: tokens (B, N), int64, and for each pixel the probability of the token that was drawn and the
    entropy, in bits, of the distribution it was drawn from, both (B, N), float32. A pixel that was given rather than
    drawn has probability 1 and entropy 0. All on the CPU.
    """

    tokens: Tensor
    probabilities: Tensor
    entropies: Tensor


class Inpainted(NamedTuple):
    """Ways to fill the hole in an image, tokens (P, N), int64, equally likely; and -log2 of the probability that the
    model gives to the known pixels, all ways to fill the hole taken together, as estimated on the way, in bits.
    """

    tokens: Tensor
    bits: float


def entropy_bits(probabilities: Tensor) -> Tensor:
    """Entropy (...) in bits of distributions (..., K), Shannon (1948): from 0 (certain) to log2 K (uniform)."""
    return torch.special.entr(probabilities).sum(-1) / math.log(2)


def prediction_maps(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What a model thought of each pixel of given images.

    Args:
        logits: (..., K), as `model.image_logits` gives them.
        tokens: (...) integers: the pixels that are really there.

    Returns:
        The probability (...) the model gave to each token, from 0 to 1, and the entropy (...) of each prediction in
        bits, from 0 to log2 K.

    Raises:
        ValueError: the shapes do not agree.
    """
    if logits.shape[:-1] != tokens.shape:
        raise ValueError(f"tokens must have the shape of logits less its last axis, not {tuple(tokens.shape)}")
    probabilities = logits.float().softmax(-1)
    chosen = probabilities.gather(-1, tokens.long().unsqueeze(-1)).squeeze(-1)
    return chosen, entropy_bits(probabilities)


def sampling_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The distribution that is really sampled: temperature first, then top-k, then top-p, then scaled to sum to 1.

    Args:
        logits: (..., K).
        temperature: above 0; logits are divided by it, so below 1 the likely tokens gain.
        top_k: keep the k likeliest tokens, exactly k even where they tie; at least 1.
        top_p: keep the smallest set of likeliest tokens that has this probability, in (0, 1]; also called nucleus
            sampling (Holtzman et al., 2020).

    Returns:
        Probabilities (..., K), float32.

    Raises:
        ValueError: a knob is outside its range.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be a finite number above 0, not {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], not {top_p}")
    logits = logits.float()
    logits = logits - logits.amax(-1, keepdim=True)  # the largest is 0: no overflow however cold
    logits = logits / max(temperature, 1e-30)  # less would be 0 in float32
    if top_k is None and top_p is None:
        return logits.softmax(-1)
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ordered[..., top_k:] = -math.inf
    probabilities = ordered.softmax(-1)
    if top_p is not None and top_p < 1:
        before = probabilities.cumsum(-1) - probabilities  # what the likelier tokens have between them
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, order, probabilities)


def drawing_order(model: nn.Module) -> Tensor:
    """The raster numbers (N,) of the pixels in the order in which a model draws them: 0, 1, 2 ... for most."""
    raster = torch.arange(model.image_size**2, device=next(model.parameters()).device)
    return getattr(model, "order", raster)


def generate(
    model: nn.Module,
    labels: Sequence[int] | Tensor | None = None,
    count: int | None = None,
    prompt: Tensor | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
) -> Samples:
    """Draw images pixel by pixel, all of them at once.

    Args:
        model: any model of the book, on any device.
        labels: (B,) classes from 0 to num_classes - 1, one for each image, for a conditional model.
        count: how many images; with labels, or with a prompt of several rows, it follows from those.
        prompt: (t,) or (B, t) tokens that the images begin with, t < N; one row is repeated for every image. A model
            that draws patches needs whole rows of them.
        temperature, top_k, top_p: see `sampling_probabilities`.
        seed: the same seed gives the same images on a CPU; None draws on torch's global random state.

    Raises:
        TypeError: prompt or labels are not integers.
        ValueError: an argument is outside its range, or the numbers of images do not agree.
    """
    device = next(model.parameters()).device
    num_pixels = model.image_size**2
    sampling_probabilities(torch.zeros(1, model.num_levels), temperature, top_k, top_p)  # bad knobs fail before work
    labels = None if labels is None else torch.as_tensor(labels)
    prompt = torch.zeros(1, 0, dtype=torch.long) if prompt is None else torch.as_tensor(prompt)
    prompt = prompt.unsqueeze(0) if prompt.dim() == 1 else prompt
    check_tokens("prompt", prompt, model.num_levels, 0, num_pixels - 1)
    order, start = drawing_order(model), prompt.shape[1]
    if (order[:start] >= start).any():
        raise ValueError(f"prompt must be whole rows of the model's patches, not {start} pixels")
    counts = {"count": count, "labels": None if labels is None else labels.numel()}
    counts["prompt"] = len(prompt) if len(prompt) != 1 else None
    given = {name: number for name, number in counts.items() if number is not None}
    if len(set(given.values())) > 1 or min(given.values(), default=1) < 1:
        raise ValueError(f"labels, count and prompt must ask for the same number of images, at least 1, not {given}")
    batch_size = next(iter(given.values()), 1)
    check_labels(labels, model.num_classes, batch_size)
    labels = None if labels is None else labels.to(device)

    generator = None
    if seed is not None:
        generator = torch.Generator(device).manual_seed(seed)
    tokens = torch.zeros(batch_size, num_pixels, dtype=torch.long, device=device)
    tokens[:, :start] = prompt.to(device)[:, order[:start]]
    probabilities = torch.ones(batch_size, num_pixels, device=device)
    entropies = torch.zeros(batch_size, num_pixels, device=device)
    cache, was_training = Cache(), model.training
    model.eval()
    pixels = tqdm(range(start, num_pixels), unit="pixel", disable=None, leave=False)  # shown in a terminal only
    try:
        with torch.inference_mode():  # a tenth faster than no_grad, one image at a time
            for t in pixels:
                logits = model.next_logits(tokens[:, :t], labels, cache)
                distribution = sampling_probabilities(logits, temperature, top_k, top_p)  # (B, K)
                drawn = torch.multinomial(distribution, 1, generator=generator)  # (B, 1)
                tokens[:, t] = drawn.squeeze(1)
                probabilities[:, t] = distribution.gather(1, drawn).squeeze(1)
                entropies[:, t] = entropy_bits(distribution)
    finally:
        model.train(was_training)
    raster = order.argsort()
    return Samples(*(part[:, raster].cpu() for part in (tokens, probabilities, entropies)))


def complete(model: nn.Module, tokens: Tensor, keep_rows: int, **options) -> Samples:
    """Keep the first rows of images and draw the rest.

    Args:
        model: any model of the book.
        tokens: (N,) or (B, N) tokens of whole images.
        keep_rows: how many rows to keep, from 0 to image_size - 1.
        options: labels, count, temperature, top_k, top_p and seed, as `generate` takes them.

    Raises:
        TypeError: tokens or labels are not integers.
        ValueError: an argument is outside its range.
    """
    if not 0 <= keep_rows < model.image_size:
        raise ValueError(f"keep_rows must be from 0 to {model.image_size - 1}, not {keep_rows}")
    tokens = torch.as_tensor(tokens)
    num_pixels = model.image_size**2
    if tokens.shape[-1:] != (num_pixels,):
        raise ValueError(f"tokens must have shape ({num_pixels},) or (B, {num_pixels}), not {tuple(tokens.shape)}")
    return generate(model, prompt=tokens[..., : keep_rows * model.image_size], **options)


@torch.no_grad()
def inpaint(
    model: nn.Module,
    tokens: Tensor,
    known: Tensor,
    label: int | None = None,
    particles: int = 64,
    seed: int | None = None,
) -> Inpainted:
    """Fill a hole in an image so that it fits the known pixels after it too, by sequential Monte Carlo.

    Many images are drawn at once, the particles. Where a pixel is known, all take it over, and each gets weight by the
    probability it gave to it; when few of them have nearly all the weight, those are copied and the others dropped
    (Doucet et al., 2001). One particle alone is plain drawing from left to right, which ignores what comes after.

    Args:
        model: any model of the book.
        tokens: (N,) of one whole image; what it holds in the hole does not matter.
        known: (N,) bool, False in the hole.
        label: its class, for a conditional model.
        particles: how many, P, at least 1; drawing takes P times as long as one image.
        seed: the same seed gives the same images on a CPU; None draws on torch's global random state.

    Raises:
        TypeError: tokens are not integers, or known is not bool.
        ValueError: a shape or value is wrong, or the label is missing or not wanted.
    """
    device, num_pixels = next(model.parameters()).device, model.image_size**2
    check_tokens("tokens", tokens.unsqueeze(0), model.num_levels, num_pixels, num_pixels)
    if known.dtype != torch.bool:
        raise TypeError(f"known must be a tensor of bool, not {known.dtype}")
    if known.shape != tokens.shape:
        raise ValueError(f"known must have shape {tuple(tokens.shape)}, not {tuple(known.shape)}")
    if particles < 1:
        raise ValueError(f"particles must be at least 1, not {particles}")
    labels = None if label is None else torch.full((particles,), label, device=device)
    check_labels(labels, model.num_classes, particles)
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    order = drawing_order(model).cpu()
    tokens, known = tokens[order].tolist(), known[order].tolist()
    drawn = torch.zeros(particles, num_pixels, dtype=torch.long, device=device)
    log_weights, bits = torch.zeros(particles, device=device), 0.0
    cache, was_training = Cache(), model.training
    model.eval()
    try:
        for t in range(num_pixels):
            log_probabilities = model.next_logits(drawn[:, :t], labels, cache).float().log_softmax(-1)  # (P, K)
            if not known[t]:
                drawn[:, t] = torch.multinomial(log_probabilities.exp(), 1, generator=generator).squeeze(1)
                continue
            drawn[:, t] = tokens[t]
            log_weights += log_probabilities[:, tokens[t]]
            weights = log_weights.softmax(0)
            if 2 / weights.square().sum() < particles or t == num_pixels - 1:  # few are effective: start afresh
                bits -= (log_weights.logsumexp(0).item() - math.log(particles)) / math.log(2)
                rows = _resample(weights, generator)
                drawn = drawn[rows]
                cache.select(rows)
                log_weights.zero_()
    finally:
        model.train(was_training)
    if not known[-1]:  # the last pixels were drawn: the weights so far still stand
        bits -= (log_weights.logsumexp(0).item() - math.log(particles)) / math.log(2)
        drawn = drawn[_resample(log_weights.softmax(0), generator)]
    return Inpainted(drawn.cpu()[:, order.argsort()], bits)


def _resample(weights: Tensor, generator: torch.Generator | None) -> Tensor:
    """Numbers (P,) of particles, each as often as its weight (P,) says, to within one (systematic resampling)."""
    count = len(weights)
    start = torch.rand(1, generator=generator, device=weights.device)
    ticks = (torch.arange(count, device=weights.device) + start) / count
    return torch.searchsorted(weights.cumsum(0), ticks).clamp(max=count - 1)


@torch.no_grad()
def label_beliefs(model: nn.Module, tokens: Tensor) -> Tensor:
    """How likely each class is after every pixel of an image, by Bayes' rule, all classes being equally likely before.

    Args:
        model: a conditional model.
        tokens: (B, N) of whole images.

    Returns:
        Probabilities (B, N + 1, num_classes), float32, on the CPU: at place t, given the first t pixels
        in the order in which the model draws them, which after whole rows (of patches) is the raster order's.

    Raises:
        TypeError: tokens are not integers.
        ValueError: the model is unconditional, or a shape or value is wrong.
    """
    if not model.num_classes:
        raise ValueError("model must be conditional, not one with num_classes=0")
    device = next(model.parameters()).device
    evidence = []
    for label in range(model.num_classes):
        labels = torch.full((len(tokens),), label, device=device)
        log_probabilities = model.image_logits(tokens.to(device), labels).float().log_softmax(-1)
        chosen = log_probabilities.gather(-1, tokens.long().to(device).unsqueeze(-1)).squeeze(-1)  # (B, N)
        chosen = chosen[:, drawing_order(model)]
        evidence.append(torch.nn.functional.pad(chosen.double().cumsum(1), (1, 0)))
    return torch.stack(evidence, dim=-1).softmax(-1).float().cpu()
