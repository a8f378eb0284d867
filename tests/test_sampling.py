"""Sampling: that what is drawn, and what is said of it, are those of the model's own distribution."""

import itertools
import math

import pytest
import torch

import ar_helpers as ar

MODELS = (ar.OneHotMLP, ar.PositionalMLP, ar.ConditionalMLP, ar.PixelTransformer)
every_model = pytest.mark.parametrize("model_class", MODELS)


def build(model_class=ar.PositionalMLP, num_levels=3, image_size=3):
    torch.manual_seed(0)
    more = {"num_classes": 4} if model_class in (ar.ConditionalMLP, ar.PixelTransformer) else {}
    if model_class is ar.PixelTransformer:
        more |= {"width": 16, "depth": 1, "heads": 2}
    else:
        more |= {"context_length": 4, "hidden_size": 16}
    model = model_class(num_levels=num_levels, image_size=image_size, dropout=0.5, **more)
    for parameter in model.parameters():
        parameter.data.mul_(2)
    return model.eval()


def labels_for(model, count):
    return [i % model.num_classes for i in range(count)] if model.num_classes else None


def random_logits(rows=200, num_levels=16, scale=2.0):
    return scale * torch.randn(rows, num_levels, generator=torch.Generator().manual_seed(0))


# --- sampling_probabilities ---------------------------------------------------------------------------------------


def slow_top_k(probabilities, k):
    """Keep the k likeliest of a list, the first ones among equals, and scale to sum to 1."""
    kept = sorted(range(len(probabilities)), key=lambda i: (-probabilities[i], i))[:k]
    total = sum(probabilities[i] for i in kept)
    return [p / total if i in kept else 0.0 for i, p in enumerate(probabilities)]


def slow_top_p(probabilities, p):
    """Keep the likeliest, one after the other, until they reach p, and scale to sum to 1."""
    kept, reached = [], 0.0
    for i in sorted(range(len(probabilities)), key=lambda i: (-probabilities[i], i)):
        if reached >= p:
            break
        kept.append(i)
        reached += probabilities[i]
    return [q / reached if i in kept else 0.0 for i, q in enumerate(probabilities)]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_temperature_divides_the_logits(temperature):
    logits = random_logits()
    expected = (logits.double() / temperature).softmax(-1).float()
    torch.testing.assert_close(ar.sampling_probabilities(logits, temperature), expected)


@pytest.mark.parametrize("top_k", [1, 2, 5, 15, 16, 99])
def test_top_k_equals_the_slow_version(top_k):
    logits = random_logits()
    expected = torch.tensor([slow_top_k(row, top_k) for row in logits.double().softmax(-1).tolist()])
    torch.testing.assert_close(ar.sampling_probabilities(logits, top_k=top_k), expected)


@pytest.mark.parametrize("top_p", [1e-9, 0.1, 0.5, 0.9, 0.999])
def test_top_p_equals_the_slow_version(top_p):
    logits = random_logits()
    expected = torch.tensor([slow_top_p(row, top_p) for row in logits.double().softmax(-1).tolist()])
    torch.testing.assert_close(ar.sampling_probabilities(logits, top_p=top_p), expected)


def test_temperature_comes_first_then_top_k_then_top_p():
    logits = random_logits(scale=3)
    softened = (logits.double() / 2.5).softmax(-1).tolist()
    expected = torch.tensor([slow_top_p(slow_top_k(row, 6), 0.7) for row in softened])
    torch.testing.assert_close(ar.sampling_probabilities(logits, 2.5, top_k=6, top_p=0.7), expected)


