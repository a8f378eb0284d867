"""What every model of the book owes: logits of a pixel that depend on the pixels before it, and on nothing else."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from chapter_models import MaskedPixelCNN
from torch import nn

import ar_helpers as ar
from ar_helpers.models.greys import GreyOutput, GreyStem, grey_waves
from ar_helpers.models.transformer import Attention, CausalStem, PreviousPixel, neighbour_places

MLPS = (ar.OneHotMLP, ar.PositionalMLP, ar.ConditionalMLP)
TRANSFORMERS = {
    "transformer": {"num_classes": 4},
    "plain transformer": {"num_classes": 4, "stem": False},
    "unconditional transformer": {"num_classes": 0},
    "transformer without positions": {"num_classes": 4, "positions": "none"},
    "grey transformer": {"num_classes": 4, "waves": 2},
}
CONVOLUTIONS = {
    "masked convolutions": {"num_classes": 4},
    "two stacks": {"num_classes": 4, "gates": False},
    "gated stacks": {"num_classes": 0, "gates": True},
}
every_mlp = pytest.mark.parametrize("model_class", MLPS)
every_sequence_model = pytest.mark.parametrize("model_class", [*TRANSFORMERS, *CONVOLUTIONS])
every_model = pytest.mark.parametrize("model_class", [*MLPS, *TRANSFORMERS, *CONVOLUTIONS])


def build(model_class, num_levels=3, image_size=3, context_length=4, **more):
    """A tiny model, far from uniform, that is ready for use."""
    torch.manual_seed(0)
    if model_class in TRANSFORMERS:
        sizes = {"width": 16, "depth": 2, "heads": 2, "dropout": 0.5}
        made = ar.GreyTransformer if "waves" in TRANSFORMERS[model_class] else ar.PixelTransformer
        model = made(num_levels, image_size, **TRANSFORMERS[model_class] | sizes | more)
    elif model_class in CONVOLUTIONS:
        sizes = {"width": 16, "depth": 4, "dropout": 0.5}
        made = ar.PixelCNN if "gates" in CONVOLUTIONS[model_class] else MaskedPixelCNN
        model = made(num_levels, image_size, **CONVOLUTIONS[model_class] | sizes | more)
    else:
        more = {"num_classes": 4} | more if model_class is ar.ConditionalMLP else more
        model = model_class(num_levels, image_size, context_length, hidden_size=16, dropout=0.5, **more)
    for parameter in model.parameters():
        parameter.data.mul_(3)
    return model.eval()


def labels_for(model, count):
    return torch.arange(count) % model.num_classes if model.num_classes else None


def random_tokens(model, count=5):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(model.num_levels, (count, model.image_size**2), generator=generator)


def assert_close_logits(actual, expected):
    """Equal but for rounding: a logit near 0 can be the sum of terms as large as the largest logit."""
    torch.testing.assert_close(actual, expected, rtol=1.3e-6, atol=5e-6 * max(2.0, expected.abs().max().item()))


@pytest.mark.parametrize(("model_class", "count"), list(zip(MLPS, (1_554_448, 1_621_776, 1_609_920), strict=True)))
def test_parameter_counts_are_those_of_the_book(model_class, count):
    assert sum(parameter.numel() for parameter in model_class().parameters()) == count


@every_model
def test_no_logits_depend_on_their_own_pixel_or_a_later_one(model_class):
    model = build(model_class)
    tokens, labels = random_tokens(model), labels_for(model, 5)
    logits = model.image_logits(tokens, labels)
    for t in range(9):
        changed = tokens.clone()
        changed[:, t:] = (changed[:, t:] + 1) % 3
        assert torch.equal(model.image_logits(changed, labels)[:, : t + 1], logits[:, : t + 1])


@every_mlp
def test_all_the_logits_within_the_context_depend_on_a_pixel_and_none_beyond(model_class):
    model = build(model_class)
    tokens, labels = random_tokens(model), labels_for(model, 5)
    logits = model.image_logits(tokens, labels)
    for t in range(9):
        changed = tokens.clone()
        changed[:, t] = (changed[:, t] + 1) % 3
        moved = (model.image_logits(changed, labels) != logits).any(-1).any(0)  # (N,)
        assert moved.tolist() == [t < i <= t + 4 for i in range(9)]


@every_model
@pytest.mark.parametrize("context_length", [1, 4, 9, 20])
@pytest.mark.parametrize("num_levels", [2, 3, 256])
def test_image_logits_equal_stepping_with_next_logits(model_class, context_length, num_levels):
    model = build(model_class, num_levels, context_length=context_length)
    tokens, labels = random_tokens(model), labels_for(model, 5)
    whole = model.image_logits(tokens, labels)
    assert whole.shape == (5, 9, num_levels)
    for t in range(9):
        assert_close_logits(model.next_logits(tokens[:, :t], labels), whole[:, t])


@every_model
def test_probabilities_of_all_images_sum_to_one(model_class):
    model = build(model_class, image_size=2)
    every = torch.tensor(list(itertools.product(range(3), repeat=4)))  # (81, 4)
    for label in range(max(model.num_classes, 1)):
        labels = torch.full((81,), label) if model.num_classes else None
        log_probabilities = model.image_logits(every, labels).double().log_softmax(-1)
        of_images = log_probabilities.gather(-1, every.unsqueeze(-1)).sum((1, 2)).exp()
        assert of_images.max() > 3 / 81  # the model is not close to uniform, for which this would be easy
        torch.testing.assert_close(of_images.sum().item(), 1.0, rtol=0, atol=1e-6)


@every_mlp
def test_forward_on_context_windows_gives_image_logits(model_class):
    model = build(model_class)
    tokens, labels = random_tokens(model), labels_for(model, 5)
    windows = ar.ContextWindows(tokens, labels, context_length=4, num_levels=3)
    inputs, _ = windows[torch.arange(len(windows))]
    assert_close_logits(model(*inputs), model.image_logits(tokens, labels).flatten(0, 1))


@every_model
def test_an_image_does_not_depend_on_the_rest_of_its_batch(model_class):
    model = build(model_class)
    tokens, labels = random_tokens(model), labels_for(model, 5)
    whole = model.image_logits(tokens, labels)
    for i in range(5):
        alone = model.image_logits(tokens[i : i + 1], None if labels is None else labels[i : i + 1])
        assert_close_logits(alone[0], whole[i])


@every_model
def test_the_config_rebuilds_the_model(model_class):
    model = build(model_class)
    again = type(model)(**json.loads(json.dumps(model.config))).eval()
    again.load_state_dict(model.state_dict())
    assert again.config == model.config
    tokens, labels = random_tokens(model), labels_for(model, 5)
    assert torch.equal(again.image_logits(tokens, labels), model.image_logits(tokens, labels))


@every_model
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_tokens_and_labels_of_any_integer_type_mean_the_same(model_class, dtype):
    model = build(model_class, num_levels=256)
    tokens, labels = random_tokens(model), labels_for(model, 5)
    small = None if labels is None else labels.to(dtype)
    assert torch.equal(model.image_logits(tokens.to(dtype), small), model.image_logits(tokens, labels))
    assert torch.equal(model.next_logits(tokens[:, :4].to(dtype), small), model.next_logits(tokens[:, :4], labels))


def test_only_the_positional_models_see_where_they_are():
    for model_class, sees in zip(MLPS, (False, True, True), strict=True):
        model = build(model_class, context_length=2)
        logits = model.image_logits(torch.ones(1, 9, dtype=torch.long), labels_for(model, 1))[0, 2:]  # equal windows
        assert (not torch.allclose(logits[0], logits[1])) == sees


@pytest.mark.parametrize(
    "model_class",
    [ar.ConditionalMLP, "transformer", "plain transformer", "grey transformer", "masked convolutions", "two stacks"],
)
def test_labels_matter_to_a_conditional_model(model_class):
    model = build(model_class)
    same_image = random_tokens(model, 1).expand(4, -1)
    logits = model.image_logits(same_image, torch.arange(4))
    for a, b in itertools.combinations(range(4), 2):
        assert not torch.allclose(logits[a], logits[b])


# --- models with a cache -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", [*TRANSFORMERS, "two stacks", "gated stacks"])
def test_all_later_logits_depend_on_a_pixel(model_class):
    model = build(model_class, image_size=7).double()  # larger than the stem's neighbourhood
    tokens, labels = random_tokens(model), labels_for(model, 5)
    logits = model.image_logits(tokens, labels)
    for t in range(49):
        changed = tokens.clone()
        changed[:, t] = (changed[:, t] + 1) % 3
        moved = (model.image_logits(changed, labels) != logits).any(-1).any(0)  # (N,)
        assert moved.tolist() == [i > t for i in range(49)]


@every_sequence_model
@pytest.mark.parametrize("steps", [[0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 5, 6, 8], [4, 8], [8]])
def test_stepping_with_a_cache_gives_what_stepping_without_gives(model_class, steps):
    model, cache = build(model_class).double(), ar.Cache()
    tokens, labels = random_tokens(model), labels_for(model, 5)
    whole = model.image_logits(tokens, labels)
    for t in steps:  # one token at a time, or several at once
        assert_close_logits(model.next_logits(tokens[:, :t], labels, cache), whole[:, t])
        assert cache.length == t + 1


@every_sequence_model
def test_selected_rows_of_a_cache_go_on_as_those_images_would(model_class):
    model, cache = build(model_class).double(), ar.Cache()
    tokens, labels, rows = random_tokens(model), labels_for(model, 5), torch.tensor([3, 0, 0, 4, 1, 3])
    model.next_logits(tokens[:, :4], labels, cache)
    cache.select(rows)
    tokens, labels = tokens[rows], None if labels is None else labels[rows]
    tokens[:, 4] = torch.arange(6) % 3  # copies part ways here
    torch.testing.assert_close(
        model.next_logits(tokens[:, :5], labels, cache), model.next_logits(tokens[:, :5], labels)
    )


def test_a_cache_of_other_images_is_refused():
    model, cache = build("transformer"), ar.Cache()
    tokens, labels = random_tokens(model), labels_for(model, 5)
    model.next_logits(tokens[:, :4], labels, cache)
    for prefix in (tokens[:, :4], tokens[:2, :6]):  # no new token, fewer images
        with pytest.raises(ValueError, match="cache must be of the same images"):
            model.next_logits(prefix, labels[: len(prefix)], cache)


def test_attention_is_the_textbook_formula():
    torch.manual_seed(0)
    attention, x = Attention(width=6, heads=2, dropout=0.0), torch.randn(2, 5, 6)
    query, key, value = attention.query_key_value(x).split(6, dim=-1)
    heads = []
    for part in (slice(0, 3), slice(3, 6)):
        scores = query[..., part] @ key[..., part].transpose(1, 2) / 3**0.5  # (2, 5, 5)
        scores = scores.masked_fill(~torch.ones(5, 5).tril().bool(), float("-inf"))
        heads.append(scores.softmax(-1) @ value[..., part])
    torch.testing.assert_close(attention(x), attention.output(torch.cat(heads, -1)))


def test_the_stem_sees_the_thirteen_neighbours_and_start_tokens_outside():
    image = torch.arange(1, 37).view(6, 6)  # pixel t holds t + 1, the start token is 0
    seen = F.pad(image.flatten(), (1, 0))[neighbour_places(6)]  # (36, 13)
    around = F.pad(image, (3, 2, 2, 0))  # 0 outside
    for t in range(36):
        row, col = t // 6 + 2, t % 6 + 3
        above = around[row - 2 : row, col - 2 : col + 3]
        left = around[row, col - 3 : col].clone()
        left[2] = t  # the pixel just before, on the row above where this one begins
        wanted = torch.cat([left, above.flatten()])
        assert sorted(seen[t].tolist()) == sorted(wanted.tolist())
        assert seen[t].max() <= t  # nothing of pixel t or later


# --- bad input ----------------------------------------------------------------------------------------------------


def both(model):
    """The two methods, with a tensor of tokens that suits each."""
    return (
        ("tokens", model.image_logits, random_tokens(model)),
        ("prefix", model.next_logits, random_tokens(model)[:, :4]),
    )


@every_model
def test_a_token_outside_the_levels_is_named(model_class):
    model = build(model_class)
    for name, method, tokens in both(model):
        for bad in (-1, 3, 255):  # 3 is the start token: no image holds it
            tokens[1, 2] = bad
            with pytest.raises(ValueError, match=f"{name} must be from 0 to 2, not {bad}"):
                method(tokens, labels_for(model, 5))


@every_model
def test_tokens_of_another_type_or_shape_are_named(model_class):
    model = build(model_class)
    labels = labels_for(model, 5)
    for name, method, tokens in both(model):
        with pytest.raises(TypeError, match=rf"{name} must be a tensor of integers, not torch\.float32"):
            method(tokens.float(), labels)
        with pytest.raises(TypeError, match=rf"{name} must be a tensor of integers, not torch\.bool"):
            method(tokens.bool(), labels)
        with pytest.raises(TypeError, match=f"{name} must be a tensor of integers, not list"):
            method(tokens.tolist(), labels)
        with pytest.raises(ValueError, match=rf"{name} must have shape .*, not \(5, 4, 1\)"):
            method(tokens[:, :4].unsqueeze(-1), labels)
    for length in (8, 10):
        with pytest.raises(ValueError, match=rf"tokens must have shape \(B, 9\), not \(5, {length}\)"):
            model.image_logits(torch.zeros(5, length, dtype=torch.long), labels)
    with pytest.raises(ValueError, match=r"prefix must have shape \(B, t\), t from 0 to 8, not \(5, 9\)"):
        model.next_logits(random_tokens(model), labels)


@pytest.mark.parametrize("model_class", [ar.OneHotMLP, ar.PositionalMLP, "unconditional transformer"])
def test_an_unconditional_model_wants_no_label(model_class):
    model = build(model_class)
    for _, method, tokens in both(model):
        with pytest.raises(ValueError, match="labels must be None"):
            method(tokens, torch.zeros(5, dtype=torch.long))


@pytest.mark.parametrize("model_class", [ar.ConditionalMLP, "transformer"])
def test_a_conditional_model_wants_one_label_for_each_image(model_class):
    model = build(model_class)
    for _, method, tokens in both(model):
        with pytest.raises(ValueError, match="labels must be given"):
            method(tokens)
        for bad in (-1, 4):
            with pytest.raises(ValueError, match=f"labels must be from 0 to 3, not {bad}"):
                method(tokens, torch.tensor([0, 1, bad, 3, 0]))
        for shape in ((4,), (5, 1), ()):
            with pytest.raises(ValueError, match=r"labels must have shape \(5,\)"):
                method(tokens, torch.zeros(shape, dtype=torch.long))
        for labels in (torch.zeros(5), torch.zeros(5, dtype=torch.bool), [0, 1, 2, 3, 0]):
            with pytest.raises(TypeError, match="labels must be a tensor of integers"):
                method(tokens, labels)


@every_mlp
def test_sizes_outside_their_range_are_named(model_class):
    for name, bad in (("num_levels", 1), ("image_size", 0), ("context_length", 0), ("hidden_size", 0)):
        with pytest.raises(ValueError, match=f"{name} must be at least {bad + 1}, not {bad}"):
            model_class(**{name: bad})


def test_a_conditional_model_has_at_least_one_class():
    with pytest.raises(ValueError, match="num_classes must be at least 1, not 0"):
        ar.ConditionalMLP(num_classes=0)


@every_mlp
def test_models_are_float32_linear_layers_and_embeddings_with_telling_names(model_class):
    model = model_class()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    embeddings = {name for name, part in model.named_modules() if isinstance(part, nn.Embedding)}
    assert all(any(word in name for word in ("row", "col", "token", "class")) for name in embeddings)
    assert sum(isinstance(part, nn.Linear) for part in model.modules()) == 3


def test_sizes_of_a_transformer_outside_their_range_are_named():
    lowest = {"num_levels": 2, "image_size": 1, "num_classes": 0, "width": 1, "depth": 1, "heads": 1}
    for name, value in lowest.items():
        with pytest.raises(ValueError, match=f"{name} must be at least {value}, not {value - 1}"):
            ar.PixelTransformer(**{name: value - 1})
    with pytest.raises(AssertionError, match="heads=3 does not divide width=128"):
        ar.PixelTransformer(heads=3)
    with pytest.raises(AssertionError, match="positions=rope is unknown"):
        ar.PixelTransformer(positions="rope")


# --- The grey transformer ------------------------------------------------------------------------------------------


def test_grey_waves_are_the_cosines_of_the_cosine_transform():
    root = math.sqrt(0.5)
    expected = torch.tensor([[1, math.cos(math.pi / 8), root], [1, math.cos(3 * math.pi / 8), -root]])
    torch.testing.assert_close(grey_waves(4, 3)[:2], expected)
    waves = grey_waves(256, 32).double()
    products = waves.T @ waves  # they are orthogonal: each tells something of its own
    torch.testing.assert_close(products, torch.diag(torch.tensor([256.0] + 31 * [128.0]).double()), atol=1e-3, rtol=0)


def test_a_grey_stem_is_the_causal_stem_and_a_linear_function_of_the_waves():
    torch.manual_seed(0)
    stem = GreyStem(neighbour_places(5), 4, 8, waves=3)
    padded = F.pad(torch.randint(4, (2, 24)), (1, 0), value=4)
    found, plain = stem(padded, 3, 9), CausalStem.forward(stem, padded, 3, 9)
    waves = grey_waves(4, 3)
    for image, pixel in itertools.product(range(2), range(3, 9)):
        near = [padded[image, place].item() for place in neighbour_places(5)[pixel]]
        told = torch.cat([torch.zeros(3) if level == 4 else waves[level] for level in near])
        torch.testing.assert_close(found[image, pixel - 3], plain[image, pixel - 3] + stem.linear.weight @ told)


def test_a_grey_output_starts_as_a_plain_linear_layer_and_smooths_its_rows():
    torch.manual_seed(0)
    output, x = GreyOutput(8, 6, waves=2), torch.randn(3, 8)
    plain = F.linear(x, output.weight, output.bias)
    torch.testing.assert_close(output(x), plain)
    output.smooth.data[1] = 1  # wave 1 falls from black to white
    added = (output(x) - plain) / x.sum(1, keepdim=True)
    torch.testing.assert_close(added, grey_waves(6, 2)[:, 1].expand(3, 6), rtol=1e-4, atol=1e-5)


def test_a_grey_transformer_may_do_without_a_stem():
    model = ar.GreyTransformer(8, 3, stem=False, waves=np.int64(2), width=8, depth=1, heads=2)
    assert isinstance(model.trunk.stem, PreviousPixel)
    assert type(model.config["waves"]) is int


def test_a_grey_transformer_needs_a_wave_and_is_rebuilt_from_its_configuration():
    with pytest.raises(AssertionError, match="waves=0 is less than 1"):
        ar.GreyTransformer(waves=0, width=8, depth=1, heads=2, image_size=3)
    model = build("grey transformer")
    again = ar.GreyTransformer(**model.config)
    again.load_state_dict(model.state_dict())
    tokens = random_tokens(model)
    given = tokens, labels_for(model, 5)
    torch.testing.assert_close(again.eval().image_logits(*given), model.image_logits(*given))
    assert sum(parameter.numel() for parameter in ar.GreyTransformer().parameters()) == 1_451_776
