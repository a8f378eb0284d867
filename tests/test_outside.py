"""What people bring: numbers of other kinds, precisions, compiled models, damaged weights, several runs at once."""

import json
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

import ar_helpers as ar
from ar_helpers import cards, cli, files, scoring, training
from ar_helpers.checks import real_number, whole_number
from ar_helpers.data import quick_mode
from ar_helpers.files import progress, switched_on

pytestmark = pytest.mark.usefixtures("clean_environment")

WINDOW = {"num_levels": 4, "image_size": 4, "context_length": 3, "hidden_size": 8}
SEQUENCE = {"num_levels": 4, "image_size": 4, "width": 8, "depth": 1, "heads": 2}
MAKERS = {
    "one-hot": lambda: ar.OneHotMLP(**WINDOW),
    "positional": lambda: ar.PositionalMLP(**WINDOW),
    "conditional": lambda: ar.ConditionalMLP(**WINDOW),
    "transformer": lambda: ar.PixelTransformer(**SEQUENCE),
    "patches": lambda: ar.PatchTransformer(**SEQUENCE),
    "independent patches": lambda: ar.PatchTransformer(**SEQUENCE, independent=True),
}
every_model = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
TOKENS = torch.randint(4, (8, 16), generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8)


def dataset_for(model):
    labels = LABELS if model.num_classes else None
    if hasattr(model, "context_length"):
        return ar.ContextWindows(TOKENS, labels, context_length=3, num_levels=4)
    return ar.TokenImages(TOKENS, labels)


# --- Numbers ------------------------------------------------------------------------------------------------------

WHOLE = [3, np.int64(3), np.uint8(3), np.int32(3), 3.0, np.float32(3), torch.tensor(3)]
NOT_WHOLE = [2.5, True, np.True_, "3", None, float("nan"), float("inf"), [3], np.float32(0.5)]


@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_a_whole_number_of_any_kind_becomes_an_int(value):
    assert whole_number("steps", value) == 3
    assert type(whole_number("steps", value)) is int


@pytest.mark.parametrize("value", NOT_WHOLE, ids=repr)
def test_what_is_no_whole_number_is_named(value):
    with pytest.raises(TypeError, match="steps must be a whole number, not "):
        whole_number("steps", value)


@pytest.mark.parametrize("value", [True, "0.5", None, [0.5]], ids=repr)
def test_what_is_no_number_is_named(value):
    with pytest.raises(TypeError, match="rate must be a number, not "):
        real_number("rate", value)


@pytest.mark.parametrize("whole", [np.int64, np.uint8, np.float64, float])
def test_a_recipe_of_numpys_numbers_is_the_same_recipe_and_can_be_resumed(whole, tmp_path):
    plain = ar.TrainConfig(steps=3, batch_size=4, learning_rate=0.5, seed=1)
    other = ar.TrainConfig(steps=whole(3), batch_size=whole(4), learning_rate=np.float32(0.5), seed=whole(1))
    assert other == plain
    assert repr(other) == repr(plain)
    ar.fit(MAKERS["one-hot"](), dataset_for(MAKERS["one-hot"]()), other, resume=tmp_path / "s.safetensors", quiet=True)


def test_a_model_and_a_data_set_take_numpys_numbers_and_can_be_saved(tmp_path):
    sizes = {name: np.int64(value) for name, value in WINDOW.items()}
    model = ar.OneHotMLP(**sizes, dropout=np.float32(0.5))
    windows = ar.ContextWindows(TOKENS, context_length=np.int64(3), num_levels=np.int64(4))
    ar.fit(model, windows, ar.TrainConfig(steps=1, batch_size=4), quiet=True)
    ar.save_checkpoint(tmp_path / "m.safetensors", model, {"levels": int(model.num_levels)})
    assert ar.load_checkpoint(tmp_path / "m.safetensors").config == WINDOW | {"dropout": 0.5}
    assert torch.equal(ar.quantize(torch.arange(256, dtype=torch.uint8), np.int64(4)).unique(), torch.arange(4))
    with pytest.raises(TypeError, match=r"hidden_size must be a whole number, not 8\.5"):
        ar.OneHotMLP(hidden_size=8.5)


