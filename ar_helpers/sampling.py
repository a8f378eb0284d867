"""Drawing: from a model's logits to images, one pixel at a time."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import (
    check_agreement,
    check_at_least,
    check_bool,
    check_finite,
    check_labels,
    check_positive,
    check_range,
    check_shape,
    check_share,
    check_tokens,
    whole_number,
)
from .files import progress
from .models import Cache
from .scoring import drawing_order, entropy_bits

FEW = 4  # images at once for which a second thread gains little, and on a busy machine costs much


class Samples(NamedTuple):
    """Generated images: tokens (B, N), int64, and for each pixel the probability of the token that was drawn and the
    entropy, in bits, of the distribution it was drawn from, both (B, N), float32. A pixel that was given rather than
    drawn has probability 1 and entropy 0. All on the CPU.
    """

    tokens: Tensor
    probabilities: Tensor
    entropies: Tensor


class Inpainted(NamedTuple):
    """Completed images, tokens (P, N), int64: together a fair sample, but not in random order, so for one image
    choose a row at random. And an estimate, in bits, of -log2 of the probability that the model gives to the known
    pixels, summed over all ways to fill the hole.
    """

    tokens: Tensor
    bits: float


def sampling_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The distribution that is sampled, after temperature, top-k and top-p, in this order; it sums to 1.

    Args:
        logits: (..., K).
        temperature: above 0. It divides the logits, so values below 1 favour likely tokens.
        top_k: keep the k likeliest tokens, exactly k even where they tie; at least 1.
        top_p: keep the smallest set of likeliest tokens that has this probability, in (0, 1]; also called nucleus
            sampling (Holtzman et al., 2020).

    Returns:
        Probabilities (..., K), float32.
    """
    check_positive(temperature=temperature)
    if top_k is not None:
        check_at_least(1, top_k=top_k)
    if top_p is not None:
        check_share(top_p=top_p)
    logits = logits.float()
    logits = logits - logits.amax(-1, keepdim=True)  # the largest is 0: no overflow however cold
    if temperature != 1:
        logits = logits / max(temperature, 1e-30)  # less would be 0 in float32
    if top_k is None and top_p is None:
        return logits.softmax(-1)
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ordered[..., top_k:] = -math.inf
    probabilities = ordered.softmax(-1)
    if top_p is not None and top_p < 1:
        before = probabilities.cumsum(-1) - probabilities  # of the likelier tokens together
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, order, probabilities)


@contextlib.contextmanager
def drawing(model: nn.Module, batch_size: int) -> Iterator[None]:
    """Within, a model is in evaluation mode, and few images are drawn on a processor by one thread."""
    was_training, threads = model.training, torch.get_num_threads()
    few = batch_size <= FEW and threads > 1 and next(model.parameters()).device.type == "cpu"
    try:
        model.eval()
        if few:
            torch.set_num_threads(1)
        yield
    finally:
        model.train(was_training)
        if few:
            torch.set_num_threads(threads)


def dice(seed: int | None, device: torch.device) -> torch.Generator | None:
    """A generator of its own for a seed; None: torch's global random state."""
    return None if seed is None else torch.Generator(device).manual_seed(whole_number("seed", seed))


