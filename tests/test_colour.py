"""Colour images as tokens."""

import itertools
import json
from types import SimpleNamespace

import colours
import lengths
import numpy as np
import pytest
import torch
from chapter_models import ChannelTransformer, ColourTransformer
from PIL import Image

import ar_helpers as ar
from ar_helpers import cli, recipes
from ar_helpers.plots import as_pictures
from ar_helpers.tokens import image_tokens, pack_colours, unpack_colours


@pytest.mark.parametrize("num_levels", [2, 3, 16, 31, 32, 33])
def test_packing_makes_the_round_trip_over_all_colours(num_levels):
    colours = torch.tensor(list(itertools.product(range(num_levels), repeat=3)))
    packed = pack_colours(colours, num_levels)
    assert packed.tolist() == list(range(num_levels**3))
    assert torch.equal(unpack_colours(packed, num_levels), colours.to(torch.uint8))


def test_a_start_token_fits_into_the_type_of_packed_colours():
    for num_levels in (2, 16, 31, 32, 256):
        packed = pack_colours(torch.full((1, 3), num_levels - 1), num_levels)
        assert packed.item() == num_levels**3 - 1
        assert torch.iinfo(packed.dtype).max >= num_levels**3


def test_hexadecimal_digits_are_the_top_bits_of_the_channels():
    image = torch.tensor([[[0xF0, 0xE7, 0xCF]]], dtype=torch.uint8)
    assert pack_colours(ar.quantize(image, 16)).tolist() == [[0xFEC]]
    assert unpack_colours(torch.tensor(0xFEC)).tolist() == [15, 14, 12]


def test_above_256_only_third_powers_are_levels_of_colours():
    tokens = torch.zeros(1, 16, dtype=torch.long)
    for levels in (2, 256, 343, 4096, 16_777_216):
        assert len(ar.show_images(tokens, levels).axes) == 1
    model = ar.PixelTransformer(num_levels=500, image_size=4, width=16, depth=1)
    words = "num_levels must be at most 256, or for packed colours a third power, not 500"
    with pytest.raises(ValueError, match=words):
        ar.show_images(tokens, 500)
    with pytest.raises(ValueError, match=words):
        image_tokens(torch.zeros(1, 4, 4, 3), model)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 4, 4, 3)])
def test_packing_keeps_the_other_axes(shape):
    packed = pack_colours(torch.zeros(shape, dtype=torch.uint8))
    assert packed.shape == shape[:-1]
    assert unpack_colours(packed).shape == shape