def test_drawing_takes_numpys_numbers():
    model = MAKERS["conditional"]()
    plain = ar.generate(model, [1, 2], seed=3, top_k=2, temperature=0.5)
    other = ar.generate(model, np.array([1, 2]), seed=np.int64(3), top_k=np.int64(2), temperature=np.float32(0.5))
    assert torch.equal(plain.tokens, other.tokens)
    with pytest.raises(TypeError, match=r"seed must be a whole number, not 0\.5"):
        ar.generate(model, [1], seed=0.5)


def test_inpaint_takes_what_complete_takes():
    model, known = MAKERS["one-hot"](), np.arange(16) < 10
    of_array = ar.inpaint(model, TOKENS[0].numpy(), known, particles=np.int64(3), seed=np.int64(0))
    of_tensor = ar.inpaint(model, TOKENS[0], torch.from_numpy(known), particles=3, seed=0)
    assert torch.equal(of_array.tokens, of_tensor.tokens)
    assert torch.equal(of_array.tokens[:, :10], TOKENS[:1, :10].expand(3, -1))


# --- Data that do not suit a model ----------------------------------------------------------------------------------


@every_model
def test_data_of_the_wrong_kind_are_named(make):
    model, config = make(), ar.TrainConfig(steps=1, batch_size=2)
    labels = LABELS if model.num_classes else None
    right = dataset_for(model)
    windows = ar.ContextWindows(TOKENS, labels, context_length=3, num_levels=4)
    wrong = ar.TokenImages(TOKENS, labels) if hasattr(model, "context_length") else windows
    kinds = {
        "must be of (windows|whole images) for this model, not of": wrong,
        "not a Tensor": TOKENS,
        "not a list": [1],
    }
    kinds |= {"not a Subset: for some of the images": Subset(right, range(3))}
    for words, dataset in kinds.items():
        with pytest.raises(ValueError, match=f"dataset must be .*{words}|dataset {words}"):
            ar.fit(model, dataset, config)


def test_images_to_validate_on_are_checked_before_training():
    model, config = MAKERS["one-hot"](), ar.TrainConfig(steps=1, batch_size=2)
    digits = ar.load_images("digits")
    for val, words, kind in (
        (digits, "val must be an ImageSet .* not a Digits", TypeError),
        (digits.val.images, "val must be an ImageSet .* not a Tensor", TypeError),
        (digits.val, "val must be of 4 x 4 pixels, as the model's images are, not 28 x 28", ValueError),
        (digits.val.first(0), "val must hold at least one image", ValueError),
    ):
        with pytest.raises(kind, match=words):
            ar.fit(model, dataset_for(model), config, val)
    with pytest.raises(TypeError, match="images must be an ImageSet"):
        ar.bits_per_pixel(model, digits)


# --- Models in other precisions, and compiled -----------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_models_in_other_precisions_score_and_draw(make, dtype):
    torch.manual_seed(0)
    exact = make().eval()
    model, labels = make(), LABELS if exact.num_classes else None
    model.load_state_dict(exact.state_dict())
    model = model.to(dtype).eval()
    with torch.no_grad():
        logits = model.image_logits(TOKENS, labels)
        assert logits.dtype == dtype
        torch.testing.assert_close(logits.float(), exact.image_logits(TOKENS, labels), rtol=0.05, atol=0.05)
    drawn = ar.generate(model, labels, count=8, seed=0)
    assert drawn.tokens.shape == (8, 16)


def test_a_model_made_in_another_default_precision_trains():
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        model = MAKERS["positional"]()
        ar.fit(model, dataset_for(model), ar.TrainConfig(steps=2, batch_size=4), quiet=True)
    finally:
        torch.set_default_dtype(before)
    assert next(model.parameters()).dtype == torch.float64


@every_model
def test_a_compiled_model_trains_resumes_draws_and_is_stored_as_itself(make, tmp_path):
    torch.manual_seed(0)
    plain, config = make(), ar.TrainConfig(steps=4, batch_size=4)
    model = make()
    model.load_state_dict(plain.state_dict())
    compiled = torch.compile(model, backend="eager")
    dataset = dataset_for(plain)
    history = ar.fit(plain, dataset, config, quiet=True)
    state, path = tmp_path / "state.safetensors", tmp_path / "m.safetensors"
    assert ar.fit(compiled, dataset, config, resume=state, quiet=True).train_bits == pytest.approx(history.train_bits)
    assert ar.fit(make(), dataset, config, resume=state, quiet=True).train_bits == pytest.approx(history.train_bits)
    ar.save_checkpoint(path, compiled)
    for into in (None, make(), torch.compile(make(), backend="eager")):
        found = ar.load_checkpoint(path, into)
        assert into is None or found is into
        assert type(training.uncompiled(found)) is type(plain)
        for name, tensor in training.uncompiled(found).state_dict().items():
            torch.testing.assert_close(tensor, plain.state_dict()[name], rtol=1e-3, atol=1e-3)
    labels = LABELS if plain.num_classes else None
    assert torch.equal(ar.generate(compiled, labels, count=8, seed=0).tokens,
                       ar.generate(plain, labels, count=8, seed=0).tokens)  # fmt: skip