def draw(distribution: Tensor, generator: torch.Generator | None) -> Tensor:
    """One token (...) from each distribution (..., K)."""
    try:
        drawn = torch.multinomial(distribution.flatten(0, -2), 1, generator=generator)
    except RuntimeError:  # torch says this of K probabilities; the fault is further back
        check_finite("logits", {"the model": distribution}, "its weights, or what it computes, are not in order")
        raise
    return drawn.view(distribution.shape[:-1])


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
    """Draw a batch of images pixel by pixel, or in the groups of pixels that the model draws at once.

    Args:
        model: any model of the book, on any device.
        labels: (B,) classes from 0 to num_classes - 1, for a conditional model.
        count: the number of images B, unless labels or a prompt of several rows fix it.
        prompt: (t,) or (B, t) tokens that the images begin with, t < N; a single row serves all images. A model that
            draws patches needs whole rows of patches.
        temperature, top_k, top_p: see `sampling_probabilities`.
        seed: the same seed gives the same images on a CPU; None draws on torch's global random state.
    """
    num_pixels = model.sequence_length
    prompt = torch.zeros(1, 0, dtype=torch.long) if prompt is None else torch.as_tensor(prompt)
    prompt = prompt.unsqueeze(0) if prompt.dim() == 1 else prompt
    check_tokens("prompt", prompt, model.num_levels, 0, num_pixels - 1)
    start = prompt.shape[1]
    groups = torch.tensor(getattr(model, "groups", [1] * num_pixels)).cumsum(0)  # where each group of pixels ends
    first = bool((drawing_order(model)[:start] < start).all()) and (start == 0 or start in groups)
    wanted = "prompt must be the tokens that the model draws first, such as whole rows of its patches"
    check_agreement(wanted, first, f"{start} tokens")
    images = F.pad(prompt, (0, num_pixels - start))
    knobs = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    return _draw_rest(model, images, start, labels, count, seed=seed, **knobs)


def _draw_rest(model, images, start, labels=None, count=None, seed=None, **knobs) -> Samples:
    """Draw all but the first `start` pixels, in the model's order, of images (B, N), or of one image for all."""
    device, num_pixels, order = next(model.parameters()).device, model.sequence_length, drawing_order(model)
    sampling_probabilities(torch.zeros(1, model.num_levels), **knobs)  # bad knobs fail before work
    labels = None if labels is None else torch.as_tensor(labels)
    counts = {"count": count, "labels": None if labels is None else labels.numel()}
    counts["prompt"] = len(images) if len(images) != 1 else None
    given = {name: number for name, number in counts.items() if number is not None}
    agree = len(set(given.values())) <= 1 and min(given.values(), default=1) >= 1
    check_agreement("labels, count and prompt must ask for the same number of images, at least 1", agree, given)
    batch_size = next(iter(given.values()), 1)
    check_labels(labels, model.num_classes, batch_size)
    labels = None if labels is None else labels.to(device).long()

    generator = dice(seed, device)
    tokens = images.to(device).long()[:, order].repeat(batch_size // len(images), 1)
    probabilities = torch.ones(batch_size, num_pixels, device=device)
    entropies = torch.zeros(batch_size, num_pixels, device=device)
    cache, t = Cache(), 0
    bar = progress(unit="pixel", total=num_pixels)
    with bar, drawing(model, batch_size), torch.inference_mode():  # a tenth faster than no_grad, one at a time
        for size in getattr(model, "groups", [1] * num_pixels):
            now = slice(t, t + size)  # pixels that are drawn together
            t += size
            bar.update(size)
            if t <= start:
                continue
            logits = model.next_pixels(tokens[:, :t], labels, cache, now.start)  # (B, size, K)
            distribution = sampling_probabilities(logits, **knobs)
            drawn = draw(distribution, generator)  # (B, size)
            tokens[:, now] = drawn
            probabilities[:, now] = distribution.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)
            entropies[:, now] = entropy_bits(distribution)
    raster = order.argsort()
    return Samples(*(part[:, raster].cpu() for part in (tokens, probabilities, entropies)))


