"""The command line, as a reader types it: results on stdout, one clear line on stderr when something is wrong."""

import json
import os
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

import ar_helpers as ar
from ar_helpers import cards, cli, data, metrics, recipes, scoring, training

pytestmark = pytest.mark.usefixtures("clean_environment", "few_images")


@pytest.fixture
def few_images(monkeypatch):
    """So that scoring takes no time."""
    for part, size in (("TRAIN", 100), ("VAL", 30), ("TEST", 20)):
        monkeypatch.setattr(data, f"{part}_SIZE", size)


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """A tiny checkpoint, as if it shipped with the package; its card."""
    folder = tmp_path / "checkpoints"
    monkeypatch.setattr(cards, "CHECKPOINTS", folder)
    torch.manual_seed(0)
    model = ar.OneHotMLP(hidden_size=4, context_length=3)
    card = {
        "name": "tiny",
        "parameters": 1234,
        "scores": {"test_bits_per_pixel": 0.4567},
        "milliseconds_per_image": 12.3,
        "hardware": "2 CPU cores",
        "history": asdict(ar.History(seconds=83.0)),
    }
    ar.save_checkpoint(folder / "tiny.safetensors", model, card)
    return card


@pytest.fixture
def quick(clean_environment, monkeypatch):
    monkeypatch.setenv("AR_QUICK", "1")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# --- models -------------------------------------------------------------------------------------------------------


def test_models_prints_the_table(command, shipped):
    assert command("models") == (0, ar.model_table() + "\n", "")


def test_models_as_json_are_the_cards(command, shipped):
    code, out, err = command("models", "--json")
    assert (code, json.loads(out), err) == (0, {"tiny": shipped}, "")


# --- evaluate -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("shipped")
def test_evaluate_scores_a_checkpoint_by_name_or_by_file(command):
    expected = ar.load_images("digits").val
    expected = ar.bits_per_pixel(ar.load_pretrained("tiny"), ar.ImageSet(*(part[:20] for part in expected)))
    for name in ("tiny", cards.CHECKPOINTS / "tiny.safetensors"):
        chosen = ("--data", "digits", "--split", "val", "--limit", 20, "--device", "cpu")
        code, out, _ = command("evaluate", name, *chosen, "--json")
        assert code == 0
        result = json.loads(out)
        assert result.pop("bits_per_pixel") == pytest.approx(expected, rel=1e-6)
        assert result == {"name": str(name), "data": "digits", "split": "val", "images": 20}
        code, out, _ = command("evaluate", name, *chosen)
        assert (code, out) == (0, f"{expected:.4f} bits per pixel on 20 val images of digits\n")


@pytest.mark.usefixtures("shipped")
def test_evaluate_judges_drawings_beside_written_digits(command, tmp_path):
    ar.save_checkpoint(tmp_path / "mine.safetensors", ar.ConditionalMLP(hidden_size=4, context_length=3))
    chosen = ("--data", "digits", "--limit", 5, "--samples", 12, "--device", "cpu")
    for name, measures in (
        ("tiny", ["frechet", "precision", "recall"]),
        (tmp_path / "mine.safetensors", ["recognized", "frechet", "precision", "recall"]),
    ):
        code, out, _ = command("evaluate", name, *chosen, "--json")
        assert code == 0
        result = json.loads(out)
        assert (result["samples"], result["images"]) == (12, 5)
        assert result["bits_per_pixel"] > 0
        keys = {key for measure in measures for key in (measure, f"{measure}_floor")}
        assert set(result) == keys | {"name", "data", "split", "images", "bits_per_pixel", "samples", "seed"}
        assert result["frechet"] > result["frechet_floor"] > 0  # it has learned nothing
        assert all(0 <= result[f"{share}{floor}"] <= 1 for share in measures[-2:] for floor in ("", "_floor"))
        assert json.loads(command("evaluate", name, *chosen, "--json")[1]) == result, "the same seed, the same drawings"
        other = json.loads(command("evaluate", name, *chosen, "--json", "--seed", 1)[1])
        assert other["frechet"] != result["frechet"]
        assert other["frechet_floor"] == result["frechet_floor"]
        code, out, _ = command("evaluate", name, *chosen)
        assert code == 0
        assert len(out.splitlines()) == 2 + len(measures)
        assert f"{result['frechet']:.2f}" in out