# --- Weights that are no numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_weights_that_float16_cannot_hold_are_neither_stored_nor_loaded(value, tmp_path):
    model, path = MAKERS["one-hot"](), tmp_path / "m.safetensors"
    with torch.no_grad():
        model.layers[0].bias[3] = value
    with pytest.raises(ValueError, match=r"weights must hold finite numbers, not what layers\.0\.bias holds"):
        ar.save_checkpoint(path, model, {"a": 1})
    assert os.listdir(tmp_path) == []
    tensors = {name: tensor.half() for name, tensor in model.state_dict().items()}
    files.write_tensors(path, tensors, {"model": json.dumps(["OneHotMLP", model.config])})
    with pytest.raises(ValueError, match=r"the weights in .*m\.safetensors must hold finite numbers"):
        ar.load_checkpoint(path)


@every_model
def test_drawing_with_weights_that_are_no_numbers_says_so(make):
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    labels = LABELS if model.num_classes else None
    with pytest.raises(ValueError, match="logits must hold finite numbers, not what the model holds"):
        ar.generate(model, labels, count=8)
    with pytest.raises(ValueError, match="logits must hold finite numbers"):
        ar.inpaint(model, TOKENS[0], torch.zeros(16, dtype=torch.bool), 1 if model.num_classes else None, 2)


def test_training_that_goes_astray_stops_and_says_where():
    model = MAKERS["one-hot"]()
    with torch.no_grad():
        model.layers[0].weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="the loss is nan at step 1: try a lower rate"):
        ar.fit(model, dataset_for(model), ar.TrainConfig(steps=5, batch_size=4), quiet=True)


# --- Files ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_files_have_the_permissions_that_the_user_asks_for(mask, tmp_path):
    before = os.umask(mask)
    try:
        model = MAKERS["one-hot"]()
        ar.save_checkpoint(tmp_path / "m.safetensors", model, {"a": 1})
        ar.fit(
            model,
            dataset_for(model),
            ar.TrainConfig(steps=1, batch_size=2),
            resume=tmp_path / "s.safetensors",
            quiet=True,
        )
        ar.animate(TOKENS[:1], 4, tmp_path / "a.gif")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o666 & ~mask}
    assert len(os.listdir(tmp_path)) == 4


TRAINING = """
import sys, torch, ar_helpers as ar
torch.set_num_threads(1); torch.manual_seed(0)
model = ar.OneHotMLP(hidden_size=8, context_length=4, num_levels=4, image_size=8)
tokens = torch.randint(4, (64, 64), generator=torch.Generator().manual_seed(0))
windows = ar.ContextWindows(tokens, context_length=4, num_levels=4)
sys.stdin.readline()
ar.train_or_load("mine", model, windows, ar.TrainConfig(steps=400, batch_size=16))
print(model.layers[0].weight.sum().item())
"""


def test_two_kernels_that_run_the_same_chapter_do_not_disturb_each_other(tmp_path):
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen([sys.executable, "-c", TRAINING], env=environment, **pipes) for _ in range(2)]
    for run in runs:
        run.stdin.write("go\n")
        run.stdin.flush()
    results = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], results
    assert len({out.splitlines()[-1] for out, _ in results}) == 1
    assert list((tmp_path / "ar_helpers").iterdir()) == []


def test_many_writers_of_one_file_leave_one_whole_file(tmp_path):
    (tmp_path / "out").mkdir()
    code = "import sys; from ar_helpers.files import write\n"
    code += "for i in range(200): write(sys.argv[1], sys.argv[2].encode() * 9999)"
    runs = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "out" / "f", letter]) for letter in "abc"]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert os.listdir(tmp_path / "out") == ["f"]
    content = (tmp_path / "out" / "f").read_text()
    assert len(content) == 9999
    assert len(set(content)) == 1


