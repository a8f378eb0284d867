"""Chapter 12's encodings and orders: what every model owes, and each part against a slow and obvious version."""

import itertools
import json
import math

import pytest
import torch
from chapter_models import on_canvas

import ar_helpers as ar
from ar_helpers.models.positions import POSITIONS, AddedPosition, order_of, rotary_angles, rotate

SIZES = {"num_levels": 3, "num_classes": 3, "width": 16, "depth": 2, "heads": 2, "dropout": 0.5}
ORDERS = ("raster", "columns", "serpentine")
NAMES = [f"{positions}, {label_as}" for positions in POSITIONS for label_as in ("token", "added", "pixel")]
NAMES += [f"{positions}, token, {more}" for positions in POSITIONS for more in ("held", "stem")]
NAMES += ["rope_2d, pixel, stem", "any order", *ORDERS[1:]]
every_model = pytest.mark.parametrize("name", NAMES)
every_encoding = pytest.mark.parametrize("positions", POSITIONS)


def build(name, image_size=3, **more):
    """A tiny model, far from uniform, that is ready for use."""
    torch.manual_seed(0)
    sizes = SIZES | {"image_size": image_size} | more
    if name in ("any order", *ORDERS):
        model = ar.AnyOrderTransformer(order="random" if name == "any order" else name, **sizes)
    else:
        positions, label_as, *rest = name.split(", ")
        stem, target = "stem" in rest, "held" not in rest
        sizes |= {"positions": positions, "label_as": label_as, "stem": stem, "target": target}
        model = ar.PositionedTransformer(**sizes)
    for parameter in model.parameters():
        parameter.data.mul_(3)
    return model.double().eval()


def some(model, count=5):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(model.num_levels, (count, model.image_size**2), generator=generator)
    return tokens, torch.arange(count) % model.num_classes if model.num_classes else None


def order(model):
    return getattr(model, "order", torch.arange(model.image_size**2))


# --- What every model owes ----------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("image_size", [3, 7])
def test_logits_depend_on_all_the_pixels_drawn_before_and_on_no_others(name, image_size):
    model = build(name, image_size)
    (tokens, labels), drawn = some(model), order(model)
    logits = model.image_logits(tokens, labels)[:, drawn]
    for t in range(0, image_size**2, 1 if image_size == 3 else 5):
        changed = tokens.clone()
        changed[:, drawn[t]] = (changed[:, drawn[t]] + 1) % 3
        moved = (model.image_logits(changed, labels)[:, drawn] != logits).any(-1).any(0)
        secret = "pixel" in name and t == 0  # the label stands in its place
        assert moved.tolist() == [i > t and not secret for i in range(image_size**2)]


@every_model
def test_all_logits_depend_on_the_label_but_those_of_a_pixel_that_it_replaces(name):
    model = build(name)
    tokens, labels = some(model)
    moved = (model.image_logits(tokens, labels) != model.image_logits(tokens, (labels + 1) % 3)).any(-1)
    for each in moved:
        assert each.tolist() == ["pixel" not in name, *[True] * 8]


@every_model
@pytest.mark.parametrize("steps", [range(9), [0, 5, 6, 8], [4, 8], [1, 2, 7], [8]], ids=str)
def test_image_logits_equal_stepping_with_a_cache_and_without(name, steps):
    model, cache = build(name), ar.Cache()
    tokens, labels = some(model)
    whole, drawn = model.image_logits(tokens, labels)[:, order(model)], tokens[:, order(model)]
    for t in steps:  # one token at a time, or several at once
        torch.testing.assert_close(model.next_logits(drawn[:, :t], labels, cache), whole[:, t])
        torch.testing.assert_close(model.next_logits(drawn[:, :t], labels), whole[:, t])
        assert cache.length == t + 1


@every_model
def test_one_may_go_back_in_a_cache(name):
    model, cache = build(name), ar.Cache()
    tokens, labels = some(model)
    drawn = tokens[:, order(model)]
    model.next_logits(drawn[:, :8], labels, cache)
    for length in (5, 2, 1):
        cache.length = length
        drawn = drawn.clone()
        drawn[:, length - 1 :] = (drawn[:, length - 1 :] + 1) % 3
        images = torch.empty_like(drawn)
        images[:, order(model)] = drawn
        whole = model.image_logits(images, labels)[:, order(model)]
        for t in range(length, 9):
            torch.testing.assert_close(model.next_logits(drawn[:, :t], labels, cache), whole[:, t])