def test_what_cannot_be_packed_is_named():
    with pytest.raises(ValueError, match=r"three channels in the last axis, not \(2, 4\)"):
        pack_colours(torch.zeros(2, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="tokens must be from 0 to 15, not 16"):
        pack_colours(torch.tensor([1, 16, 2]))
    with pytest.raises(ValueError, match="tokens must be from 0 to 4095, not 4096"):
        unpack_colours(torch.tensor(4096))
    with pytest.raises(TypeError, match="integers"):
        pack_colours(torch.zeros(3))


def test_channels_have_no_more_than_256_levels():
    model = SimpleNamespace(channels=3, num_levels=343)
    with pytest.raises(ValueError, match="num_levels must be from 2 to 256, not 343"):
        image_tokens(torch.zeros(1, 4, 4, 3, dtype=torch.uint8), model)
    with pytest.raises(ValueError, match="num_levels must be at most 256 for images with three channels, not 343"):
        as_pictures(torch.zeros(1, 4, 4, 3, dtype=torch.uint8), 343)
    with pytest.raises(AssertionError, match=r"num_levels must be L\*\*3, not 500"):
        ColourTransformer(500)


# --- Models -------------------------------------------------------------------------------------------------------

SMALL = {"width": 16, "depth": 1, "heads": 2, "dropout": 0.5, "num_classes": 2}
INNER = {"inner_width": 16, "inner_depth": 1, "inner_heads": 2}
MODELS = ["packed", "channels", "nested 1 x 1", "nested 2 x 2", "nested 1 x 2"]
every_model = pytest.mark.parametrize("name", MODELS)


def build(name, image_size=4, levels=3):
    """A tiny model, far from uniform, that is ready for use."""
    torch.manual_seed(0)
    if name == "packed":
        model = ColourTransformer(levels**3, image_size, **SMALL)
    elif name == "channels":
        model = ChannelTransformer(levels, image_size, **SMALL)
    else:
        patch = {"patch_height": int(name[7]), "patch_width": int(name[11])}
        model = ar.NestedColourTransformer(levels, image_size, **SMALL, **INNER, **patch)
    for parameter in model.parameters():
        parameter.data.mul_(3)
    return model.double().eval()


def some(model, count=5):
    generator = torch.Generator().manual_seed(1)
    size = count, model.sequence_length
    return torch.randint(model.num_levels, size, generator=generator), torch.arange(count) % 2


def order(model):
    return getattr(model, "order", torch.arange(model.sequence_length))


@every_model
def test_logits_depend_on_all_the_tokens_drawn_before_and_on_no_others(name):
    model = build(name)
    (tokens, labels), drawn = some(model, 2), order(model)
    assert sorted(drawn.tolist()) == list(range(model.sequence_length))
    logits = model.image_logits(tokens, labels)[:, drawn]
    for t in range(model.sequence_length):
        changed = tokens.clone()
        changed[:, drawn[t]] = (changed[:, drawn[t]] + 1) % model.num_levels
        moved = (model.image_logits(changed, labels)[:, drawn] != logits).any(-1).any(0)
        assert moved.tolist() == [i > t for i in range(model.sequence_length)]


@every_model
def test_a_cache_changes_nothing(name):
    model, cache = build(name), ar.Cache()
    tokens, labels = some(model)
    whole, drawn = model.image_logits(tokens, labels)[:, order(model)], tokens[:, order(model)]
    for t in range(model.sequence_length):
        torch.testing.assert_close(model.next_logits(drawn[:, :t], labels, cache), whole[:, t])
        if t % 5 == 0:
            torch.testing.assert_close(model.next_logits(drawn[:, :t], labels), whole[:, t])


@every_model
def test_probabilities_of_all_images_sum_to_one(name):
    model = build(name, 1 if name == "packed" else 2, 2)
    count = model.num_levels**model.sequence_length  # 8 or 4,096
    images = torch.tensor(list(itertools.product(range(model.num_levels), repeat=model.sequence_length)))
    log_probabilities = model.image_logits(images, torch.zeros(count).long()).log_softmax(-1)
    of_images = log_probabilities.gather(-1, images.unsqueeze(-1)).sum((1, 2)).exp()
    assert of_images.max() > 2 / count
    assert of_images.sum().item() == pytest.approx(1, abs=1e-9)


@every_model
def test_the_first_pixel_and_rows_are_kept(name):
    model = build(name)
    tokens, labels = some(model, 2)
    begun = ar.generate(model, labels, prompt=tokens[:, : model.channels], seed=0).tokens
    assert torch.equal(begun[:, : model.channels], tokens[:, : model.channels])
    assert not torch.equal(begun, tokens)
    half = ar.complete(model, tokens, 2, labels=labels, seed=0).tokens
    assert torch.equal(half[:, : 8 * model.channels], tokens[:, : 8 * model.channels])
    assert not torch.equal(half, tokens)


@every_model
def test_the_config_rebuilds_the_model(name):
    model = build(name)
    again = type(model)(**json.loads(json.dumps(model.config))).double().eval()
    again.load_state_dict(model.state_dict())
    assert again.config == model.config
    torch.testing.assert_close(again.image_logits(*some(model)), model.image_logits(*some(model)))


@every_model
def test_bits_are_for_each_pixel_however_many_tokens_it_has(name):
    model = build(name, levels=7).float()
    images = ar.ImageSet(torch.randint(256, (6, 4, 4, 3), dtype=torch.uint8), torch.arange(6) % 2)
    tokens = image_tokens(images.images, model)
    assert tokens.shape == (6, model.sequence_length)
    bits = ar.pixel_bits(model, tokens, images.labels).double().sum().item() / (6 * 16)
    assert ar.bits_per_pixel(model, images, quiet=True) == pytest.approx(bits)


@every_model
def test_it_learns_and_its_losses_are_for_each_pixel(name):
    model = build(name, levels=7).float()
    images = ar.ImageSet(torch.randint(256, (1, 4, 4, 3), dtype=torch.uint8).expand(64, -1, -1, -1), torch.zeros(64))
    images = images._replace(labels=images.labels.long())
    dataset = ar.TokenImages(image_tokens(images.images, model), images.labels)
    config = ar.TrainConfig(steps=1, batch_size=64, learning_rate=1e-9)
    for parameter in model.parameters():
        parameter.data.div_(3)
    model.train(False)
    expected = ar.bits_per_pixel(model, images, quiet=True)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        if hasattr(part, "dropout") and isinstance(part.dropout, float):
            part.dropout = 0.0
    history = ar.fit(model, dataset, config, images, quiet=True)
    assert history.train_bits[0] == pytest.approx(expected, rel=1e-4)
    assert history.val_bits[0] == pytest.approx(expected, rel=1e-4)
    history = ar.fit(model, dataset, ar.TrainConfig(steps=30, batch_size=8, learning_rate=1e-2), quiet=True)
    assert history.train_bits[-1] < 0.7 * expected


def test_data_of_another_kind_is_refused_by_name():
    model = build("nested 2 x 2").float()
    grey = ar.TokenImages(torch.zeros(8, 16).long(), torch.zeros(8).long())
    with pytest.raises(ValueError, match="16 tokens, but the model has image_size=4 and 3 tokens for each"):
        ar.fit(model, grey, ar.TrainConfig(steps=1, batch_size=4), quiet=True)


# --- Pictures -----------------------------------------------------------------------------------------------------


@every_model
def test_tokens_become_the_colours_they_were(name):
    model = build(name, levels=16)
    images = torch.randint(256, (3, 4, 4, 3), dtype=torch.uint8)
    shown = as_pictures(image_tokens(images, model), model.num_levels)
    assert shown.shape == (3, 4, 4, 3)
    assert abs(255 * shown - images.numpy()).max() <= 8.01


@every_model
def test_figures_and_animations_in_colour(name, tmp_path):
    model = build(name, levels=7)  # above 256 levels, tokens are packed colours
    drawn = ar.generate(model, [0, 1, 0], seed=0)
    assert len(ar.show_images(drawn.tokens, model.num_levels).axes) == 3
    figure = ar.show_maps(*drawn, num_levels=model.num_levels)
    shown = [axis.images[0] for axis in figure.axes[:3]]  # of the first image
    chances, surprise = (part[0].view(4, 4, model.channels) for part in drawn[1:])
    np.testing.assert_allclose(shown[1].get_array(), chances.prod(-1), atol=1e-6)
    np.testing.assert_allclose(shown[2].get_array(), surprise.sum(-1), atol=1e-6)
    assert shown[2].get_clim()[1] == pytest.approx(3 * np.log2(7))
    ar.animate(drawn.tokens, model.num_levels, tmp_path / "a.gif", frames=4, scale=1)
    with Image.open(tmp_path / "a.gif") as movie:
        assert movie.convert("RGB").getpixel((1, 1)) != (96, 96, 96)
        first = tuple(round(255 * channel) for channel in as_pictures(drawn.tokens, model.num_levels)[0, 0, 0])
        assert max(abs(a - b) for a, b in zip(movie.convert("RGB").getpixel((1, 1)), first, strict=True)) < 4


# --- The command line ---------------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """The command line with a tiny model of colours, whatever its name."""

    def call(name, *words):
        (tmp_path / "weights").write_bytes(b"weights")
        monkeypatch.setattr(cli, "_load", lambda *_: (build(name, 8, levels=7).float(), tmp_path / "weights"))
        monkeypatch.chdir(tmp_path)
        cli.main(list(words))
        return json.loads(capsys.readouterr().out)

    return call


@every_model
def test_samples_begin_with_the_first_pixel(run, name, tmp_path):
    words = ["--targets", "1", "--count", "2", "--seed", "3", "--scale", "1", "--gif", "--json"]
    found = run(name, "sample", "--first-pixel", "0xFEC", *words)
    assert found["first_pixel"] == "0xFEC"
    with Image.open(tmp_path / "samples" / "1_001.png") as picture:
        assert (picture.mode, picture.size) == ("RGB", (8, 8))
        centres = [round(255 * (level + 0.5) / 7) for level in (6, 6, 5)]  # of 255, 238 and 204 at 7 levels
        assert list(picture.getpixel((0, 0))) == centres
    for each in ("1_001.gif", "1_002.gif", "sheet.gif"):
        with Image.open(tmp_path / "samples" / each) as picture:
            assert picture.n_frames > 2
    assert json.loads((tmp_path / "samples" / "samples.json").read_text())["first_pixel"] == "0xFEC"
    with Image.open(tmp_path / "samples" / "sheet.png") as sheet:
        assert sheet.mode == "RGB"
        assert list(sheet.getpixel((4, 4))) == centres, "inside a frame of four pixels"
    given = torch.from_numpy(np.stack([np.asarray(Image.open(tmp_path / "samples" / f"1_00{n}.png")) for n in (1, 2)]))
    model = build(name, 8, levels=7).float()
    bits = ar.pixel_bits(model, image_tokens(given, model), torch.ones(2).long())[:, model.channels :].sum(1) / 63
    assert [image["bits_per_pixel"] for image in found["images"]] == pytest.approx(bits.tolist(), abs=1e-3)


@every_model
def test_without_targets_the_first_pixel_suggests_them(run, name):
    model, pixels = build(name, 8, levels=7).float(), torch.zeros(16, 8, 8, 3, dtype=torch.uint8)
    pixels[:, 0, 0] = 17 * torch.arange(16, dtype=torch.uint8).unsqueeze(1)  # greys
    chances = ar.label_beliefs(model, image_tokens(pixels, model))[:, model.channels, 1]
    telling = int(abs(chances - 0.5).argmax())
    assert abs(chances[telling] - 0.5) > 0.15
    words = ["--count", "200", "--seed", "3", "--scale", "1", "--json"]
    found = run(name, "sample", "--first-pixel", f"0x{telling:X}{telling:X}{telling:X}", *words)
    labels = [image["label"] for image in found["images"]]
    assert len(labels) == 200
    assert labels.count(1) / 200 == pytest.approx(chances[telling].item(), abs=0.11)  # three standard deviations


@every_model
@pytest.mark.parametrize("text", ["green", "0xFFFF", "0xFG0", "", "FE"])
def test_what_is_no_colour_gets_one_line(run, name, text, capsys):
    with pytest.raises(SystemExit) as stop:
        run(name, "sample", "--first-pixel", text)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert (
        message == f"error: --first-pixel must have a hexadecimal digit for each channel, as in 0xFEC, not {text!r}\n"
    )


@pytest.mark.parametrize("text", ["0xFEC", "fec", "#FeC"])
def test_colours_have_three_spellings(text):
    assert cli._first_pixel(text, build("packed", levels=16)).tolist() == [0xFEC]
    assert cli._first_pixel(text, build("nested 2 x 2", levels=16)).tolist() == [15, 14, 12]
    assert cli._first_pixel("0xF00", build("packed", levels=17)).tolist() == [16 * 17**2]  # F is as red as can be


@pytest.mark.parametrize("name", ["transformer", "landscapes"])
def test_levels_of_a_run_are_those_of_a_channel(name, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", name, "--levels", "300", "--out", str(tmp_path / "out")])
    assert capsys.readouterr().err == "error: --levels must be from 2 to 256, not 300\n"
    assert not (tmp_path / "out").exists()


def test_a_folder_with_fewer_pictures_than_a_batch_is_named(tmp_path, capsys):
    for number in range(10):
        (tmp_path / "mine").mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (25 * number, 90, 200)).save(tmp_path / "mine" / f"{number}.png")
    with pytest.raises(SystemExit):
        cli.main(["train", "landscapes", "--data", str(tmp_path / "mine"), "--out", str(tmp_path / "out")])
    assert "error: --batch-size must be from 1 to 8, not 32" in capsys.readouterr().err


def test_a_model_of_colours_packs_no_grey_pictures(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["compress", str(tmp_path / "a.png"), "--model", "landscapes", "--out", str(tmp_path / "a.bin")])
    assert capsys.readouterr().err == "error: --model must draw in grey, not landscapes\n"


def test_a_grey_model_has_no_first_colour(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["sample", "--model", "transformer_small", "--first-pixel", "0xFEC"])
    assert "--first-pixel must be left out for a grey model, not" in capsys.readouterr().err
    assert not (tmp_path / "samples").exists()


def test_a_model_of_colours_learns_from_a_folder_of_pictures(tmp_path, monkeypatch):
    sizes = {"image_size": 8, "num_classes": 16, "width": 16, "depth": 1, "heads": 2} | INNER
    config = ar.TrainConfig(steps=2, batch_size=4)
    recipe = recipes.Recipe(ar.NestedColourTransformer, sizes, {}, config, "landscapes")
    monkeypatch.setitem(recipes.RECIPES, "tiny_landscapes", recipe)
    monkeypatch.chdir(tmp_path)
    for n in range(14):
        path = tmp_path / "pictures" / ("wood", "lake")[n % 2] / f"{n}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (9, 12), (n, 100 + n, 200)).save(path)
    cli.main(["train", "tiny_landscapes", "--data", "pictures", "--out", "mine", "--device", "cpu"])
    card = json.loads((tmp_path / "mine" / "tiny_landscapes.json").read_text())
    assert card["config"]["num_classes"] == 2
    assert card["config"]["image_size"] == 8
    assert card["recipe"]["data"]["images"] == 10


@every_model
def test_a_photograph_is_completed(run, name, tmp_path):
    colours = np.random.default_rng(0).integers(256, size=(8, 12, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "photograph.png")
    words = ["--count", "2", "--seed", "3", "--scale", "1", "--json"]  # half of the eight rows are kept
    found = run(name, "complete", "photograph.png", *words)
    kept = as_pictures(ar.quantize(torch.from_numpy(colours[:, 2:10].copy()), 7).flatten().unsqueeze(0), 7)[0]
    with Image.open(tmp_path / "completions" / found["images"][0]["file"]) as picture:
        drawn = np.asarray(picture)
    assert abs(drawn[:4] - 255 * kept[:4]).max() < 1
    assert abs(drawn[4:] - 255 * kept[4:]).max() > 1
    model, crop = build(name, 8, levels=7).float(), torch.from_numpy(colours[:, 2:10].copy())
    beliefs = ar.label_beliefs(model, image_tokens(crop.unsqueeze(0), model))[0, 4 * 8 * model.channels]
    assert found["beliefs"] == pytest.approx(beliefs.tolist(), abs=1e-3)


# --- What the benchmark measures ----------------------------------------------------------------------------------


def test_the_share_that_groups_explain_is_that_of_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    groups = [
        torch.randint(low, low + 1500, (n, 4, 6), generator=generator) for low, n in ((0, 5), (900, 8), (2500, 3))
    ]
    for row, share in enumerate(colours.explained(groups)):
        means = [unpack_colours(group[:, row]).double().mean(1).numpy() for group in groups]  # (B, 3) each
        middle = np.mean([each.mean(0) for each in means], axis=0)
        total = np.mean([((each - middle) ** 2).sum(1).mean() for each in means])  # all groups weigh the same
        inside = np.mean([((each - each.mean(0)) ** 2).sum(1).mean() for each in means])
        assert share == pytest.approx(1 - inside / total, abs=1e-4)
    assert colours.explained([groups[0], *groups]) == colours.explained([groups[0].repeat(3, 1, 1), *groups])
    assert colours.explained([groups[0], groups[0]]) == [0] * 4
    assert colours.explained([torch.zeros(2, 4, 6).long(), torch.full((3, 4, 6), 4095)]) == [1] * 4


def test_neighbours_are_compared_along_rows_and_along_columns():
    levels = torch.arange(16).expand(3, 16, 3, 16).movedim(2, 3)  # all channels grow by a level with each column
    found = colours.apart(pack_colours(levels.to(torch.uint8)))
    assert found == {"rows": [1, 2, 4, 8], "columns": [0, 0, 0, 0]}
    found = colours.apart(pack_colours(levels.to(torch.uint8)).mT)
    assert found == {"rows": [0, 0, 0, 0], "columns": [1, 2, 4, 8]}


@pytest.mark.parametrize("kind", colours.KINDS)
def test_pictures_come_back_as_they_were(kind):
    images = ar.ImageSet(16 * torch.randint(16, (2, 4, 4, 3), dtype=torch.uint8), torch.zeros(2).long())
    made, sizes = colours.KINDS[kind]
    model = made(image_size=4, **sizes | {"width": 16, "depth": 1, "heads": 2})
    tokens = image_tokens(colours.swapped(images, kind).images, model)
    assert torch.equal(colours.packed(tokens, model, kind), pack_colours(ar.quantize(images.images, 16)))


def test_the_cache_of_a_row_holds_a_key_and_a_value_for_each_pixel_and_layer():
    model = ColourTransformer(image_size=8, width=16, depth=3, heads=2)
    assert lengths.kept(model) == 2 * 3 * 64 * 16 * 4  # bytes: float32 has four
    assert 0 < lengths.attention_share(lengths.step(model, 2)) < 1