# --- Switches, consoles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "0", "false", "False", "no", "NO", "off", " ", " 0 "])
def test_a_switch_that_says_no_is_off(value, monkeypatch):
    monkeypatch.setenv("AR_QUICK", value)
    assert not quick_mode()


@pytest.mark.parametrize("value", ["1", "true", "yes", "on", "2"])
def test_a_switch_that_says_yes_is_on(value, monkeypatch):
    for name in ("AR_QUICK", "AR_RETRAIN", "AR_CLAIMS"):
        monkeypatch.setenv(name, value)
        assert switched_on(name)


def run(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)


@pytest.mark.parametrize("command", ["", "sample", "complete", "train", "evaluate", "compress", "decompress", "models"])
def test_help_is_there_even_without_docstrings(command):
    found = run("-OO", "-m", "ar_helpers", *command.split(), "--help")
    assert found.returncode == 0, found.stderr
    assert "usage" in found.stdout


@pytest.mark.skipif(os.name == "nt", reason="needs a shell with head")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", ["models", "models --json", "--help"])
def test_output_that_nobody_reads_to_its_end_is_no_error(arguments, unbuffered):
    shell = f"'{sys.executable}' -m ar_helpers {arguments} | head -c 5"
    found = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, env=os.environ | {"PYTHONUNBUFFERED": unbuffered}
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert len(found.stdout) == 5


def test_a_console_that_lacks_letters_shows_the_rest(tmp_path):
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "OMP_NUM_THREADS": "1"}
    arguments = ("sample", "--model", "patch_4x4_independent", "--targets", "3", "--out", "数字")
    found = run("-m", "ar_helpers", *arguments, cwd=tmp_path, env=environment)
    assert found.returncode == 0, found.stderr
    assert "1 drawing in \\u6570\\u5b57" in found.stdout
    assert (tmp_path / "数字" / "sheet.png").exists()


# --- Folders of drawings and of weights -----------------------------------------------------------------------------


@pytest.fixture
def drawer(tmp_path):
    path = tmp_path / "small.safetensors"
    ar.save_checkpoint(
        path,
        ar.PatchTransformer(
            num_levels=4, image_size=8, width=8, depth=1, heads=2, patch_height=4, patch_width=4, independent=True
        ),
    )
    return path


def test_a_folder_holds_one_run_and_what_else_was_there_stays(drawer, tmp_path):
    out = tmp_path / "out"
    sample = ["sample", "--model", str(drawer), "--out", str(out), "--seed", "0"]
    cli.main([*sample, "--targets", "1,2,3", "--count", "2", "--gif"])
    (out / "mine.png").write_bytes(b"the user's own")
    cli.main([*sample, "--targets", "2"])
    assert sorted(os.listdir(out)) == ["2_001.png", "mine.png", "samples.json", "sheet.png"]
    (out / "samples.json").write_text("{}")
    cli.main([*sample, "--targets", "4"])
    assert {"4_001.png", "2_001.png", "mine.png"} < set(os.listdir(out))  # nothing says whose the other one is


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", [["sample", "--model"], ["evaluate"]])
def test_a_device_that_is_not_there_is_named(command, drawer, capsys):
    with pytest.raises(SystemExit):
        cli.main([*command, str(drawer), "--device", "cuda"])
    assert "error: --device cuda cannot be used here: " in capsys.readouterr().err


def test_two_commands_at_once_take_two_folders(drawer, tmp_path):
    command = [sys.executable, "-m", "ar_helpers", "sample", "--model", drawer, "--targets", "1,2", "--seed"]
    runs = [subprocess.Popen([*command, seed], cwd=tmp_path, stdout=subprocess.DEVNULL) for seed in "123"]
    assert [run.wait() for run in runs] == [0, 0, 0]
    found = [
        json.loads((tmp_path / name / "samples.json").read_text())["seed"]
        for name in ("samples", "samples-2", "samples-3")
    ]
    assert sorted(found) == [1, 2, 3]