@every_model
@pytest.mark.parametrize("t", [1, 4])
def test_selected_rows_of_a_cache_go_on_as_those_images_would(name, t):
    model, cache = build(name), ar.Cache()
    (tokens, labels), rows = some(model), torch.tensor([3, 0, 0, 4, 1, 3])
    model.next_logits(tokens[:, :t], labels, cache)
    cache.select(rows)
    tokens, labels = tokens[rows], labels[rows]
    tokens[:, t] = torch.arange(6) % 3  # copies part ways here
    logits = model.next_logits(tokens[:, : t + 1], labels, cache)
    torch.testing.assert_close(logits, model.next_logits(tokens[:, : t + 1], labels))


EVERY = torch.tensor(list(itertools.product(range(3), repeat=4)))  # (81, 4): all images of 2 x 2 pixels, 3 levels


def check_sum(model):
    for label in range(max(model.num_classes, 1)):
        labels = torch.full((81,), label) if model.num_classes else None
        log_probabilities = model.image_logits(EVERY, labels).log_softmax(-1)
        of_images = log_probabilities.gather(-1, EVERY.unsqueeze(-1)).sum((1, 2)).exp()
        assert of_images.max() > 3 / 81  # the model is not close to uniform, for which this would be easy
        assert of_images.sum().item() == pytest.approx(1, abs=1e-9)


@every_model
@pytest.mark.parametrize("num_classes", [0, 3])
def test_probabilities_of_all_images_sum_to_one(name, num_classes):
    check_sum(build(name, image_size=2, num_classes=num_classes))


def test_probabilities_sum_to_one_in_every_order():
    model, found = build("any order", image_size=2), set()
    for each in itertools.permutations(range(4)):
        model.order = torch.tensor(each)
        check_sum(model)
        found.add(model.image_logits(EVERY, torch.zeros(81).long()).sum().item())
    assert len(found) == 24  # the orders do not agree


@every_model
def test_the_config_rebuilds_the_model(name):
    model = build(name)
    again = type(model)(**json.loads(json.dumps(model.config))).double().eval()
    again.load_state_dict(model.state_dict())
    assert again.config == model.config
    torch.testing.assert_close(again.image_logits(*some(model)), model.image_logits(*some(model)))


@every_model
def test_drawings_have_the_probabilities_that_scoring_gives_them(name):
    model = build(name)
    labels = torch.arange(6) % 3
    drawn = ar.generate(model, labels, seed=0)
    logits = model.image_logits(drawn.tokens, labels).detach()
    expected = ar.prediction_maps(logits, drawn.tokens)[0]
    torch.testing.assert_close(drawn.probabilities, expected.float(), rtol=1e-4, atol=1e-5)


@every_model
def test_every_parameter_is_used(name):
    model = build(name, dropout=0)
    model.train()(*some(model)).logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_with_its_defaults_it_is_chapter_5_s_model():
    sizes = SIZES | {"image_size": 5, "dropout": 0.0}
    torch.manual_seed(0)
    plain, ours = ar.PixelTransformer(**sizes).eval(), ar.PositionedTransformer(**sizes).eval()
    weights = plain.state_dict()
    for name in ("row_embedding", "col_embedding"):
        weights[f"trunk.added.{name}.weight"] = weights.pop(f"trunk.{name}.weight")
    ours.load_state_dict(weights)
    torch.testing.assert_close(ours.image_logits(*some(ours)), plain.image_logits(*some(plain)))
    counts = [sum(map(torch.Tensor.numel, model().parameters())) for model in (ar.PixelTransformer, type(ours))]
    assert counts[0] == counts[1]


def test_the_label_in_the_pixel_is_the_token_in_the_pixel():
    model = build("sinusoidal_2d, pixel", num_levels=5)
    tokens, labels = some(model)
    inside = tokens.clone()
    inside[:, 0] = labels
    unlabelled = build("sinusoidal_2d, pixel", num_levels=5, num_classes=0)
    unlabelled.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.image_logits(tokens, labels), unlabelled.image_logits(inside))
    with pytest.raises(AssertionError, match="labels are no levels"):
        ar.PositionedTransformer(**SIZES | {"num_classes": 4, "label_as": "pixel"})


# --- Encodings ----------------------------------------------------------------------------------------------------