def test_top_k_keeps_exactly_k_even_where_they_tie():
    for num_levels in (2, 16, 256):
        for ties in (torch.zeros(3, num_levels), torch.randint(2, (50, num_levels)).float()):
            for k in (1, 2, num_levels // 2, num_levels):
                kept = ar.sampling_probabilities(ties, top_k=k)
                assert ((kept > 0).sum(-1) == k).all()
                torch.testing.assert_close(kept.sum(-1), torch.ones(len(ties)))


def test_top_p_on_exact_ties_takes_no_more_than_it_needs():
    quarters = torch.zeros(1, 4)
    for top_p, kept in ((0.25, 1), (0.26, 2), (0.5, 2), (0.75, 3), (0.76, 4), (1.0, 4)):
        assert (ar.sampling_probabilities(quarters, top_p=top_p) > 0).sum() == kept


def test_all_tokens_kept_is_the_plain_distribution():
    logits = random_logits(num_levels=256, scale=6)
    plain = ar.sampling_probabilities(logits)
    torch.testing.assert_close(ar.sampling_probabilities(logits, top_k=256), plain)
    assert torch.equal(ar.sampling_probabilities(logits, top_p=1.0) > 0, plain > 0)
    torch.testing.assert_close(ar.sampling_probabilities(logits, top_p=1.0), plain)


@pytest.mark.parametrize("temperature", [1e-2, 1e-30, 1e-45, 1e-60, 1e-320])
def test_a_temperature_near_0_is_greedy(temperature):
    logits = random_logits().argsort(-1).float()  # 0 to 15 in some order: no near ties
    greedy = torch.nn.functional.one_hot(logits.argmax(-1), 16).float()
    torch.testing.assert_close(ar.sampling_probabilities(logits, temperature), greedy)


def test_a_high_temperature_is_uniform():
    torch.testing.assert_close(ar.sampling_probabilities(random_logits(), 1e30), torch.full((200, 16), 1 / 16))


def test_the_logits_are_left_as_they_were():
    logits = random_logits()
    before = logits.clone()
    ar.sampling_probabilities(logits, 0.5, top_k=3, top_p=0.5)
    assert torch.equal(logits, before)


BAD_KNOBS = [("temperature", bad) for bad in (0, 0.0, -1.0, math.inf, math.nan)]
BAD_KNOBS += [("top_k", bad) for bad in (0, -3)] + [("top_p", bad) for bad in (0, 0.0, 1.1, -0.5, math.nan)]


@pytest.mark.parametrize(("name", "value"), BAD_KNOBS)
def test_a_knob_outside_its_range_is_named(name, value):
    model = build()
    tokens = torch.zeros(9, dtype=torch.long)
    for use in (
        lambda **knob: ar.sampling_probabilities(random_logits(), **knob),
        lambda **knob: ar.generate(model, **knob),
        lambda **knob: ar.complete(model, tokens, 1, **knob),
    ):
        with pytest.raises(ValueError, match=f"{name} must .*, not {value}"):
            use(**{name: value})


# --- generate -----------------------------------------------------------------------------------------------------


@every_model
def test_the_same_seed_gives_the_same_samples_and_another_seed_others(model_class):
    model = build(model_class)
    labels = labels_for(model, 8)
    first = ar.generate(model, labels, count=8, seed=1)
    torch.rand(3)  # whatever the global random state
    again = ar.generate(model, labels, count=8, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(ar.generate(model, labels, count=8, seed=2).tokens, first.tokens)


def test_without_a_seed_the_global_random_state_decides():
    model = build()
    torch.manual_seed(5)
    first, second = ar.generate(model, count=8).tokens, ar.generate(model, count=8).tokens
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(ar.generate(model, count=8).tokens, first)
    before = torch.random.get_rng_state()
    ar.generate(model, count=8, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("knobs", [{}, {"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.8}])
def test_images_are_drawn_as_often_as_they_are_probable(knobs):
    model = build(image_size=2)
    every = torch.tensor(list(itertools.product(range(3), repeat=4)))  # (81, 4)
    each = ar.sampling_probabilities(model.image_logits(every), **knobs)
    probable = each.gather(-1, every.unsqueeze(-1)).squeeze(-1).double().prod(1)  # (81,)
    torch.testing.assert_close(probable.sum().item(), 1.0, rtol=0, atol=1e-5)
    drawn = ar.generate(model, count=20_000, seed=0, **knobs).tokens
    counts = torch.bincount(drawn @ torch.tensor([27, 9, 3, 1]), minlength=81).double()
    expected = 20_000 * probable
    assert counts[expected == 0].sum() == 0
    common = expected > 5
    chi_square = ((counts - expected) ** 2 / expected)[common].sum().item()
    degrees = common.sum().item()
    assert degrees > 5
    assert chi_square < degrees + 4 * math.sqrt(2 * degrees)


@every_model
@pytest.mark.parametrize("knobs", [{}, {"temperature": 0.4, "top_k": 2}, {"temperature": 3.0, "top_p": 0.7}])
def test_probabilities_and_entropies_are_of_the_distribution_that_was_sampled(model_class, knobs):
    model = build(model_class)
    labels = labels_for(model, 6)
    samples = ar.generate(model, labels, count=6, seed=3, **knobs)
    assert (samples.tokens.dtype, samples.probabilities.dtype) == (torch.int64, torch.float32)
    for t in range(9):
        logits = model.next_logits(samples.tokens[:, :t], None if labels is None else torch.tensor(labels))
        for row, distribution in enumerate(ar.sampling_probabilities(logits, **knobs).tolist()):
            token = samples.tokens[row, t].item()
            entropy = -sum(p * math.log2(p) for p in distribution if p)
            assert samples.probabilities[row, t].item() == pytest.approx(distribution[token], abs=1e-5)
            assert samples.entropies[row, t].item() == pytest.approx(entropy, abs=1e-4)
    assert samples.probabilities.min() > 0
    assert 0 <= samples.entropies.min() <= samples.entropies.max() <= math.log2(3) + 1e-6


@every_model
def test_a_cold_sample_takes_the_likeliest_pixel_each_time(model_class):
    model = build(model_class)
    labels = labels_for(model, 4)
    given = None if labels is None else torch.tensor(labels)
    tokens = torch.zeros(4, 0, dtype=torch.long)
    for _ in range(9):
        tokens = torch.cat([tokens, model.next_logits(tokens, given).argmax(-1, keepdim=True)], 1)
    for knobs in ({"temperature": 1e-6}, {"top_k": 1}, {"top_p": 1e-6}):
        samples = ar.generate(model, labels, count=4, seed=0, **knobs)
        assert torch.equal(samples.tokens, tokens)
        torch.testing.assert_close(samples.probabilities, torch.ones(4, 9))


@pytest.mark.parametrize("length", [0, 1, 4, 8])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_the_prompt_is_kept(length, dtype):
    model = build()
    prompt = torch.randint(3, (5, length), generator=torch.Generator().manual_seed(0)).to(dtype)
    samples = ar.generate(model, prompt=prompt, seed=0)
    assert samples.tokens.shape == (5, 9)
    assert torch.equal(samples.tokens[:, :length], prompt.long())
    assert (samples.probabilities[:, :length] == 1).all()
    assert (samples.entropies[:, :length] == 0).all()
    assert (samples.entropies[:, length:] > 0).all()
    one = ar.generate(model, prompt=prompt[0], count=7, seed=0).tokens
    assert torch.equal(one[:, :length], prompt[:1].long().expand(7, -1))


def test_images_beginning_alike_go_on_alike_but_for_chance():
    model = build()
    drawn = ar.generate(model, prompt=torch.tensor([1, 2, 0]), count=3000, seed=0)
    expected = model.next_logits(torch.tensor([[1, 2, 0]])).softmax(-1)[0]
    torch.testing.assert_close(torch.bincount(drawn.tokens[:, 3], minlength=3) / 3000, expected, rtol=0, atol=0.04)


@pytest.mark.parametrize("keep_rows", [0, 1, 2])
@every_model
def test_complete_keeps_the_rows_and_draws_the_rest(model_class, keep_rows):
    model = build(model_class)
    tokens = torch.randint(3, (4, 9), generator=torch.Generator().manual_seed(0))
    samples = ar.complete(model, tokens, keep_rows, labels=labels_for(model, 4), seed=0)
    assert torch.equal(samples.tokens[:, : 3 * keep_rows], tokens[:, : 3 * keep_rows])
    assert not torch.equal(samples.tokens, tokens)
    prompted = ar.generate(model, labels_for(model, 4), prompt=tokens[:, : 3 * keep_rows], seed=0)
    assert torch.equal(samples.tokens, prompted.tokens)


def test_the_rows_that_are_not_kept_do_not_matter():
    model = build()
    tokens = torch.zeros(2, 9, dtype=torch.long)
    changed = tokens.clone()
    changed[:, 3:] = 2
    a, b = (ar.complete(model, t, 1, seed=0).tokens for t in (tokens, changed))
    assert torch.equal(a, b)


def test_one_image_is_completed_as_often_as_asked():
    assert ar.complete(build(), torch.zeros(9, dtype=torch.uint8), 1, count=5, seed=0).tokens.shape == (5, 9)


def test_labels_may_be_a_list_or_a_tensor_and_steer():
    model = build(ar.ConditionalMLP)
    of_list = ar.generate(model, [0, 1, 2, 3], seed=0).tokens
    assert torch.equal(ar.generate(model, torch.tensor([0, 1, 2, 3]), seed=0).tokens, of_list)
    assert torch.equal(ar.generate(model, torch.tensor([0, 1, 2, 3], dtype=torch.uint8), seed=0).tokens, of_list)
    assert not torch.equal(ar.generate(model, [1, 2, 3, 0], seed=0).tokens, of_list)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_is_restored_even_after_an_error(training, monkeypatch):
    model = build()
    expected = ar.generate(model, count=4, seed=0).tokens
    model.train(training)
    assert torch.equal(ar.generate(model, count=4, seed=0).tokens, expected)
    assert model.training == training
    monkeypatch.setattr(model, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ar.generate(model, count=4)
    assert model.training == training


def test_drawn_images_may_be_trained_on():
    samples = ar.generate(build(), count=2, seed=0)
    assert not any(part.is_inference() for part in samples)
    embedding = torch.nn.Embedding(3, 2)
    embedding(samples.tokens).sum().backward()
    assert embedding.weight.grad.sum() == samples.tokens.numel() * 2


def test_one_image_is_drawn_when_nothing_is_said():
    assert ar.generate(build()).tokens.shape == (1, 9)


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        (torch.tensor([0, 3]), ValueError, "prompt must be from 0 to 2, not 3"),  # the start token
        (torch.tensor([0, -1]), ValueError, "prompt must be from 0 to 2, not -1"),
        (torch.zeros(9, dtype=torch.long), ValueError, r"prompt must have shape .*t from 0 to 8, not \(1, 9\)"),
        (torch.zeros(2, 2, 2, dtype=torch.long), ValueError, r"prompt must have shape .*not \(2, 2, 2\)"),
        (torch.tensor(1), ValueError, r"prompt must have shape .*not \(\)"),
        (torch.zeros(4), TypeError, r"prompt must be a tensor of integers, not torch\.float32"),
    ],
)
def test_a_bad_prompt_is_named(prompt, error, message):
    with pytest.raises(error, match=message):
        ar.generate(build(), prompt=prompt)


def test_bad_labels_are_named():
    conditional, unconditional = build(ar.ConditionalMLP), build()
    for bad in (-1, 4):
        with pytest.raises(ValueError, match=f"labels must be from 0 to 3, not {bad}"):
            ar.generate(conditional, [0, bad])
    with pytest.raises(ValueError, match="labels must be given"):
        ar.generate(conditional, count=2)
    with pytest.raises(ValueError, match="labels must be None"):
        ar.generate(unconditional, [0, 1])
    with pytest.raises(TypeError, match="labels must be a tensor of integers"):
        ar.generate(conditional, [0.5, 1.0])


def test_numbers_of_images_that_do_not_agree_are_named():
    conditional, prompt = build(ar.ConditionalMLP), torch.zeros(3, 2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"same number of images.*'count': 3, 'labels': 2"):
        ar.generate(conditional, [0, 1], count=3)
    with pytest.raises(ValueError, match=r"same number of images.*'labels': 2, 'prompt': 3"):
        ar.generate(conditional, [0, 1], prompt=prompt)
    with pytest.raises(ValueError, match=r"same number of images.*'count': 2, 'prompt': 3"):
        ar.generate(build(), count=2, prompt=prompt)
    for count in (0, -1):
        with pytest.raises(ValueError, match=f"at least 1, not {{'count': {count}}}"):
            ar.generate(build(), count=count)
    with pytest.raises(ValueError, match=r"at least 1, not {'labels': 0}"):
        ar.generate(conditional, [])


def test_complete_names_rows_and_shapes_that_do_not_fit():
    tokens = torch.zeros(2, 9, dtype=torch.long)
    for keep_rows in (-1, 3):
        with pytest.raises(ValueError, match=f"keep_rows must be from 0 to 2, not {keep_rows}"):
            ar.complete(build(), tokens, keep_rows)
    for shape in ((2, 8), (2, 3, 3), ()):
        with pytest.raises(ValueError, match=r"tokens must have shape \(9,\) or \(B, 9\)"):
            ar.complete(build(), torch.zeros(shape, dtype=torch.long), 1)


# --- prediction_maps ----------------------------------------------------------------------------------------------


def test_prediction_maps_are_what_the_definition_says():
    logits = random_logits(rows=30, num_levels=5).reshape(5, 6, 5)
    tokens = torch.randint(5, (5, 6), generator=torch.Generator().manual_seed(0))
    probabilities, entropies = ar.prediction_maps(logits, tokens)
    assert probabilities.shape == entropies.shape == (5, 6)
    for i, j in itertools.product(range(5), range(6)):
        distribution = logits[i, j].double().softmax(-1).tolist()
        assert probabilities[i, j].item() == pytest.approx(distribution[tokens[i, j]], abs=1e-6)
        assert entropies[i, j].item() == pytest.approx(-sum(p * math.log2(p) for p in distribution), abs=1e-5)


def test_prediction_maps_of_a_sample_are_those_it_came_with():
    model = build()
    samples = ar.generate(model, count=4, seed=0)
    probabilities, entropies = ar.prediction_maps(model.image_logits(samples.tokens), samples.tokens)
    torch.testing.assert_close(probabilities.detach(), samples.probabilities)
    torch.testing.assert_close(entropies.detach(), samples.entropies)


def test_entropy_runs_from_none_when_certain_to_log2_of_the_levels_when_uniform():
    certain = torch.tensor([[0.0, -1e9, -torch.inf]])
    probabilities, entropies = ar.prediction_maps(torch.cat([certain, torch.zeros(1, 3)]), torch.tensor([0, 1]))
    assert probabilities.tolist() == pytest.approx([1, 1 / 3])
    assert entropies.tolist() == pytest.approx([0, math.log2(3)])


def test_prediction_maps_want_shapes_that_agree():
    with pytest.raises(ValueError, match=r"tokens must have the shape of logits less its last axis, not \(4,\)"):
        ar.prediction_maps(torch.zeros(5, 3), torch.zeros(4, dtype=torch.long))


# --- inpaint and label_beliefs ------------------------------------------------------------------------------------


@torch.no_grad()
def every_image(model):
    """All images of a tiny model (K ** N, N) and their exact probabilities (K ** N,)."""
    num_pixels = model.image_size**2
    images = torch.tensor(list(itertools.product(range(model.num_levels), repeat=num_pixels)))
    labels = torch.ones(len(images), dtype=torch.long) if model.num_classes else None
    logits = model.image_logits(images, labels)
    return images, logits.double().softmax(-1).gather(-1, images.unsqueeze(-1)).squeeze(-1).prod(1)


HOLES = {"in the middle": [1, 0, 0, 1], "at the end": [1, 1, 0, 0], "at the start": [0, 0, 1, 1], "none": [1] * 4}
HOLES |= {"two": [0, 1, 0, 1]}


@pytest.mark.parametrize("hole", HOLES.values(), ids=HOLES)
@pytest.mark.parametrize("model_class", [ar.PositionalMLP, ar.PixelTransformer])
def test_inpainting_draws_from_the_exact_posterior(model_class, hole):
    model = build(model_class, image_size=2)
    known, tokens = torch.tensor(hole, dtype=torch.bool), torch.tensor([0, 1, 2, 1])
    images, probable = every_image(model)
    probable[(images != tokens)[:, known].any(1)] = 0.0
    filled = ar.inpaint(model, tokens, known, 1 if model.num_classes else None, particles=20_000, seed=0)
    assert (filled.tokens[:, known] == tokens[known]).all()
    assert filled.bits == pytest.approx(-math.log2(probable.sum()), abs=0.02)
    drawn = torch.bincount(filled.tokens @ torch.tensor([27, 9, 3, 1]), minlength=81) / 20_000
    torch.testing.assert_close(drawn.double(), probable / probable.sum(), rtol=0, atol=0.015)


@pytest.mark.parametrize("model_class", [ar.ConditionalMLP, ar.PixelTransformer])
def test_inpainting_many_holes_drops_and_copies_particles_and_stays_exact(model_class, monkeypatch):
    model = build(model_class)
    for parameter in model.parameters():
        parameter.data.mul_(1.5)  # surer of itself, so that weights differ much
    known, tokens = torch.arange(9) % 2 == 1, torch.tensor([0, 0, 2, 2, 1, 2, 0, 0, 0])
    images, probable = every_image(model)
    probable[(images != tokens)[:, known].any(1)] = 0.0
    times, resample = [], ar.sampling.resample
    monkeypatch.setattr(ar.sampling, "resample", lambda *given: times.append(1) or resample(*given))
    filled = ar.inpaint(model, tokens, known, 1, particles=20_000, seed=0)
    assert len(times) >= 2
    assert filled.bits == pytest.approx(-math.log2(probable.sum()), abs=0.05)
    for t in range(9):
        exact = torch.stack([probable[images[:, t] == level].sum() for level in range(3)]) / probable.sum()
        drawn = torch.bincount(filled.tokens[:, t], minlength=3) / 20_000
        torch.testing.assert_close(drawn.double(), exact, rtol=0, atol=0.03)


def test_inpainting_with_a_cache_is_inpainting_without(monkeypatch):
    model = build(ar.PixelTransformer)
    for parameter in model.parameters():
        parameter.data.mul_(1.5)
    known, tokens = torch.arange(9) % 2 == 1, torch.tensor([0, 0, 2, 2, 1, 2, 0, 0, 0])
    cached = ar.inpaint(model, tokens, known, 1, particles=500, seed=0)
    next_pixels = model.next_pixels
    monkeypatch.setattr(model, "next_pixels", lambda tokens, labels, cache, t: next_pixels(tokens, labels, None, t))
    uncached = ar.inpaint(model, tokens, known, 1, particles=500, seed=0)
    assert torch.equal(cached.tokens, uncached.tokens)
    assert cached.bits == pytest.approx(uncached.bits, abs=1e-4)


def test_few_particles_are_right_on_average_about_the_probability_of_what_is_known():
    model = build(ar.PixelTransformer, image_size=2)
    known, tokens = torch.tensor([False, True, False, True]), torch.tensor([0, 1, 2, 1])
    images, probable = every_image(model)
    exact = probable[(images == tokens)[:, known].all(1)].sum().item()
    estimates = [2 ** -ar.inpaint(model, tokens, known, 1, particles=3, seed=seed).bits for seed in range(400)]
    error = torch.tensor(estimates).std().item() / 20
    assert abs(sum(estimates) / 400 - exact) < 4 * error
    assert error < 0.1 * exact


def test_one_particle_draws_from_left_to_right_as_generate_does():
    model = build()
    tokens, known = torch.tensor([1, 2, 0, 0, 1, 2, 0, 0, 0]), torch.arange(9) < 3
    alone = ar.inpaint(model, tokens, known, particles=1, seed=4)
    assert torch.equal(alone.tokens, ar.generate(model, prompt=tokens[:3], seed=4).tokens)
    again = ar.inpaint(model, tokens, known, particles=1, seed=4)
    assert torch.equal(alone.tokens, again.tokens)
    assert alone.bits == again.bits


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"known": torch.ones(9)}, TypeError, r"known must be a tensor of bool, not torch\.float32"),
        ({"known": torch.ones(4, dtype=torch.bool)}, ValueError, r"known must have shape \(9,\), not \(4,\)"),
        ({"tokens": torch.full((9,), 3)}, ValueError, "tokens must be from 0 to 2, not 3"),
        ({"tokens": torch.zeros(9)}, TypeError, "tokens must be a tensor of integers"),
        ({"particles": 0}, ValueError, "particles must be at least 1, not 0"),
        ({"label": 4}, ValueError, "labels must be from 0 to 3, not 4"),
        ({"label": None}, ValueError, "labels must be given"),
    ],
)
def test_inpaint_names_what_is_wrong(change, error, message):
    right = {"tokens": torch.zeros(9, dtype=torch.long), "known": torch.ones(9, dtype=torch.bool), "label": 1}
    with pytest.raises(error, match=message):
        ar.inpaint(build(ar.ConditionalMLP), **right | change)


@pytest.mark.parametrize("model_class", [ar.ConditionalMLP, ar.PixelTransformer])
def test_beliefs_are_bayes_rule_pixel_by_pixel(model_class):
    model = build(model_class)
    tokens = torch.randint(3, (2, 9), generator=torch.Generator().manual_seed(0))
    beliefs = ar.label_beliefs(model, tokens)
    assert beliefs.shape == (2, 10, 4)
    torch.testing.assert_close(beliefs[:, 0], torch.full((2, 4), 0.25))
    for row, t in itertools.product(range(2), range(10)):
        joint = []
        for label in range(4):
            given, probability = torch.tensor([label]), 1.0
            for i in range(t):
                distribution = model.next_logits(tokens[row : row + 1, :i], given).softmax(-1)[0]
                probability *= distribution[tokens[row, i]].item()
            joint.append(probability)
        assert beliefs[row, t].tolist() == pytest.approx([p / sum(joint) for p in joint], abs=1e-4)


def test_beliefs_need_a_conditional_model():
    with pytest.raises(ValueError, match="model must be conditional, not one with num_classes=0"):
        ar.label_beliefs(build(), torch.zeros(1, 9, dtype=torch.long))