def test_a_run_of_ones_own_does_not_replace_shipped_weights(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cards, "CHECKPOINTS", tmp_path)
    for more in (["--steps", "1"], ["--seed", "3"], ["--data", "digits"], ["--levels", "4"], ["--context-length", "9"]):
        with pytest.raises(SystemExit):
            cli.main(["train", "one_hot_mlp", "--out", str(tmp_path), *more])
        assert "--out must be another folder than the shipped weights'" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_the_command_line_trains_on_images_of_ones_own(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(training, "QUICK_STEPS", 2)
    images = np.random.default_rng(0).integers(0, 256, (21, 10, 10)).astype(np.uint8)
    header = (2051).to_bytes(4, "big") + (21).to_bytes(4, "big") + (10).to_bytes(4, "big") * 2
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + images.tobytes())
    labels = (2049).to_bytes(4, "big") + (21).to_bytes(4, "big") + bytes(n % 3 for n in range(21))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels)
    options = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--steps", "2", "--device", "cpu"]
    cli.main(["train", "conditional_mlp", *options, "--levels", "32", "--context-length", "15"])
    model = ar.load_checkpoint(tmp_path / "out" / "conditional_mlp.safetensors")
    sizes = {"image_size": 10, "num_levels": 32, "context_length": 15, "num_classes": 3}
    assert model.config.items() >= sizes.items()
    capsys.readouterr()
    cli.main(["evaluate", str(tmp_path / "out" / "conditional_mlp.safetensors"), "--data", str(tmp_path)])
    assert "bits per pixel on 3 test images of" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "one_hot_mlp", "--data", str(tmp_path)])
    assert "images must be of 28 x 28 pixels, as the model's images are, not 10 x 10" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["train", "transformer", *options, "--context-length", "15"])
    assert "--context-length must not be given for transformer" in capsys.readouterr().err


@pytest.mark.parametrize("faster", [True, False])
@pytest.mark.parametrize("asked", [None, "bfloat16", "float32"])
def test_the_command_line_avoids_slow_arithmetic_unless_it_is_asked_for(monkeypatch, tmp_path, capsys, faster, asked):
    monkeypatch.setattr(training, "bfloat16_is_faster", lambda _: faster)
    for n in range(12):
        Image.fromarray(np.full((28, 28), n, np.uint8)).save(tmp_path / f"{n}.png")
    options = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--steps", "1", "--batch-size", "8"]
    options += ["--device", "cpu", *(["--arithmetic", asked] if asked else [])]
    cli.main(["train", "patch_4x4_independent", *options])
    recipe = json.loads((tmp_path / "out" / "patch_4x4_independent.json").read_text())["recipe"]
    assert recipe["batch_size"] == 8
    assert recipe["arithmetic"] == asked or (asked is None and recipe["arithmetic"] == ("float32", "bfloat16")[faster])
    assert ("bfloat16 is slow here" in capsys.readouterr().out) == (asked is None and not faster)


def test_the_card_of_a_quick_run_says_how_many_steps_it_took(monkeypatch, tmp_path):
    monkeypatch.setenv("AR_QUICK", "1")
    cli.main(["train", "patch_4x4_independent", "--data", "digits", "--out", str(tmp_path), "--device", "cpu"])
    card = json.loads((tmp_path / "patch_4x4_independent.json").read_text())
    assert card["recipe"]["steps"] == training.QUICK_STEPS == card["history"]["train_steps"][-1]


# --- Bars -----------------------------------------------------------------------------------------------------------

WAITING = """
import time
from ar_helpers.files import progress
for _ in progress(range(4), unit="step"):
    time.sleep(0.5)
for _ in progress(range(9), unit="step", quiet=True):
    time.sleep(0.2)
"""


@pytest.mark.parametrize("hidden", [False, True])
def test_a_notebook_shows_one_bar_and_the_books_outputs_none(hidden, monkeypatch, tmp_path):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(cards.CHECKPOINTS.parent.parent))
    if hidden:
        monkeypatch.setenv("TQDM_DISABLE", "1")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(WAITING)])
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = notebook.cells[0].outputs
    kinds = [kind for output in outputs for kind in output.get("data", {"stream": ""})]
    assert kinds.count("application/vnd.jupyter.widget-view+json") == (0 if hidden else 1), outputs
    assert not any("IProgress" in output.get("text", "") for output in outputs)


def test_only_a_score_asked_for_by_itself_shows_a_bar(monkeypatch):
    quiets = []

    def recorded(*arguments, quiet=False, **options):
        quiets.append(quiet)
        return progress(*arguments, quiet=quiet, **options)

    monkeypatch.setattr(scoring, "progress", recorded)
    model = MAKERS["one-hot"]()
    images = ar.ImageSet(torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    ar.bits_per_pixel(model, images)
    assert quiets == [False]
    ar.fit(model, dataset_for(model), ar.TrainConfig(steps=2, batch_size=4), val=images)
    assert set(quiets[1:]) == {True}  # fit shows a bar of its own