@pytest.mark.usefixtures("shipped", "quick")
def test_evaluate_prints_nothing_but_json_even_on_stand_in_data(command):
    code, out, err = command("evaluate", "tiny", "--limit", 5, "--json")
    assert code == 0
    assert json.loads(out)["images"] == 5
    assert json.loads(out)["data"] == "digits"
    assert "using the built-in 8 x 8 digits" in err


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("huge",), "the model must be a .safetensors file or one of tiny, not 'huge'"),
        (("no.safetensors",), "there is no checkpoint no.safetensors"),
        (
            ("tiny", "--data", "cifar"),
            f"name must be {', '.join(data.NAMES)} or the path of images, not 'cifar': no such file",
        ),
        (("tiny", "--data", "digits", "--limit", "0"), "--limit must be at least 1, not 0"),
        (("tiny", "--data", "digits", "--limit", "-1"), "--limit must be at least 1, not -1"),
        (("tiny", "--data", "digits", "--samples", "3"), "--samples must be from 4 to 20, not 3"),
        (("tiny", "--data", "digits", "--samples", "21"), "--samples must be from 4 to 20, not 21"),
    ],
)
def test_evaluate_names_what_is_wrong_in_one_line(command, arguments, message):
    assert command("evaluate", *arguments) == (2, "", f"error: {message}\n")


def test_evaluate_names_a_truncated_file_and_one_that_suits_no_data(command, tmp_path):
    path = tmp_path / "mine.safetensors"
    ar.save_checkpoint(path, ar.OneHotMLP(image_size=8, hidden_size=4))
    code, out, err = command("evaluate", path, "--data", "digits")
    assert (code, out) == (2, "")
    assert err == "error: images must be of 8 x 8 pixels, as the model's images are, not 28 x 28\n"
    path.write_bytes(path.read_bytes()[:-1])
    code, out, err = command("evaluate", path, "--data", "digits")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "mine.safetensors is damaged" in err


# --- sample and complete ------------------------------------------------------------------------------------------


@pytest.fixture
def drawer(shipped):
    """A tiny conditional checkpoint of the real image size, as if it shipped."""
    torch.manual_seed(0)
    model = ar.ConditionalMLP(num_levels=4, hidden_size=4, context_length=3)
    ar.save_checkpoint(cards.CHECKPOINTS / "drawer.safetensors", model, shipped | {"name": "drawer"})
    return model


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_sample_draws_what_is_asked_for_and_says_with_what(command, drawer, tmp_path):
    out = tmp_path / "some" / "folder"
    knobs = ("--temperature", "1.2", "--top-k", 3, "--top-p", "0.9", "--seed", 5, "--scale", 2)
    code, text, _ = command("sample", "--model", "drawer", "--targets", "7,0", "--count", 2, *knobs, "--out", out)
    assert code == 0
    pictures = ["0_001.png", "0_002.png", "7_001.png", "7_002.png"]
    assert names_in(out) == [*pictures, "samples.json", "sheet.png"]
    assert names_in(out.parent) == ["folder"]  # nothing is left beside it
    expected = ar.generate(drawer, [7, 7, 0, 0], temperature=1.2, top_k=3, top_p=0.9, seed=5).tokens
    record = json.loads((out / "samples.json").read_text(encoding="utf-8"))
    assert (record["checkpoint"]["name"], record["temperature"], record["seed"]) == ("drawer", 1.2, 5)
    assert [image["file"] for image in record["images"]] == ["7_001.png", "7_002.png", "0_001.png", "0_002.png"]
    likelihoods, _ = ar.prediction_maps(drawer.image_logits(expected, torch.tensor([7, 7, 0, 0])), expected)
    for image, tokens, likelihood in zip(record["images"], expected, likelihoods, strict=True):
        shown = read(out / image["file"])
        assert shown.shape == (56, 56)
        grey = (ar.dequantize(tokens, 4) * 255).round().to(torch.uint8).view(28, 28).numpy()
        assert (shown[::2, ::2] == grey).all()
        assert image["bits_per_pixel"] == pytest.approx(-likelihood.log2().mean().item(), abs=1e-3)
    assert read(out / "sheet.png").shape == ((2 * 29 + 1) * 4, (2 * 29 + 1) * 4)
    assert text.startswith(f"4 drawings in {out}, ")


def test_sample_without_options_draws_every_digit_into_a_new_folder(command, drawer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "DRAWS", "drawer")
    for folder in ("samples", "samples-2"):
        code, _, err = command("sample")
        assert (code, err) == (0, "")
        assert names_in(tmp_path / folder) == [f"{digit}_001.png" for digit in range(10)] + [
            "samples.json",
            "sheet.png",
        ]


