"""The command line, as a reader types it: results on stdout, one clear line on stderr when something is wrong."""

import json
import os
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

import ar_helpers as ar
from ar_helpers import __main__ as command_line
from ar_helpers import data, training

pytestmark = pytest.mark.usefixtures("clean_environment", "few_images")


@pytest.fixture
def few_images(monkeypatch):
    """So that scoring takes no time."""
    for part, size in (("TRAIN", 100), ("VAL", 30), ("TEST", 20)):
        monkeypatch.setattr(data, f"{part}_SIZE", size)


@pytest.fixture
def command(capsys):
    """Run the command line here; gives (exit code, stdout, stderr)."""

    def run(*arguments):
        code = 0
        try:
            command_line.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """A tiny checkpoint, as if it shipped with the package; its card."""
    folder = tmp_path / "checkpoints"
    monkeypatch.setattr(training, "CHECKPOINTS", folder)
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
    for name in ("tiny", training.CHECKPOINTS / "tiny.safetensors"):
        chosen = ("--data", "digits", "--split", "val", "--limit", 20, "--device", "cpu")
        code, out, _ = command("evaluate", name, *chosen, "--json")
        assert code == 0
        result = json.loads(out)
        assert result.pop("bits_per_pixel") == pytest.approx(expected, rel=1e-6)
        assert result == {"name": str(name), "data": "digits", "split": "val", "images": 20}
        code, out, _ = command("evaluate", name, *chosen)
        assert (code, out) == (0, f"{expected:.4f} bits per pixel on 20 val images of digits\n")


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
        (("huge",), "name must be a .safetensors file or one of tiny, not 'huge'"),
        (("no.safetensors",), "there is no checkpoint no.safetensors"),
        (("tiny", "--data", "cifar"), "name must be one of mnist, fashion_mnist, kmnist, digits, not 'cifar'"),
        (("tiny", "--data", "digits", "--limit", "0"), "--limit must be at least 1, not 0"),
        (("tiny", "--data", "digits", "--limit", "-1"), "--limit must be at least 1, not -1"),
    ],
)
def test_evaluate_names_what_is_wrong_in_one_line(command, arguments, message):
    assert command("evaluate", *arguments) == (2, "", f"error: {message}\n")


def test_evaluate_names_a_truncated_file_and_one_that_suits_no_data(command, tmp_path):
    path = tmp_path / "mine.safetensors"
    ar.save_checkpoint(path, ar.OneHotMLP(image_size=8, hidden_size=4))
    code, out, err = command("evaluate", path, "--data", "digits")
    assert (code, out) == (2, "")
    assert err == "error: tokens must have shape (B, 64), not (8, 784)\n"
    path.write_bytes(path.read_bytes()[:-1])
    code, out, err = command("evaluate", path, "--data", "digits")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "mine.safetensors is damaged" in err


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
    assert card["fingerprint"] == pytest.approx(training.fingerprint(model), abs=1e-5)
    assert card["recipe"]["seed"] == 3
    assert card["history"]["train_steps"]
    assert (
        out.splitlines()[-1]
        == f"one_hot_mlp: {card['scores']['test_bits_per_pixel']:.4f} bits per pixel on 8 test images"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "0"), "steps must be at least 1, not 0"),
        (("--data", "cifar"), "name must be one of mnist, fashion_mnist, kmnist, digits, not 'cifar'"),
    ],
)
def test_train_names_what_is_wrong_and_writes_nothing(command, tmp_path, arguments, message):
    folder = tmp_path / "out"
    assert command("train", "one_hot_mlp", "--out", folder, *arguments) == (2, "", f"error: {message}\n")
    assert not folder.exists()


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


@pytest.mark.parametrize("name", ["train", "evaluate", "models"])
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
    assert sorted(json.loads(models.stdout)) == training.card_names()
    wrong = run("evaluate", "no.safetensors")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "error: there is no checkpoint no.safetensors\n"
    assert names_in(tmp_path) in ([], ["cache"])  # matplotlib's cache, at most