def complete(
    model: nn.Module, tokens: Tensor, keep_rows: int | None = None, known: Tensor | None = None, **options
) -> Samples:
    """Keep a part of images and draw the rest.

    Args:
        model: any model of the book; with `known`, a model that draws in any order.
        tokens: (N,) or (B, N) tokens of whole images; the values of the rest do not matter.
        keep_rows: how many rows to keep from the top, from 0 to image_size - 1.
        known: instead of keep_rows, (N,) bool: False for the pixels to draw, in raster order, after all the others.
        options: labels, count, temperature, top_k, top_p and seed, as `generate` takes them.
    """
    check_agreement("either keep_rows or known must be given", (keep_rows is None) != (known is None), "both or none")
    tokens, num_pixels = torch.as_tensor(tokens), model.sequence_length
    allowed = (num_pixels,), (len(tokens) if tokens.dim() else 0, num_pixels)
    check_shape("tokens", tokens, *allowed, words=f"({num_pixels},) or (B, {num_pixels})")
    if known is None:
        check_range(0, model.image_size - 1, keep_rows=keep_rows)
        return generate(model, prompt=tokens[..., : keep_rows * model.channels * model.image_size], **options)
    any_order, learned = getattr(model, "any_order", False), getattr(model, "config", {}).get("order", "raster")
    check_agreement("model must have learned any order if known is given", any_order, f"{learned} order")
    images, known = tokens.view(-1, num_pixels), torch.as_tensor(known)
    check_tokens("tokens", images, model.num_levels, num_pixels, num_pixels)
    check_bool("known", known)
    check_shape("known", known, (num_pixels,))
    before = model.order
    try:
        model.order = torch.argsort(~known, stable=True).to(before.device)  # the hole last
        return _draw_rest(model, images, int(known.sum()), **options)
    finally:
        model.order = before


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

    Many images, the particles, are drawn at once. At a known pixel, every particle copies it and multiplies its weight
    by the probability that it gave to this pixel. When few particles have nearly all the weight, they are copied and
    the rest is dropped (Doucet et al., 2001). A single particle ignores the known pixels after the hole.

    Args:
        model: any model of the book.
        tokens: (N,) of a whole image; the values in the hole do not matter.
        known: (N,) bool, False in the hole.
        label: the class of the image, for a conditional model.
        particles: their number P, at least 1.
        seed: the same seed gives the same images on a CPU; None draws on torch's global random state.
    """
    device, num_pixels = next(model.parameters()).device, model.sequence_length
    tokens, known = torch.as_tensor(tokens), torch.as_tensor(known)
    check_tokens("tokens", tokens.unsqueeze(0), model.num_levels, num_pixels, num_pixels)
    check_bool("known", known)
    check_shape("known", known, tuple(tokens.shape))
    check_at_least(1, particles=particles)
    labels = None if label is None else torch.full((particles,), label, device=device)
    check_labels(labels, model.num_classes, particles)
    generator = dice(seed, device)
    order = drawing_order(model).cpu()
    tokens, known = tokens[order].tolist(), known[order].tolist()
    drawn = torch.zeros(particles, num_pixels, dtype=torch.long, device=device)
    log_weights, bits = torch.zeros(particles, device=device), 0.0
    cache = Cache()
    with drawing(model, particles):
        for t in progress(range(num_pixels), unit="pixel"):
            logits = model.next_pixels(drawn[:, : t + 1], labels, cache, t)[:, 0]
            log_probabilities = logits.float().log_softmax(-1)  # (P, K)
            if not known[t]:
                drawn[:, t] = draw(log_probabilities.exp(), generator)
                continue
            drawn[:, t] = tokens[t]
            log_weights += log_probabilities[:, tokens[t]]
            weights = log_weights.softmax(0)
            if 2 / weights.square().sum() < particles or t == num_pixels - 1:  # few are effective: start afresh
                bits -= (log_weights.logsumexp(0).item() - math.log(particles)) / math.log(2)
                rows = resample(weights, generator)
                drawn = drawn[rows]
                cache.select(rows)
                log_weights.zero_()
    if not known[-1]:  # the last pixels were drawn: the weights so far still stand
        bits -= (log_weights.logsumexp(0).item() - math.log(particles)) / math.log(2)
        drawn = drawn[resample(log_weights.softmax(0), generator)]
    return Inpainted(drawn.cpu()[:, order.argsort()], bits)


def resample(weights: Tensor, generator: torch.Generator | None) -> Tensor:
    """Numbers (P,) of particles, each as often as its weight (P,) says, to within one (systematic resampling)."""
    count = len(weights)
    start = torch.rand(1, generator=generator, device=weights.device)
    ticks = (torch.arange(count, device=weights.device) + start) / count
    return torch.searchsorted(weights.cumsum(0), ticks).clamp(max=count - 1)
