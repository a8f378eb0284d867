"""Models that draw patch by patch: what every model owes, in an order of their own, and drawing with them."""

import itertools
import json
import math

import pytest
import torch

import ar_helpers as ar
from ar_helpers.models.patches import patch_order, patch_places

EVERY = torch.tensor(list(itertools.product(range(3), repeat=4)))  # (81, 4): all images of 2 x 2 pixels, 3 levels
HEADS = ("inner", "independent", "nested")
heads = pytest.mark.parametrize("head", HEADS)
patches = pytest.mark.parametrize("patch", [(1, 1), (1, 2), (2, 1), (2, 2), (2, 4), (4, 4)], ids="{0[0]}x{0[1]}".format)


def new_model(patch, head, image_size=4, num_levels=3, num_classes=0, **sizes):
    """A tiny model with random weights: the same each time."""
    torch.manual_seed(0)
    about = num_levels, image_size, num_classes, *patch
    sizes |= {"width": 16, "heads": 2}
    if head == "nested":
        return ar.NestedTransformer(*about, inner_width=16, inner_depth=1, inner_heads=2, **sizes)
    return ar.PatchTransformer(*about, head == "independent", **sizes)


def build(patch, head="inner", image_size=4, num_levels=3, num_classes=4, sureness=3):
    """A tiny model, far from uniform, that is ready for use."""
    model = new_model(patch, head, image_size, num_levels, num_classes, depth=2, dropout=0.5)
    for parameter in model.parameters():
        parameter.data.mul_(sureness)
    return model.double().eval()


def some(model, count=5):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(model.num_levels, (count, model.image_size**2), generator=generator)
    return tokens, torch.arange(count) % model.num_classes if model.num_classes else None


def test_patches_come_row_by_row_and_so_do_the_pixels_in_them():
    assert patch_order(4, 2, 2).tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert patch_order(4, 1, 2).tolist() == list(range(16))
    assert patch_order(4, 4, 1).tolist() == torch.arange(16).view(4, 4).T.flatten().tolist()


def test_the_stem_sees_the_four_patches_that_touch_and_start_tokens_outside():
    seen = patch_places(6, 2, 2)  # 3 x 3 patches of 4 pixels, pixel i at i + 1
    assert seen.shape == (9, 16)
    places = [list(range(4 * patch + 1, 4 * patch + 5)) for patch in range(9)]
    outside = [0] * 4
    assert seen[0].tolist() == outside * 4
    assert seen[2].tolist() == places[1] + outside * 3
    assert seen[3].tolist() == places[2] + outside + places[0] + places[1]  # the one before stands on the row above
    assert seen[4].tolist() == places[3] + places[0] + places[1] + places[2]
    assert seen[5].tolist() == places[4] + places[1] + places[2] + outside