def test_waves_equal_a_slow_loop():
    added, size, width, base = AddedPosition("sinusoidal_2d", 5, 12, base=50), 5, 12, 50
    found = added(torch.arange(25))
    for row, col in itertools.product(range(size), repeat=2):
        expected = []
        for number in (row, col):  # half the width for each: first the sines, then the cosines
            for wave in (math.sin, math.cos):
                expected += [wave(number / base ** (pair / (width // 4))) for pair in range(width // 4)]
        torch.testing.assert_close(found[5 * row + col], torch.tensor(expected))


def test_axial_angles_equal_a_slow_loop():
    found = rotary_angles("rope_2d", torch.arange(-1, 25), 5, 6, 50)
    slowing = torch.tensor([50 ** (-pair / 3) for pair in range(3)])
    torch.testing.assert_close(found[0], -torch.cat([slowing, slowing]))  # no pixel yet: row -1, column -1
    for row, col in itertools.product(range(5), repeat=2):
        expected = [number * 50 ** (-pair / 3) for number in (row, col) for pair in range(3)]
        torch.testing.assert_close(found[5 * row + col + 1], torch.tensor(expected))


def test_learned_vectors_are_those_of_the_pixel_or_of_its_row_and_column():
    position = torch.arange(20).view(4, 5)  # not only a row of positions
    for positions in ("learned_1d", "learned_2d", "rope_1d_column"):
        added = AddedPosition(positions, 5, 8)
        found = added(position)
        for row, col in itertools.product(range(4), range(5)):
            expected = {
                "learned_1d": lambda row, col: added.position_embedding.weight[5 * row + col],  # noqa: B023
                "learned_2d": lambda row, col: added.row_embedding.weight[row] + added.col_embedding.weight[col],  # noqa: B023
                "rope_1d_column": lambda row, col: added.col_embedding.weight[col],  # noqa: B023
            }[positions](row, col)
            assert torch.equal(found[row, col], expected)


@pytest.mark.parametrize("positions", ["rope_1d", "rope_2d"])
def test_rotations_keep_norms_and_products_depend_on_offsets_only(positions):
    torch.manual_seed(0)
    size, query, key = 6, torch.randn(8).double(), torch.randn(8).double()
    angles = rotary_angles(positions, torch.arange(36), size, 4, 100).double()
    queries, keys = (rotate(each.expand(36, -1), angles) for each in (query, key))
    torch.testing.assert_close(queries.norm(dim=1), query.norm().expand(36))
    products, known = queries @ keys.T, {}
    for i, j in itertools.product(range(36), repeat=2):
        offset = (i // 6 - j // 6, i % 6 - j % 6) if positions == "rope_2d" else i - j
        known.setdefault(offset, products[i, j].item())
        assert products[i, j].item() == pytest.approx(known[offset], abs=1e-5)
    assert len(known) == (121 if positions == "rope_2d" else 71)
    assert len({round(product, 6) for product in known.values()}) == len(known)  # different offsets differ


@pytest.mark.parametrize("positions", ["rope_1d", "rope_2d"])
def test_a_model_hears_of_offsets_only(positions):
    model = build(f"{positions}, token", image_size=5)
    tokens, labels = some(model)
    expected = model.image_logits(tokens, labels)
    turn = rotary_angles(positions, torch.tensor(5 * 3 + 4), 5, 4, 10_000).double()
    for block in model.trunk.blocks:  # the whole picture, three rows further down and four columns to the right
        block.attention.query_angles = block.attention.query_angles + turn
        block.attention.key_angles = block.attention.key_angles + turn
    torch.testing.assert_close(model.image_logits(tokens, labels), expected, rtol=1e-4, atol=1e-4)


def turned(model, angle):
    """The model with queries that stand turned by an angle (d / 2,) of its pairs."""
    for block in model.trunk.blocks:
        linear, (width, heads) = block.attention.query_key_value, (16, 2)
        for each in (linear.weight.data, linear.bias.data.unsqueeze(1)):  # the first third makes the queries
            heads_of = each[:width].view(heads, width // heads, -1)
            heads_of.copy_(rotate(heads_of.mT, angle).mT)
    return model


def test_rotations_run_in_bfloat16_too():
    model = build("rope_2d, token", image_size=5, dropout=0.0).float()
    tokens, labels = some(model)
    with torch.autocast("cpu", torch.bfloat16):
        model.train()(tokens, labels).float().logsumexp(-1).sum().backward()
        drawn = ar.generate(model, labels, seed=0)
    assert drawn.tokens.shape == (5, 25)


def test_a_target_is_no_news_to_1_d_rope():
    held, target = build("rope_1d, token, held", image_size=5), build("rope_1d, token", image_size=5)
    step = rotary_angles("rope_1d", torch.tensor(1), 5, 4, 10_000).double()
    expected = held.image_logits(*some(held))
    assert not torch.allclose(target.image_logits(*some(target)), expected)
    found = turned(target, -step).image_logits(*some(target))  # the weights of queries, turned back a step
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_target_is_news_to_axial_rope_only_where_a_row_begins():
    held, target = build("rope_2d, token, held", image_size=5, depth=1), build("rope_2d, token", image_size=5, depth=1)
    step = rotary_angles("rope_2d", torch.tensor(1), 5, 4, 10_000).double()
    expected, found = (model.image_logits(*some(held)) for model in (held, turned(target, -step)))
    same = torch.isclose(found, expected, rtol=1e-5, atol=1e-5).all(-1).all(0)
    # Slot 0 sees only itself, whatever it asks for.
    assert same.tolist() == [position % 5 > 0 or position == 0 for position in range(25)]


# --- Another width ------------------------------------------------------------------------------------------------


@every_model
def test_a_model_on_its_own_canvas_is_itself(name):
    model = build(name, image_size=4)
    tokens, labels = some(model)
    torch.testing.assert_close(on_canvas(model, 4).image_logits(tokens, labels), model.image_logits(tokens, labels))


@every_model
def test_a_model_scores_and_draws_on_a_wider_canvas(name):
    model = build(name, image_size=4)
    wider = on_canvas(model, 6)
    assert wider.image_size == 6
    assert not wider.training
    tokens, labels = some(wider)
    whole, drawn = wider.image_logits(tokens, labels)[:, order(wider)], tokens[:, order(wider)]
    torch.testing.assert_close(wider.next_logits(drawn[:, :30], labels, ar.Cache()), whole[:, 30])
    assert ar.generate(wider, [0, 1], seed=0).tokens.shape == (2, 36)


def test_pixels_that_were_never_seen_take_the_vectors_of_the_nearest():
    for positions in ("learned_1d", "learned_2d", "rope_1d_column"):
        model = build(f"{positions}, token", image_size=4)
        found, known = (each.trunk.added(torch.arange(each.image_size**2)) for each in (on_canvas(model, 6), model))
        for row, col in itertools.product(range(6), repeat=2):
            assert torch.equal(found[6 * row + col], known[4 * min(row, 3) + min(col, 3)])


# --- Orders -------------------------------------------------------------------------------------------------------


def test_orders_are_what_they_are_called():
    assert order_of("raster", 3).tolist() == list(range(9))
    assert order_of("random", 3).tolist() == list(range(9))  # until another is set
    assert order_of("columns", 3).tolist() == [0, 3, 6, 1, 4, 7, 2, 5, 8]
    assert order_of("serpentine", 3).tolist() == [0, 1, 2, 5, 4, 3, 6, 7, 8]


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("image_size", [1, 2, 7, 28])
def test_orders_are_permutations(name, image_size):
    assert order_of(name, image_size).sort().values.tolist() == list(range(image_size**2))


def test_in_any_order_logits_depend_on_the_pixels_drawn_before():
    model = build("any order")
    tokens, labels = some(model)
    for seed in range(5):
        model.order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
        logits = model.image_logits(tokens, labels)[:, model.order]
        for t in range(9):
            changed = tokens.clone()
            changed[:, model.order[t]] = (changed[:, model.order[t]] + 1) % 3
            moved = (model.image_logits(changed, labels)[:, model.order] != logits).any(-1).any(0)
            assert moved.tolist() == [i > t for i in range(9)]


def test_it_learns_other_orders_in_each_step_and_for_each_image_and_scores_in_its_own():
    model = build("any order", dropout=0.0)
    tokens = some(model, 1)[0].expand(2, -1)
    labels = torch.zeros(2).long()
    model.train()
    logits = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        logits.append(model(tokens, labels))
    assert torch.equal(logits[0], logits[2])
    assert not torch.allclose(logits[0], logits[1])  # the steps
    assert not torch.allclose(logits[0][0], logits[0][1])  # the images
    model.eval()
    scored = model(tokens, labels)
    torch.testing.assert_close(scored[0], scored[1])
    one = build("serpentine", dropout=0.0)
    torch.testing.assert_close(one.train()(tokens, labels), one.eval()(tokens, labels))


class Stops(ar.TokenImages):
    """Breaks off after a number of batches."""

    left = 10**9

    def __getitem__(self, index):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_training_in_random_orders_depends_on_the_seed_and_may_be_interrupted(tmp_path):
    tokens, labels = torch.randint(3, (40, 9), generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3
    found = {}
    for name, seed, broken in (("whole", 0, False), ("broken", 0, True), ("other", 1, False)):
        torch.manual_seed(0)
        model, config = ar.AnyOrderTransformer(**SIZES | {"image_size": 3}), ar.TrainConfig(6, 8, seed=seed)
        dataset, state = Stops(tokens, labels), tmp_path / f"{name}.safetensors"
        if broken:
            dataset.left = 3
            with pytest.raises(KeyboardInterrupt):
                ar.fit(model, dataset, config, resume=state, quiet=True)
            model, dataset.left = ar.AnyOrderTransformer(**SIZES | {"image_size": 3}), 10**9
        torch.manual_seed(1234)  # must not matter
        ar.fit(model, dataset, config, resume=state, quiet=True)
        found[name] = torch.cat([parameter.flatten() for parameter in model.parameters()])
    assert torch.equal(found["whole"], found["broken"])
    assert not torch.allclose(found["whole"], found["other"])


KNOWN = torch.tensor([True, False, False, True])


def test_the_hole_last_costs_what_the_image_costs_less_the_rest():
    model = build("any order", image_size=2)
    model.order = torch.tensor([0, 3, 1, 2])
    tokens, labels = EVERY[[50]].expand(9, -1).clone(), torch.ones(9).long()
    tokens[:, ~KNOWN] = torch.tensor(list(itertools.product(range(3), repeat=2)))  # all ways to fill the hole
    bits = ar.pixel_bits(model, tokens, labels)
    assert torch.equal(bits[:, KNOWN], bits[:1, KNOWN].expand(9, -1))
    total = (-bits[:, ~KNOWN].double().sum(1)).exp2().sum().item()
    assert total == pytest.approx(1, abs=1e-5)


def test_holes_are_filled_as_often_as_the_model_says():
    model, count = build("any order", image_size=2), 20_000
    whole, label = EVERY[50], torch.ones(1).long()
    filled = ar.complete(model, whole, known=KNOWN, labels=label.expand(count), seed=0)
    assert model.order.tolist() == [0, 1, 2, 3]
    assert torch.equal(filled.tokens[:, KNOWN], whole[KNOWN].expand(count, -1))
    assert (filled.probabilities[:, KNOWN] == 1).all()
    assert (filled.entropies[:, KNOWN] == 0).all()
    ways = whole.repeat(9, 1)
    ways[:, ~KNOWN] = torch.tensor(list(itertools.product(range(3), repeat=2)))
    model.order = torch.tensor([0, 3, 1, 2])
    expected = (-ar.pixel_bits(model, ways, label.expand(9))[:, ~KNOWN].sum(1)).exp2()
    found = torch.stack([(filled.tokens == way).all(1).double().mean() for way in ways])
    torch.testing.assert_close(found, expected.double(), atol=0.015, rtol=0)
    chosen = filled.probabilities[:, ~KNOWN].prod(1)
    which = (filled.tokens[:5, None] == ways).all(-1).float().argmax(1)
    torch.testing.assert_close(chosen[:5], expected[which], rtol=1e-4, atol=1e-6)


def test_values_in_the_hole_do_not_matter_to_complete_and_each_image_may_have_its_own():
    model = build("any order", image_size=5)
    tokens, labels = some(model)
    known = torch.ones(25, dtype=torch.bool)
    known[[6, 7, 11, 12]] = False
    filled = ar.complete(model, tokens, known=known, labels=labels, seed=0).tokens
    other = tokens.clone()
    other[:, ~known] = (tokens[:, ~known] + 1) % 3
    assert torch.equal(ar.complete(model, other, known=known, labels=labels, seed=0).tokens, filled)
    assert torch.equal(filled[:, known], tokens[:, known])
    assert not torch.equal(filled, tokens)
    assert torch.equal(ar.complete(model, tokens, known=torch.ones(25).bool(), labels=labels).tokens, tokens)
    free = ar.complete(model, tokens, known=torch.zeros(25).bool(), labels=labels, seed=0).tokens
    assert torch.equal(free, ar.generate(model, labels, seed=0).tokens)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("any order", {}, "either keep_rows or known must be given, not both or none"),
        ("any order", {"keep_rows": 1, "known": KNOWN}, "either keep_rows or known must be given, not both or none"),
        ("columns", {"known": KNOWN}, "model must have learned any order if known is given, not columns order"),
        ("rope_2d, token", {"known": KNOWN}, "any order if known is given, not raster order"),
        ("any order", {"known": KNOWN[:3]}, "known"),
        ("any order", {"known": KNOWN.long()}, "known"),
    ],
)
def test_what_complete_cannot_do_it_says(name, options, message):
    model = build(name, image_size=2)
    with pytest.raises((ValueError, TypeError), match=message):
        ar.complete(model, EVERY[:3], labels=[0, 1, 2], **options)
    with pytest.raises(ValueError, match="tokens"):
        ar.complete(build("any order", image_size=2), EVERY[:3] + 3, known=KNOWN, labels=[0, 1, 2])


# --- The benchmark's measures --------------------------------------------------------------------------------------


def test_slants_are_columns_to_the_right_for_each_row_up():
    from positions import slants

    images = torch.zeros(3, 28, 28)
    for row in range(5, 23):
        for image, col in enumerate((14, 14 + (14 - row), 14 - (14 - row) // 2)):
            images[image, row, col] = 15
    assert slants(images).tolist() == pytest.approx([0, 1, -0.5], abs=0.02)
    assert slants(torch.zeros(1, 28, 28)).isnan().all()


def test_off_centre_is_in_rows_and_columns():
    from positions import off_centre

    images = torch.zeros(3, 28, 28)
    images[0, 14, 14], images[1, 10, 15], images[1, 12, 15] = 1, 2, 2
    found = off_centre(images)
    assert found[:2].tolist() == [[0, 0], [3, 1]]
    assert found[2].isnan().all()


@pytest.mark.parametrize("positions", ["learned_2d", "rope_2d"])
def test_where_attention_looks_equals_a_slow_loop(positions):
    from positions import looks

    model = build(f"{positions}, token", image_size=9, depth=1, dropout=0.0).float()
    tokens, labels = some(model, 2)
    found = looks(model, tokens, labels)
    block, side = model.trunk.blocks[0], 9
    x = []
    block.norm.register_forward_hook(lambda module, given, result: x.append(result))
    model.image_logits(tokens, labels)
    joined = block.attention.query_key_value(x[0]).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    query, key = joined[0], joined[1]
    if positions == "rope_2d":
        query, key = rotate(query, block.attention.query_angles), rotate(key, block.attention.key_angles)
    expected, first, farther = torch.zeros(8, 29), 0.0, 0.0
    for image, head, t in itertools.product(range(2), range(2), range(81)):
        weights = (key[image, head, : t + 1] @ query[image, head, t] / 8**0.5).softmax(0).tolist()
        first += weights[0] / 324
        for s in range(1, t + 1):
            down, right = (s - 1) // side - t // side, (s - 1) % side - t % side
            if down < -7:
                farther += weights[s] / 324
            else:
                expected[down + 7, right + 14] += weights[s] / 324
    torch.testing.assert_close(torch.tensor(found["steps"]), expected, atol=2e-5, rtol=0)
    assert found["first_slot"] == pytest.approx(first, abs=1e-5)
    assert found["farther"] == pytest.approx(farther, abs=1e-5)
    assert farther > 0


def test_what_the_record_keeps_of_a_model():
    from positions import hexadecimal, likeness

    tokens = torch.randint(16, (3, 784))
    assert [[int(digit, 16) for digit in image] for image in hexadecimal(tokens)] == tokens.tolist()
    model = ar.PositionedTransformer(width=16, depth=1, heads=2, positions="learned_2d")
    found, added = torch.tensor(likeness(model)), model.trunk.added
    assert found.argmax() == 14 * 28 + 14
    a, b = (added.row_embedding.weight[row] + added.col_embedding.weight[col] for row, col in ((14, 14), (3, 5)))
    assert found[3 * 28 + 5].item() == pytest.approx(torch.cosine_similarity(a, b, dim=0).item(), abs=6e-4)