def test_the_same_seed_and_the_original_spellings_give_the_same_files(command, drawer, tmp_path):
    common = ("sample", "--model", "drawer", "--targets", "3", "--seed", 1, "--out")
    assert command(*common, tmp_path / "a", "--top-k", 2, "--top-p", "0.8", "--gif")[0] == 0
    assert command(*common, tmp_path / "b", "--top_k", 2, "--top_p", "0.8", "--generate_gifs")[0] == 0
    assert names_in(tmp_path / "a") == ["3_001.gif", "3_001.png", "samples.json", "sheet.gif", "sheet.png"]
    for name in names_in(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    for name in ("3_001.gif", "sheet.gif"):
        with Image.open(tmp_path / "a" / name) as gif:
            assert (gif.n_frames >= 20, gif.info["loop"]) == (True, 0)
            times = []
            for i in range(gif.n_frames):
                gif.seek(i)
                times.append(gif.info["duration"])
        assert times[0] == 2000  # the pause on the finished digit
        assert sum(times) == pytest.approx(6000, abs=200)


def test_sample_as_json_is_the_record(command, drawer, tmp_path):
    code, text, _ = command("sample", "--model", "drawer", "--targets", "3", "--out", tmp_path / "a", "--json")
    record = json.loads((tmp_path / "a" / "samples.json").read_text(encoding="utf-8"))
    assert (code, json.loads(text)) == (0, {"folder": str(tmp_path / "a"), **record})


def test_a_model_without_classes_draws_what_it_likes(command, shipped, tmp_path):
    code, _, _ = command("sample", "--model", "tiny", "--count", 2, "--out", tmp_path / "a")
    assert (code, names_in(tmp_path / "a")) == (0, ["any_001.png", "any_002.png", "samples.json", "sheet.png"])


def seven(path, ground, ink, size=(120, 90)):
    """A big 7 in two strokes, off the middle."""
    canvas = np.full((*size, 3), ground, np.uint8)
    canvas[15:23, 20:60] = canvas[15:100, 52:60] = ink
    Image.fromarray(canvas).save(path)


@pytest.mark.parametrize(("ground", "ink", "words"), [(250, 30, "dark on light"), (10, 240, "light on dark")])
def test_complete_takes_either_colours_and_keeps_the_rows(command, drawer, tmp_path, ground, ink, words):
    seven(tmp_path / "seven.png", ground, ink)
    arguments = ("complete", tmp_path / "seven.png", "--model", "drawer", "--keep-rows", 9, "--count", 3, "--scale", 1)
    code, _, err = command(*arguments, "--seed", 0, "--out", tmp_path / "out")
    assert code == 0
    assert f"It was read as {words}." in err
    record = json.loads((tmp_path / "out" / "samples.json").read_text(encoding="utf-8"))
    assert (record["read_as"], record["keep_rows"], len(record["images"])) == (words, 9, 3)
    picture, _ = ar.read_picture(tmp_path / "seven.png")
    tokens = ar.quantize(picture, 4).flatten()
    beliefs = ar.label_beliefs(drawer, tokens.unsqueeze(0))[0, 9 * 28]
    assert record["beliefs"] == pytest.approx(beliefs.tolist(), abs=1e-3)
    kept = (ar.dequantize(tokens, 4) * 255).round().to(torch.uint8).view(28, 28).numpy()[:9]
    for image in record["images"]:
        assert (read(tmp_path / "out" / image["file"])[:9] == kept).all()
    assert command(*arguments, "--target", 7, "--out", tmp_path / "sevens")[0] == 0
    assert names_in(tmp_path / "sevens") == ["7_001.png", "7_002.png", "7_003.png", "samples.json", "sheet.png"]


def test_a_picture_is_centred_and_sized_as_mnist_is(tmp_path):
    shown = []
    for name, ground, ink in (("dark", 250, 30), ("light", 5, 225)):
        seven(tmp_path / f"{name}.png", ground, ink)
        picture, _ = ar.read_picture(tmp_path / f"{name}.png")
        assert (picture.dtype, picture.shape) == (torch.uint8, (28, 28))
        rows, cols = picture.nonzero().unbind(1)
        assert rows.max() - rows.min() + 1 == 20
        assert cols.max() - cols.min() + 1 < 20
        weights = picture.double() / picture.sum()
        place = torch.arange(28.0, dtype=torch.double)
        assert abs((weights.sum(1) * place).sum() - 13.5) < 1
        assert abs((weights.sum(0) * place).sum() - 13.5) < 1
        assert picture.max() == 255
        shown.append(picture)
    assert (shown[0].int() - shown[1].int()).abs().max() <= 3
    digit = ar.load_images("digits").test.images[0]
    Image.fromarray(digit.numpy()).save(tmp_path / "as_it_is.png")
    taken, words = ar.read_picture(tmp_path / "as_it_is.png")
    assert words == "light on dark"
    assert torch.equal(taken, digit)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--targets", "11"), "--targets must be numbers from 0 to 9, as in 0,1,2, not '11'"),
        (("--targets", "a"), "--targets must be numbers from 0 to 9, as in 0,1,2, not 'a'"),
        (("--targets", ""), "--targets must be numbers from 0 to 9, as in 0,1,2, not ''"),
        (("--temperature", "0"), "temperature must be a finite number above 0, not 0.0"),
        (("--top-k", "0"), "top_k must be at least 1, not 0"),
        (("--top-p", "1.5"), "top_p must lie in (0, 1], not 1.5"),
        (("--count", "0"), "--count must be at least 1, not 0"),
        (("--scale", "0"), "--scale must be at least 1, not 0"),
        (("--model", "huge"), "the model must be a .safetensors file or one of drawer, tiny, not 'huge'"),
        (("--model", "tiny", "--targets", "1"), "--targets must not be given: this model draws what it likes, not '1'"),
    ],
)
def test_sample_names_what_is_wrong_in_one_line_and_writes_nothing(command, drawer, tmp_path, arguments, message):
    out = tmp_path / "out"
    code, text, err = command("sample", "--model", "drawer", "--out", out, *arguments)
    assert (code, text, err) == (2, "", f"error: {message}\n")
    assert not out.exists()