@heads
@patches
def test_logits_depend_on_all_the_pixels_drawn_before_and_on_no_others(patch, head):
    model = build(patch, head)
    tokens, labels = some(model)
    logits = model.image_logits(tokens, labels)[:, model.order]  # as drawn
    for t in range(16):
        changed = tokens.clone()
        changed[:, model.order[t]] = (changed[:, model.order[t]] + 1) % 3
        moved = (model.image_logits(changed, labels)[:, model.order] != logits).any(-1).any(0)
        first = (
            (t // model.patch_size + 1) * model.patch_size if head == "independent" else t + 1
        )  # its fellows are not told
        assert moved.tolist() == [i >= first for i in range(16)]


@heads
@pytest.mark.parametrize("patch", [(1, 1), (1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize("num_classes", [0, 4])
def test_probabilities_of_all_images_sum_to_one(patch, head, num_classes):
    model = build(patch, head, image_size=2, num_classes=num_classes)
    for label in range(max(num_classes, 1)):
        labels = torch.full((81,), label) if num_classes else None
        log_probabilities = model.image_logits(EVERY, labels).log_softmax(-1)
        of_images = log_probabilities.gather(-1, EVERY.unsqueeze(-1)).sum((1, 2)).exp()
        assert of_images.max() > 3 / 81  # the model is not close to uniform, for which this would be easy
        assert of_images.sum().item() == pytest.approx(1, abs=1e-9)


@heads
@patches
@pytest.mark.parametrize("steps", [range(16), [0, 5, 6, 8, 15], [3, 4, 13], [15]], ids=str)
def test_image_logits_equal_stepping_with_a_cache_and_without(patch, head, steps):
    model, cache = build(patch, head), ar.Cache()
    tokens, labels = some(model)
    whole = model.image_logits(tokens, labels)[:, model.order]
    drawn = tokens[:, model.order]
    for t in steps:  # one token at a time, or several at once
        torch.testing.assert_close(model.next_logits(drawn[:, :t], labels, cache), whole[:, t])
        torch.testing.assert_close(model.next_logits(drawn[:, :t], labels), whole[:, t])
        assert cache.length == t + 1


@heads
@pytest.mark.parametrize("t", [3, 4, 5])  # before, at and after the beginning of a patch
def test_selected_rows_of_a_cache_go_on_as_those_images_would(head, t):
    model, cache = build((2, 2), head), ar.Cache()
    tokens, labels = some(model)
    rows = torch.tensor([3, 0, 0, 4, 1, 3])
    model.next_logits(tokens[:, :t], labels, cache)
    cache.select(rows)
    tokens, labels = tokens[rows], labels[rows]
    tokens[:, t] = torch.arange(6) % 3  # copies part ways here
    logits = model.next_logits(tokens[:, : t + 1], labels, cache)
    torch.testing.assert_close(logits, model.next_logits(tokens[:, : t + 1], labels))
    with pytest.raises(ValueError, match="cache must be of the same images"):
        model.next_logits(tokens[:2, : t + 2], labels[:2], cache)


@heads
def test_the_slots_are_computed_once_a_patch(head):
    model, cache, computed = build((2, 2), head), ar.Cache(), []
    model.trunk.blocks[0].register_forward_pre_hook(lambda block, inputs: computed.append(inputs[0].shape[1]))
    tokens, labels = some(model)
    for t in range(16):
        model.next_logits(tokens[:, :t], labels, cache)
    assert computed == [1] * 4


@heads
def test_the_config_rebuilds_the_model(head, tmp_path):
    model = build((2, 4), head)
    tokens, labels = some(model)
    again = type(model)(**json.loads(json.dumps(model.config))).double().eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.image_logits(tokens, labels), model.image_logits(tokens, labels))
    ar.save_checkpoint(tmp_path / "tiny.safetensors", model)
    loaded = ar.load_checkpoint(tmp_path / "tiny.safetensors")
    assert (type(loaded), loaded.config) == (type(model), model.config)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}  # no buffer is stored


@heads
@pytest.mark.usefixtures("clean_environment")
def test_it_learns(head):
    torch.manual_seed(0)
    columns = torch.randint(3, (64, 4))
    images = columns.repeat_interleave(4, 0).view(64, 16)  # all rows alike: one column drawn, the rest is known
    model = new_model((2, 2), head, depth=1)
    ar.fit(model, ar.TokenImages(images), ar.TrainConfig(steps=150, batch_size=16, learning_rate=1e-2, muon_rate=1e-2))
    bits = -model.image_logits(images).log_softmax(-1).gather(-1, images.unsqueeze(-1)).squeeze(-1).mean(0)
    bits = bits.detach() / math.log(2)
    assert bits[[0, 2]] == pytest.approx([math.log2(3)] * 2, abs=0.35)
    assert bits[8:].max() < 0.1  # the lower patches follow from the upper ones, whichever head
    if head == "independent":
        assert bits[4:8].min() > 1.2  # row 1 is a copy of row 0, and its head cannot know it
    else:
        assert bits[4:8].max() < 0.1


def test_sizes_that_do_not_fit_are_named():
    for name in ("patch_height", "patch_width"):
        with pytest.raises(AssertionError, match="pixels do not divide image_size=28"):
            ar.PatchTransformer(**{name: 3})
    for name in ("patch_height", "patch_width", "width", "depth", "heads"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
            ar.PatchTransformer(**{name: 0})
    with pytest.raises(AssertionError, match="heads=3 does not divide width=80"):
        ar.PatchTransformer(heads=3)


def test_bad_tokens_and_labels_are_named():
    model = build((2, 2))
    tokens, labels = some(model)
    for bad in (-1, 3):
        with pytest.raises(ValueError, match=f"must be from 0 to 2, not {bad}"):
            model.image_logits(tokens.clamp(max=1).index_fill(1, torch.tensor([7]), bad), labels)
    with pytest.raises(ValueError, match=r"tokens must have shape \(B, 16\), not \(5, 15\)"):
        model.image_logits(tokens[:, 1:], labels)
    with pytest.raises(ValueError, match=r"prefix must have shape \(B, t\), t from 0 to 15, not \(5, 16\)"):
        model.next_logits(tokens, labels)
    with pytest.raises(ValueError, match="labels must be given"):
        model.image_logits(tokens)


# --- drawing ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def probabilities_of(model):
    """Of all images of 2 x 2 pixels, (81,)."""
    return model.image_logits(EVERY).softmax(-1).gather(-1, EVERY.unsqueeze(-1)).squeeze(-1).prod(1)


@heads
@pytest.mark.parametrize("patch", [(2, 1), (2, 2)])
def test_images_are_drawn_as_often_as_they_are_probable(patch, head):
    model = build(patch, head, image_size=2, num_classes=0)
    probable = probabilities_of(model)
    drawn = ar.generate(model, count=20_000, seed=0).tokens
    counts = torch.bincount(drawn @ torch.tensor([27, 9, 3, 1]), minlength=81)
    common = 20_000 * probable > 5
    chi_square = ((counts - 20_000 * probable) ** 2 / (20_000 * probable))[common].sum().item()
    degrees = common.sum().item()
    assert degrees > 5
    assert chi_square < degrees + 4 * math.sqrt(2 * degrees)


@heads
@patches
def test_samples_come_in_raster_order_with_their_own_probabilities(patch, head):
    model = build(patch, head).float()
    samples = ar.generate(model, [0, 1, 2, 3], seed=0)
    with torch.no_grad():
        logits = model.image_logits(samples.tokens, torch.arange(4))
    probabilities, entropies = ar.prediction_maps(logits, samples.tokens)
    torch.testing.assert_close(samples.probabilities, probabilities, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(samples.entropies, entropies, atol=1e-4, rtol=1e-4)


def test_a_prompt_of_whole_rows_of_patches_is_kept_and_any_other_is_named():
    model = build((2, 2))
    tokens, labels = some(model)
    samples = ar.complete(model, tokens, 2, labels=labels, seed=0)
    assert torch.equal(samples.tokens[:, :8], tokens[:, :8])
    assert (samples.probabilities[:, :8] == 1).all()
    assert (samples.entropies[:, 8:] > 0).all()
    for rows in (1, 3):
        with pytest.raises(ValueError, match=f"whole rows of its patches, not {4 * rows} tokens"):
            ar.complete(model, tokens, rows, labels=labels)
    in_raster_order = build((1, 2))
    assert torch.equal(ar.complete(in_raster_order, tokens, 3, labels=labels).tokens[:, :12], tokens[:, :12])
    at_once = build((1, 2), "independent")
    assert torch.equal(ar.generate(at_once, labels, prompt=tokens[:, :6]).tokens[:, :6], tokens[:, :6])
    with pytest.raises(ValueError, match="whole rows of its patches, not 5 tokens"):  # half of a patch
        ar.generate(at_once, labels, prompt=tokens[:, :5])


@heads
@pytest.mark.parametrize("hole", [[1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 0, 1]], ids=str)
def test_inpainting_draws_from_the_exact_posterior(head, hole):
    model = build((2, 1), head, image_size=2, num_classes=0, sureness=1.5)
    known, tokens = torch.tensor(hole, dtype=torch.bool), torch.tensor([0, 1, 2, 1])
    probable = probabilities_of(model)
    probable[(tokens != EVERY)[:, known].any(1)] = 0.0
    filled = ar.inpaint(model, tokens, known, particles=20_000, seed=0)
    assert (filled.tokens[:, known] == tokens[known]).all()
    assert filled.bits == pytest.approx(-math.log2(probable.sum()), abs=0.03)
    drawn = torch.bincount(filled.tokens @ torch.tensor([27, 9, 3, 1]), minlength=81) / 20_000
    torch.testing.assert_close(drawn.double(), probable / probable.sum(), rtol=0, atol=0.02)


def test_beliefs_after_whole_rows_are_bayes_rule():
    model = build((2, 2))
    tokens, _ = some(model)
    beliefs = ar.label_beliefs(model, tokens)  # (5, 17, 4)
    joint = []
    for label in range(4):
        logits = model.image_logits(tokens, torch.full((5,), label)).detach()
        chosen = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        joint.append(torch.stack([chosen[:, :pixels].sum(1) for pixels in (0, 8, 16)], dim=1))
    expected = torch.stack(joint, dim=-1).softmax(-1)
    torch.testing.assert_close(beliefs[:, [0, 8, 16]].double(), expected, atol=1e-4, rtol=1e-3)