def test_complete_names_what_is_wrong_with_a_picture(command, drawer, tmp_path):
    (tmp_path / "words.png").write_text("no picture")
    Image.new("L", (40, 40), 200).save(tmp_path / "blank.png")
    seven(tmp_path / "seven.png", 250, 30)
    wrong = {
        ("no.png",): f"there is no picture {tmp_path / 'no.png'}",
        ("words.png",): f"{tmp_path / 'words.png'} is no picture that can be read",
        ("blank.png",): f"{tmp_path / 'blank.png'} shows no digit: it is nearly all of one shade",
        ("seven.png", "--keep-rows", 28): "--keep-rows must be from 0 to 27, not 28",
        ("seven.png", "--target", 10): "--target must be numbers from 0 to 9",
        ("seven.png", "--target", "1,2"): "--target must be a single number, not '1,2'",
    }
    for (name, *more), message in wrong.items():
        code, text, err = command("complete", tmp_path / name, "--model", "drawer", "--out", tmp_path / "out", *more)
        assert (code, text) == (2, "")
        assert err.startswith(f"error: {message}")
        assert len(err.splitlines()) == 1
        assert not (tmp_path / "out").exists()


# --- train --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_train_leaves_weights_and_card_and_nothing_else(command, tmp_path):
    folder = tmp_path / "new" / "folder"
    code, out, _ = command("train", "one_hot_mlp", "--out", folder, "--device", "cpu", "--seed", 3)
    assert code == 0
    assert names_in(folder) == ["one_hot_mlp.json", "one_hot_mlp.safetensors"]
    model = ar.load_checkpoint(folder / "one_hot_mlp.safetensors")
    card = json.loads((folder / "one_hot_mlp.json").read_text(encoding="utf-8"))
    assert (card["name"], card["class"], card["config"]) == ("one_hot_mlp", "OneHotMLP", model.config)
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    assert card["fingerprint"] == pytest.approx(scoring.fingerprint(model), abs=1e-5)
    assert card["recipe"]["seed"] == 3
    assert card["history"]["train_steps"]
    assert (
        out.splitlines()[-1]
        == f"one_hot_mlp: {card['scores']['test_bits_per_pixel']:.4f} bits per pixel on 2 test images"
    )


@pytest.mark.usefixtures("quick")
def test_train_compiles_the_model_when_asked_and_stores_it_as_itself(command, tmp_path, monkeypatch):
    compiled, compile_model = [], torch.compile

    def eager(model):  # without the minute that a real compiler takes
        compiled.append(type(model).__name__)
        return compile_model(model, backend="eager")

    monkeypatch.setattr(torch, "compile", eager)
    for name, more in (("plain", ()), ("compiled", ("--compile",))):
        assert command("train", "one_hot_mlp", "--out", tmp_path / name, "--device", "cpu", *more)[0] == 0
    assert compiled == ["OneHotMLP"]
    plain, same = (ar.load_checkpoint(tmp_path / name / "one_hot_mlp.safetensors") for name in ("plain", "compiled"))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(plain.parameters(), same.parameters(), strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "0"), "steps must be at least 1, not 0"),
        (
            ("--data", "cifar"),
            f"name must be {', '.join(data.NAMES)} or the path of images, not 'cifar': no such file",
        ),
    ],
)
def test_train_names_what_is_wrong_and_writes_nothing(command, tmp_path, arguments, message):
    folder = tmp_path / "out"
    assert command("train", "one_hot_mlp", "--out", folder, *arguments) == (2, "", f"error: {message}\n")
    assert not folder.exists()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("name", "patched"), [("one_hot_mlp", "_save_state"), ("lenet5", "write_tensors")])
def test_train_stopped_by_hand_says_what_is_left(command, tmp_path, monkeypatch, name, patched):
    """Ctrl-C, at the moment when something is to be written for the second time (the classifier: for the first)."""
    owner, calls = metrics if name == "lenet5" else training, []
    real = getattr(owner, patched)

    def stop(*arguments):
        calls.append(arguments)
        if name == "lenet5" or len(calls) > 1:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(owner, patched, stop)
    code, _, err = command("train", name, "--out", tmp_path / "out", "--data", "digits")
    assert code == 130
    if name == "lenet5":
        assert err.splitlines()[-1] == "stopped: nothing was written"
        assert names_in(tmp_path / "out") == []
        return
    assert err.splitlines()[-1] == "stopped: the same command goes on from here"
    assert names_in(tmp_path / "out") == [f"{name}.state.safetensors"]
    monkeypatch.setattr(owner, patched, real)
    code, out, _ = command("train", name, "--out", tmp_path / "out", "--data", "digits")
    assert code == 0
    assert "Going on from step 1 of" in out
    assert names_in(tmp_path / "out") == [f"{name}.json", f"{name}.safetensors"]


@pytest.mark.usefixtures("quick")
def test_train_stopped_while_it_scores_goes_on_from_there(command, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    arguments = ("train", "one_hot_mlp", "--out", tmp_path / "out", "--data", "digits")
    with monkeypatch.context() as context:
        context.setattr(scoring, "bits_per_pixel", stop)
        code, _, err = command(*arguments)
    assert (code, err.splitlines()[-1]) == (130, "stopped: the same command goes on from here")
    assert names_in(tmp_path / "out") == ["one_hot_mlp.state.safetensors"]
    assert command(*arguments)[0] == 0
    assert names_in(tmp_path / "out") == ["one_hot_mlp.json", "one_hot_mlp.safetensors"]


@pytest.mark.usefixtures("quick")
def test_train_names_a_folder_that_cannot_be_made(command, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    code, _, err = command("train", "one_hot_mlp", "--out", tmp_path / "file" / "below")
    assert (code, len(err.splitlines())) == (2, 1)
    assert str(tmp_path / "file") in err


# --- the program --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("draw",), ("train", "huge"), ("evaluate", "tiny", "--limit", "many")])
def test_what_is_no_command_exits_with_2_and_says_how_to(command, arguments):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: python -m ar_helpers")


@pytest.mark.parametrize("name", ["sample", "complete", "train", "evaluate", "compress", "decompress", "models"])
def test_every_command_explains_itself_with_an_example(command, name):
    code, out, _ = command(name, "--help")
    assert code == 0
    assert f"Example: python -m ar_helpers {name}" in out


def test_it_runs_from_any_folder(tmp_path):
    """`models` and an error, by the interpreter itself, where nothing of the repository is."""

    def run(*arguments):
        command = [sys.executable, "-m", "ar_helpers", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""}
        )

    models = run("models", "--json")
    assert (models.returncode, models.stderr) == (0, "")
    assert sorted(json.loads(models.stdout)) == cards.card_names()
    wrong = run("evaluate", "no.safetensors")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "error: there is no checkpoint no.safetensors\n"
    assert names_in(tmp_path) in ([], ["cache"])  # matplotlib's cache, at most


@pytest.mark.parametrize("name", sorted(recipes.RECIPES))
def test_the_shipped_weights_were_trained_by_the_recipe_that_train_follows(name):
    card, recipe = cards.load_card(name), recipes.RECIPES[name]
    assert (card["class"], card["config"]) == (recipe.model.__name__, recipe.model(**recipe.sizes).config)
    assert card["recipe"] == training.describe_recipe(recipe.config, recipe.data)
    assert card["fingerprint"] == pytest.approx(scoring.fingerprint(ar.load_pretrained(name)), abs=1e-4)
