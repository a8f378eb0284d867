"""The training loop, the yardstick and the checkpoints: same bits again, whatever interrupts, and no wrong weights."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ar_helpers as ar
from ar_helpers import cards, recipes, training
from ar_helpers.scoring import fingerprint

pytestmark = pytest.mark.usefixtures("clean_environment")

MODELS = (ar.OneHotMLP, ar.PositionalMLP, ar.ConditionalMLP, ar.PixelTransformer)
every_model = pytest.mark.parametrize("model_class", MODELS)
CONFIG = ar.TrainConfig(steps=130, batch_size=32, learning_rate=1e-2)


def build(model_class=ar.OneHotMLP, seed=0, dropout=0.25, num_levels=4, image_size=4, context_length=4):
    torch.manual_seed(seed)
    if issubclass(model_class, ar.PixelTransformer):
        return model_class(num_levels, image_size, width=16, depth=1, heads=2, dropout=dropout)
    return model_class(num_levels, image_size, context_length, hidden_size=16, dropout=dropout)


def stripes(count=40, seed=0, image_size=4):
    """Images of noisy columns, bright or dark by their label: something that can be learned."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (count,), generator=generator)
    columns = (torch.arange(image_size) + labels.unsqueeze(1)) % 2 * 200  # (count, image_size)
    noise = torch.randint(50, (count, image_size, image_size), generator=generator)
    return ar.ImageSet((columns.unsqueeze(1) + noise).to(torch.uint8), labels)


def windows(model, images=None):
    images = images or stripes()
    tokens = ar.quantize(images.images, model.num_levels).flatten(1)
    labels = images.labels if model.num_classes else None
    if isinstance(model, ar.PixelTransformer):
        return ar.TokenImages(tokens, labels)
    return ar.ContextWindows(tokens, labels, context_length=model.context_length, num_levels=model.num_levels)


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def without_seconds(history):
    return replace(history, seconds=0.0)


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- Weighted examples --------------------------------------------------------------------------------------------


def thinned(model, keep):
    plain = windows(model)
    return ar.ThinnedWindows(plain.tokens, context_length=4, num_levels=4, keep=keep)


def test_windows_that_all_stay_train_the_same_model_as_plain_ones():
    first, second = build(), build()
    ar.fit(first, windows(first), CONFIG)
    ar.fit(second, thinned(second, keep=1.0), CONFIG)
    assert same_weights(first, second)


def test_an_example_counts_by_its_weight():
    model = build(dropout=0.0)
    dataset = thinned(model, keep=0.3)
    assert len(dataset.weights.unique()) == 2
    ((context, position, label), target), weight = dataset[torch.arange(len(dataset))][:2], dataset.weights
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(model(context, position, label), target, reduction="none")
    history = ar.fit(model, dataset, ar.TrainConfig(steps=1, batch_size=len(dataset)))
    assert history.train_bits[0] == pytest.approx((losses * weight).mean().item() / math.log(2), rel=1e-5)
    assert history.train_bits[0] != pytest.approx(losses.mean().item() / math.log(2), rel=1e-4)


# --- ShuffledBatches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "batch_size"), [(12, 4), (13, 4), (7, 7), (9, 1)])
def test_each_epoch_is_a_fresh_permutation_less_an_odd_batch(size, batch_size):
    per_epoch = size // batch_size
    batches = list(training.ShuffledBatches(size, batch_size, 3 * per_epoch, seed=0))
    assert all(batch.shape == (batch_size,) for batch in batches)
    epochs = [torch.cat(batches[e * per_epoch : (e + 1) * per_epoch]).tolist() for e in range(3)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == per_epoch * batch_size
        assert set(epoch) <= set(range(size))
    assert all(a != b for a, b in itertools.combinations(epochs, 2))


def test_batches_taken_up_anywhere_are_the_same_tail():
    whole = [batch.tolist() for batch in training.ShuffledBatches(13, 4, 20, seed=3)]
    assert len(whole) == 20
    for start in range(21):
        tail = training.ShuffledBatches(13, 4, 20, seed=3, start=start)
        assert len(tail) == 20 - start
        assert [batch.tolist() for batch in tail] == whole[start:]


def test_batches_depend_on_the_seed_and_not_on_the_global_random_state():
    first, other = ([b.tolist() for b in training.ShuffledBatches(50, 5, 10, seed)] for seed in (0, 1))
    torch.rand(5)
    assert [b.tolist() for b in training.ShuffledBatches(50, 5, 10, 0)] == first != other


def test_a_batch_larger_than_the_data_is_named():
    with pytest.raises(ValueError, match="batch_size must be at most the 3 examples there are, not 4"):
        training.ShuffledBatches(3, 4, 1, 0)


# --- fit ----------------------------------------------------------------------------------------------------------


@every_model
def test_fit_lowers_the_loss(model_class):
    model, images = build(model_class, dropout=0.0), stripes()
    before = ar.bits_per_pixel(model, images)
    history = ar.fit(model, windows(model, images), CONFIG, val=images)
    after = ar.bits_per_pixel(model, images)
    assert after < 0.8 * before
    assert history.val_bits[-1] == after  # what it validates with is the yardstick
    assert history.train_bits[-1] < 0.8 * history.train_bits[0]
    assert not model.training


@every_model
def test_the_same_seed_gives_the_same_weights_bit_for_bit(model_class):
    runs = []
    for noise in (1, 2):
        model = build(model_class)
        torch.manual_seed(noise)  # the global random state decides nothing
        history = ar.fit(model, windows(model), CONFIG, val=stripes(5, 1))
        runs.append((model, without_seconds(history)))
    assert same_weights(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


def test_another_seed_gives_other_weights():
    a, b = build(), build()
    ar.fit(a, windows(a), CONFIG)
    ar.fit(b, windows(b), replace(CONFIG, seed=1))
    assert not same_weights(a, b)


def test_fit_leaves_the_global_random_state_alone():
    model = build()
    before = torch.random.get_rng_state()
    ar.fit(model, windows(model), CONFIG)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("warmup", [0.1, 0.25, 0.5, 0.9])
def test_a_run_may_be_of_any_number_of_steps(warmup):
    for steps in range(1, 12):
        model = build()
        ar.fit(model, windows(model), ar.TrainConfig(steps=steps, batch_size=8, warmup=warmup))
        assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("steps", [1, 9, 10, 99, 130, 250])
def test_the_history_ends_with_the_last_step_and_a_run_prints_about_ten_lines(steps, capsys):
    model = build()
    history = ar.fit(model, windows(model), replace(CONFIG, steps=steps), val=stripes(5, 1))
    assert history.train_steps == sorted(set(history.train_steps))
    assert history.val_steps == sorted(set(history.val_steps))
    assert history.train_steps[-1] == history.val_steps[-1] == steps
    assert len(history.train_steps) == len(history.train_bits) <= 100
    assert min(steps, 9) <= len(history.val_steps) == len(history.val_bits) <= 10
    assert len(capsys.readouterr().out.splitlines()) <= 12


def test_validation_changes_nothing_and_sees_500_images():
    a, b = build(), build()
    ar.fit(a, windows(a), CONFIG)
    history = ar.fit(b, windows(b), CONFIG, val=stripes(510))
    assert same_weights(a, b)
    first = ar.ImageSet(*(part[:500] for part in stripes(510)))
    assert history.val_bits[-1] == ar.bits_per_pixel(b, first)


def test_whole_images_are_learned_from_by_the_same_loop():
    class Whole(torch.nn.Module):
        num_levels, image_size, num_classes, config = 4, 4, 0, {}

        def __init__(self):
            super().__init__()
            self.inner = build(ar.PositionalMLP)

        def forward(self, tokens, labels=None):
            return self.inner.image_logits(tokens, labels)

    model = Whole()
    dataset = ar.TokenImages(ar.quantize(stripes().images, 4).flatten(1))
    history = ar.fit(model, dataset, ar.TrainConfig(steps=60, batch_size=8, learning_rate=1e-2))
    assert history.train_bits[-1] < 0.8 * history.train_bits[0]


def test_quick_mode_takes_a_few_steps_whatever_the_recipe_says(monkeypatch):
    monkeypatch.setenv("AR_QUICK", "1")
    model = build()
    history = ar.fit(model, windows(model), replace(CONFIG, steps=10**9, batch_size=10**6), val=stripes(40))
    assert 1 <= history.train_steps[-1] <= 20


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("learning_rate", 0),
        ("learning_rate", math.inf),
        ("learning_rate", math.nan),
        ("weight_decay", -1e-5),
        ("weight_decay", math.nan),
        ("warmup", 0),
        ("warmup", 1),
        ("clip", 0),
        ("clip", math.nan),
        ("muon_rate", 0),
        ("shift", -1),
        ("average", 1),
        ("binarize", False),
        ("arithmetic", "float16"),
    ],
)
def test_a_recipe_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must .*, not '?{value}"):
        ar.TrainConfig(**({"steps": 1} | {name: value}))


def test_a_data_set_that_does_not_suit_the_model_is_named():
    model, conditional = build(), build(ar.ConditionalMLP)
    tokens = windows(model).tokens
    labels = stripes().labels
    bad = [
        (model, ar.ContextWindows(tokens, context_length=4, num_levels=5), "num_levels=5, but the model has num_leve"),
        (model, ar.ContextWindows(tokens, context_length=3, num_levels=4), "context_length=3, but the model has cont"),
        (model, ar.ContextWindows(tokens[:, :9], context_length=4, num_levels=4), "9 tokens, but .* image_size=4"),
        (model, ar.ContextWindows(tokens[:0], context_length=4, num_levels=4), "must hold at least one image"),
        (build(ar.PixelTransformer), ar.TokenImages(tokens + 1, labels), "tokens up to 4, but the model has num_lev"),
        (model, ar.ContextWindows(tokens, labels, context_length=4, num_levels=4), "labels must be None"),
        (conditional, ar.ContextWindows(tokens, context_length=4, num_levels=4), "labels must be given"),
        (
            conditional,
            ar.ContextWindows(tokens, labels + 1, context_length=4, num_levels=4),
            "labels must be from 0 to 9",
        ),
    ]
    for model, dataset, message in bad:
        with pytest.raises(ValueError, match=message):
            ar.fit(model, dataset, CONFIG)


# --- resuming -----------------------------------------------------------------------------------------------------


def run(path=None, val=True, config=CONFIG, **changes):
    """One run from its first weights, or from the state in `path`."""
    model = build(**changes)
    history = ar.fit(model, windows(model), config, val=stripes(5, 1) if val else None, resume=path)
    return model, without_seconds(history)


@contextmanager
def interrupted_at(step):
    """Within, a run ends with Ctrl-C where it would print the line of this step."""

    def line(now, *_):
        if now == step:
            raise KeyboardInterrupt
        return ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_line", line)
        with pytest.raises(KeyboardInterrupt):
            yield


def run_and_die(path, function, count, before):
    """In a process of its own, run until the count-th call of a function, and be killed with -9 in the midst of it."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGKILL
        return
    owner, name = {
        "step": (torch.optim.AdamW, "step"),
        "write": (Path, "write_bytes"),
        "rename": (Path, "replace"),
    }[function]
    original, calls = getattr(owner, name), itertools.count(1)

    def deadly(*arguments, **options):
        now = next(calls) == count
        if now and before:
            if function == "write":
                original(arguments[0], b"half a file")
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    try:
        setattr(owner, name, deadly)
        run(path)
    finally:
        os._exit(0)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("function", ["step", "write", "rename"])
def test_a_run_killed_at_any_moment_resumes_to_the_same_bits(tmp_path, never_stopped, function, count, before):
    path = tmp_path / "state.safetensors"
    run_and_die(path, function, count, before)
    if path.exists():
        load_file(path)  # readable
    for left in tmp_path.glob(".*.part"):
        os.utime(left, (0, 0))  # as if it had happened long ago
    model, history = run(path)
    assert same_weights(model, never_stopped[0])
    assert history == never_stopped[1]
    assert contents(tmp_path) == [path.name]


@pytest.fixture(scope="module")
def never_stopped():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AR_QUICK", raising=False)
        return run()


def test_a_run_killed_from_outside_resumes_to_the_same_bits(tmp_path, never_stopped):
    path, code = tmp_path / "run" / "state.safetensors", "import test_training as t, sys; t.run_and_wait(sys.argv[1])"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen([sys.executable, "-c", code, path], env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and not path.exists():
        time.sleep(0.001)
    process.kill()
    assert process.wait() != 0
    load_file(path)  # readable
    model, history = run(path)
    assert same_weights(model, never_stopped[0])
    assert history == never_stopped[1]
    assert contents(path.parent) == [path.name]


def run_and_wait(path):
    """What the process above does. It waits at the end, so that it is there to be killed even if it came first."""
    torch.set_num_threads(1)
    run(path)
    threading.Event().wait()


def test_a_run_with_muon_resumes_to_the_same_bits(tmp_path):
    config, path = replace(CONFIG, steps=40, muon_rate=0.02), tmp_path / "state.safetensors"
    whole, history = run(config=config, model_class=ar.PixelTransformer)
    with interrupted_at(20):
        run(path, config=config, model_class=ar.PixelTransformer)
    again, again_history = run(path, config=config, model_class=ar.PixelTransformer)
    assert same_weights(again, whole)
    assert again_history == history
    without, _ = run(config=replace(config, muon_rate=None), model_class=ar.PixelTransformer)
    assert not same_weights(without, whole)


@pytest.mark.parametrize("model_class", MODELS)
def test_muon_takes_the_hidden_matrices_and_adamw_all_else(model_class):
    model = build(model_class)
    names = {parameter: name for name, parameter in model.named_parameters()}
    owned = {
        type(optimizer).__name__: [names[p] for group in optimizer.param_groups for p in group["params"]]
        for optimizer in training._optimizers(model, replace(CONFIG, muon_rate=0.02))
    }
    assert sorted(itertools.chain(*owned.values())) == sorted(names.values())
    hidden = ("layers.0.weight", "layers.3.weight")
    if model_class is ar.PixelTransformer:
        inner = ("attention.query_key_value", "attention.output", "mlp.layers.0", "mlp.layers.2")
        hidden = ("trunk.stem_mlp.layers.0.weight", "trunk.stem_mlp.layers.2.weight")
        hidden += tuple(f"trunk.blocks.0.{name}.weight" for name in inner)
    assert sorted(owned["Muon"]) == sorted(hidden)
    (alone,) = training._optimizers(model, CONFIG)
    assert len(alone.param_groups[0]["params"]) == len(names)


SHIFTED = replace(CONFIG, steps=40, shift=1, average=0.9)


def test_a_run_with_shifts_and_averages_resumes_to_the_same_bits(tmp_path):
    path = tmp_path / "state.safetensors"
    whole, history = run(config=SHIFTED, model_class=ar.PixelTransformer)
    with interrupted_at(20):
        run(path, config=SHIFTED, model_class=ar.PixelTransformer)
    again, again_history = run(path, config=SHIFTED, model_class=ar.PixelTransformer)
    assert same_weights(again, whole)
    assert again_history == history
    for other in ({"shift": 0}, {"average": None}, {"average": 0.5}):
        assert not same_weights(run(config=replace(SHIFTED, **other), model_class=ar.PixelTransformer)[0], whole)


def test_the_averages_are_those_of_the_definition():
    """After the first step the average is that step's weights; then it moves a tenth of the way at each."""
    expected = None
    for steps in (1, 2, 3):  # a schedule of its own for each: only its first steps may be compared
        model, plain = build(dropout=0.0), build(dropout=0.0)
        config = replace(CONFIG, steps=steps, average=0.9, learning_rate=1e-4)
        ar.fit(model, windows(model), config)
        seen = []
        step = torch.optim.AdamW.step

        def note(self, *arguments, step=step, seen=seen, plain=plain, **options):
            result = step(self, *arguments, **options)
            seen.append([parameter.detach().clone() for parameter in plain.parameters()])
            return result

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.optim.AdamW, "step", note)
            ar.fit(plain, windows(plain), replace(config, average=None))
        expected = seen[0]
        for weights in seen[1:]:
            expected = [0.9 * old + 0.1 * new for old, new in zip(expected, weights, strict=True)]
        for parameter, mean in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter, mean, rtol=1e-5, atol=1e-7)


def test_shifted_images_are_the_images_moved_by_up_to_that_many_pixels():
    images = torch.randint(1, 5, (300, 16), generator=torch.Generator().manual_seed(0))
    moved = training.shifted(images, 1, seed=3)
    assert torch.equal(moved, training.shifted(images, 1, seed=3))
    assert not torch.equal(moved, training.shifted(images, 1, seed=4))
    found = set()
    for before, after in zip(images.view(-1, 4, 4), moved.view(-1, 4, 4), strict=True):
        padded = torch.nn.functional.pad(before, (1, 1, 1, 1))
        fits = [(r, c) for r in range(3) for c in range(3) if torch.equal(padded[r : r + 4, c : c + 4], after)]
        assert len(fits) == 1
        found |= set(fits)
    assert len(found) == 9


def black_and_white():
    torch.manual_seed(0)
    return ar.PixelTransformer(2, 4, 0, width=16, depth=1, heads=2, dropout=0.25)


def test_a_run_on_binarized_images_resumes_to_the_same_bits(tmp_path):
    grey = torch.randint(256, (8, 16), generator=torch.Generator().manual_seed(0))
    config = replace(CONFIG, steps=12, batch_size=4, binarize=True)

    def trained(resume=None, **changes):
        model = black_and_white()
        history = ar.fit(model, ar.TokenImages(grey), replace(config, **changes), resume=resume)
        return model, without_seconds(history)

    path = tmp_path / "state.safetensors"
    whole, history = trained()
    with interrupted_at(6):
        trained(path)
    again, again_history = trained(path)
    assert same_weights(again, whole)
    assert again_history == history
    assert not same_weights(trained(seed=1)[0], whole)


def test_each_step_binarizes_its_batch_anew(monkeypatch):
    drawn = []
    monkeypatch.setattr(training, "binarize", lambda images, seed: drawn.append((images, seed)) or images // 128)
    grey = torch.randint(256, (4, 16), generator=torch.Generator().manual_seed(0))
    config = replace(CONFIG, steps=5, batch_size=2, binarize=True, seed=40)
    ar.fit(black_and_white(), ar.TokenImages(grey), config, quiet=True)
    assert [seed for _, seed in drawn] == [41, 42, 43, 44, 45]
    rows = {tuple(row) for row in grey.tolist()}
    assert all(tuple(image) in rows for images, _ in drawn for image in images.tolist()), "the grey images each time"


def test_only_models_of_two_levels_that_read_whole_images_are_trained_on_binarized_images():
    asked = "binarize must be None unless the model has num_levels=2 and reads whole images, not True"
    config = replace(CONFIG, binarize=True)
    pixels = torch.zeros(4, 16, dtype=torch.long)
    with pytest.raises(ValueError, match=asked):
        ar.fit(build(ar.PixelTransformer), ar.TokenImages(pixels, torch.zeros(4, dtype=torch.long)), config)
    model = build(ar.OneHotMLP, num_levels=2)
    with pytest.raises(ValueError, match=asked):
        ar.fit(model, ar.ContextWindows(pixels, context_length=4, num_levels=2), config)


def test_windows_are_not_shifted():
    with pytest.raises(ValueError, match=r"shift must be 0 for context windows, and where .* tokens, not 1"):
        run(config=SHIFTED)


def test_a_finished_run_is_not_run_again(tmp_path, never_stopped):
    path = tmp_path / "state.safetensors"
    run(path)
    before = path.read_bytes()
    model, history = run(path)
    assert path.read_bytes() == before
    assert same_weights(model, never_stopped[0])
    assert history == never_stopped[1]
    assert not model.training


def test_seconds_go_on_counting(tmp_path):
    path = tmp_path / "state.safetensors"
    with interrupted_at(70):
        run(path)
    with safe_open(path, "pt") as file:
        kept = json.loads(file.metadata()["state"])
    model = build()
    history = ar.fit(model, windows(model), CONFIG, val=stripes(5, 1), resume=path)
    assert 0 < kept["step"] < 70
    assert history.seconds > kept["history"]["seconds"] > 0


@pytest.mark.parametrize(("seconds", "told_by"), [(0.001, 25), (3, 9)])
def test_the_time_left_is_told_after_25_steps_or_after_10_seconds_of_slow_steps(seconds, told_by, monkeypatch, capsys):
    now, printed = [0.0], {}
    model = build()
    data = windows(model)

    class Slow(type(data)):
        def __getitem__(self, index):
            now[0] += seconds  # the batch of a step is read before the step
            printed[len(printed)] = " about " in capsys.readouterr().out
            return super().__getitem__(index)

    data.__class__ = Slow
    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    ar.fit(model, data, CONFIG)
    assert [step for step, told in printed.items() if told] == [told_by]


def test_the_arithmetic_is_the_recipe_s_and_the_machine_decides_nothing(monkeypatch, capsys):
    kept = {}
    for arithmetic, faster in itertools.product(("float32", "bfloat16"), (True, False)):
        monkeypatch.setattr(training, "bfloat16_is_faster", lambda _, faster=faster: faster)
        model, _ = run(config=replace(CONFIG, arithmetic=arithmetic))
        assert same_weights(model, kept.setdefault(arithmetic, model))
        advice = {("float32", True): "bfloat16", ("bfloat16", False): "float32"}.get((arithmetic, faster))
        printed = capsys.readouterr().out
        assert f" on cpu in {arithmetic}: about " in printed
        assert ("would be faster here" in printed) == (advice is not None)
        assert advice is None or f'arithmetic="{advice}" would be faster here' in printed.splitlines()[0]  # at once
    assert not same_weights(*kept.values())


def test_a_quiet_run_prints_nothing_and_gives_the_same(capsys):
    loud, quiet = build(), build()
    ar.fit(loud, windows(loud), CONFIG, val=stripes(5, 1))
    assert capsys.readouterr().out
    ar.fit(quiet, windows(quiet), CONFIG, val=stripes(5, 1), quiet=True)
    assert capsys.readouterr() == ("", "")
    assert same_weights(loud, quiet)


@pytest.mark.parametrize(
    "other",
    [
        {"config": replace(CONFIG, seed=1)},
        {"config": replace(CONFIG, steps=131)},
        {"config": replace(CONFIG, arithmetic="bfloat16")},
        {"dropout": 0.5},
        {"model_class": ar.PositionalMLP},
    ],
)
def test_the_state_of_another_run_is_refused(tmp_path, other):
    path = tmp_path / "state.safetensors"
    run(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"resume=.*state\.safetensors' is the state of another run"):
        run(path, **other)
    assert path.read_bytes() == before


def test_the_state_of_a_run_on_other_data_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    run(path)
    model = build()
    with pytest.raises(ValueError, match="is the state of another run"):
        ar.fit(model, windows(model, stripes(seed=9)), CONFIG, resume=path)


def test_a_quick_run_and_a_full_run_do_not_share_a_state(tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    run(path)
    monkeypatch.setenv("AR_QUICK", "1")
    with pytest.raises(ValueError, match="is the state of another run"):
        run(path)


def test_a_damaged_state_is_named(tmp_path):
    path = tmp_path / "state.safetensors"
    run(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(OSError, match=r"state\.safetensors is damaged"):
        run(path)


# --- bits_per_pixel and fingerprint -------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("training_mode", [True, False])
def test_bits_per_pixel_is_the_slow_sum_over_next_logits(model_class, training_mode):
    model, images = build(model_class), stripes(11)  # more than one batch, and an odd one
    model.eval()
    total = 0.0
    for image, label in zip(images.images, images.labels, strict=True):
        tokens = (image.int() * 4 // 256).flatten()
        given = label.unsqueeze(0) if model.num_classes else None
        for t, token in enumerate(tokens):
            logits = model.next_logits(tokens[None, :t], given)[0].double()
            total -= (logits.log_softmax(0)[token] / math.log(2)).item()
    model.train(training_mode)
    assert ar.bits_per_pixel(model, images) == pytest.approx(total / (11 * 16), rel=1e-5)
    assert model.training == training_mode


@every_model
@pytest.mark.parametrize("num_levels", [2, 3, 16, 256])
def test_a_uniform_guess_scores_log2_of_the_levels(model_class, num_levels):
    model = build(model_class, num_levels=num_levels)
    for parameter in model.parameters():
        parameter.data.zero_()
    assert ar.bits_per_pixel(model, stripes(9)) == pytest.approx(math.log2(num_levels), rel=1e-6)


def test_bits_per_pixel_names_images_that_do_not_suit():
    model, images = build(), stripes(4)
    with pytest.raises(ValueError, match="images must hold at least one image"):
        ar.bits_per_pixel(model, ar.ImageSet(images.images[:0], images.labels[:0]))
    with pytest.raises(ValueError, match=r"images must be of 4 x 4 pixels, .* not 5 x 5"):
        ar.bits_per_pixel(model, stripes(4, image_size=5))
    with pytest.raises(TypeError, match=r"images must be uint8 or floating point, not torch\.int64"):
        ar.bits_per_pixel(model, ar.ImageSet(images.images.long(), images.labels))
    with pytest.raises(ValueError, match="labels must be from 0 to 9, not 12"):
        ar.bits_per_pixel(build(ar.ConditionalMLP), ar.ImageSet(images.images, images.labels * 0 + 12))


def edited(model_class):
    """A class of the same name that computes something slightly else."""

    class Edited(model_class):
        def forward(self, context, position=None, label=None):
            return super().forward(context.flip(-1), position, label)

    class EditedSequence(model_class):
        def forward(self, *inputs):
            return super().forward(*inputs).flip(-1)

    Edited = EditedSequence if issubclass(model_class, ar.PixelTransformer) else Edited
    Edited.__name__ = model_class.__name__
    return Edited


@every_model
def test_the_fingerprint_is_of_what_the_model_computes(model_class):
    model = build(model_class)
    assert fingerprint(model) == fingerprint(model)
    copy = edited(model_class)(**model.config)
    copy.load_state_dict(model.state_dict())
    assert abs(fingerprint(copy) - fingerprint(model)) > 1e-3
    assert abs(fingerprint(build(model_class, seed=1)) - fingerprint(model)) > 1e-3


# --- checkpoints --------------------------------------------------------------------------------------------------


@every_model
def test_a_saved_model_comes_back_rounded_to_float16(tmp_path, model_class):
    path = tmp_path / "new" / "model.safetensors"
    model = build(model_class)
    ar.save_checkpoint(path, model)
    assert contents(tmp_path) == ["new/model.safetensors"]
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    for loaded in (ar.load_checkpoint(path), ar.load_checkpoint(str(path), build(model_class, seed=1).train())):
        assert type(loaded) is model_class
        assert loaded.config == model.config
        assert not loaded.training
        for name, tensor in loaded.state_dict().items():
            assert tensor.dtype == torch.float32
            assert torch.equal(tensor, model.state_dict()[name].half().float())
    again = tmp_path / "again.safetensors"
    ar.save_checkpoint(again, ar.load_checkpoint(path))
    assert same_weights(ar.load_checkpoint(again), ar.load_checkpoint(path))  # rounding happens once


def test_a_card_is_written_beside_its_weights(tmp_path):
    ar.save_checkpoint(tmp_path / "model.safetensors", build(), {"name": "model", "é": [1.5]})
    assert contents(tmp_path) == ["model.json", "model.safetensors"]
    assert json.loads((tmp_path / "model.json").read_text(encoding="utf-8")) == {"name": "model", "é": [1.5]}


def test_every_truncated_checkpoint_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    ar.save_checkpoint(path, build())
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(OSError, match=r"model\.safetensors is damaged"):
            ar.load_checkpoint(path)


def test_a_missing_checkpoint_is_named(tmp_path):
    for path in (tmp_path / "no.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"there is no checkpoint {path}"):
            ar.load_checkpoint(path)


def test_a_checkpoint_of_another_class_or_size_is_named_and_fills_nothing(tmp_path):
    path = tmp_path / "model.safetensors"
    ar.save_checkpoint(path, build())
    for other in (build(ar.PositionalMLP), build(num_levels=5), build(dropout=0.5), build(context_length=5)):
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        with pytest.raises(ValueError, match=r"model\.safetensors holds a OneHotMLP with .*, but model is a "):
            ar.load_checkpoint(path, other)
        assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_a_file_without_a_model_of_the_book_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="holds no model of this package, but other tensors"):
        ar.load_checkpoint(path)
    save_file({"a": torch.zeros(1)}, path, {"model": json.dumps(["OneHotMLP", build().config])})
    with pytest.raises(ValueError, match="does not fit the model"):
        ar.load_checkpoint(path)


def test_a_checkpoint_has_its_own_ending(tmp_path):
    with pytest.raises(ValueError, match=r"path must end in \.safetensors, not 'model\.pt'"):
        ar.save_checkpoint(tmp_path / "model.pt", build())
    assert contents(tmp_path) == []


def half_and_fail(path):
    with open(path, "wb") as file:
        file.write(b"half")
    raise OSError("disk full")


@pytest.mark.parametrize("failing", ["write_bytes", "replace"])
def test_a_write_that_fails_leaves_the_old_files_and_nothing_half_written(tmp_path, monkeypatch, failing):
    path = tmp_path / "model.safetensors"
    ar.save_checkpoint(path, build(), {"old": True})
    patched = {
        "write_bytes": (Path, lambda path, content: half_and_fail(path)),
        "replace": (Path, lambda path, target: half_and_fail(path)),
    }
    owner, function = patched[failing]
    with monkeypatch.context() as patch:
        patch.setattr(owner, failing, function)
        with pytest.raises(OSError, match="disk full"):
            ar.save_checkpoint(path, build(), {"old": False})
    assert contents(tmp_path) == ["model.json", "model.safetensors"]
    assert json.loads((tmp_path / "model.json").read_text()) == {"old": True}
    ar.load_checkpoint(path, build())


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="file"):
        ar.save_checkpoint(tmp_path / "file" / "model.safetensors", build())


# --- what ships, and train_or_load --------------------------------------------------------------------------------


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """A folder of shipped checkpoints with one tiny model in it, trained by CONFIG; its card."""
    folder = tmp_path / "checkpoints"
    monkeypatch.setattr(cards, "CHECKPOINTS", folder)
    model = build()
    recipe = recipes.Recipe(ar.OneHotMLP, model.config, training.describe_data(windows(model)), CONFIG)
    monkeypatch.setitem(recipes.RECIPES, "tiny", recipe)
    history = ar.fit(model, windows(model), CONFIG, val=stripes(5, 1))
    model.load_state_dict({name: tensor.half().float() for name, tensor in model.state_dict().items()})
    scores = {"scores": {"test_bits_per_pixel": 0.4567}, "milliseconds_per_image": 12.3}
    card = cards.make_card("tiny", model, CONFIG, windows(model), replace(history, seconds=83.0), **scores)
    card["hardware"] = "2 CPU cores"
    ar.save_checkpoint(folder / "tiny.safetensors", model, card)
    return json.loads((folder / "tiny.json").read_text())


def test_what_ships_can_be_listed_loaded_and_tabulated(shipped):
    assert cards.card_names() == ["tiny"]
    assert ar.load_card("tiny") == shipped
    assert fingerprint(ar.load_pretrained("tiny")) == pytest.approx(shipped["fingerprint"], abs=1e-6)
    assert ar.model_table().splitlines()[2:] == [f"| tiny | {shipped['parameters']:,} | 0.457 | 1 min 23 s | 12 ms |"]
    assert ar.model_table("tiny") == ar.model_table()
    assert ar.model_table(caption="Table 1.2. Models.") == f"**Table 1.2.** Models.\n\n{ar.model_table()}"
    for use in (ar.load_card, ar.load_pretrained, ar.model_table):
        with pytest.raises(ValueError, match="name must be one of the shipped checkpoints tiny, not 'huge'"):
            use("huge")


def test_shipped_weights_are_loaded_when_training_would_give_them(shipped, capsys):
    model = build(seed=5)
    history = ar.train_or_load("tiny", model, windows(model), CONFIG)
    assert same_weights(model, ar.load_pretrained("tiny"))
    assert history == ar.History(**shipped["history"])
    assert not model.training
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "Loaded the weights of tiny, trained in 1 min 23 s on 2 CPU cores."


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("no weights of this name ship with the package", {"name": "huge"}),
        ("steps is 70, and the shipped weights had 130", {"config": replace(CONFIG, steps=70)}),
        ("seed is 4, and the shipped weights had 0", {"config": replace(CONFIG, seed=4)}),
        ("data is ", {"images": stripes(seed=1)}),
        ("this class does not compute what", {"model_class": edited(ar.OneHotMLP)}),
        ("the model's class or size is not", {"dropout": 0.5}),
        ("the model's class or size is not", {"model_class": ar.PositionalMLP}),
        ("asked to train it anew", {"retrain": True}),
        ("asked to train it anew", {"environment": "AR_RETRAIN"}),
    ],
)
@pytest.mark.usefixtures("shipped")
def test_else_it_trains_says_why_and_gives_what_fit_gives(monkeypatch, capsys, why, change):
    change = dict(change)
    name, config = change.pop("name", "tiny"), change.pop("config", CONFIG)
    images, retrain = change.pop("images", None), change.pop("retrain", False)
    if "environment" in change:
        monkeypatch.setenv(change.pop("environment"), "1")
    model, expected = build(**change), build(**change)
    history = ar.train_or_load(name, model, windows(model, images), config, stripes(5, 1), retrain=retrain)
    assert capsys.readouterr().out.startswith(f"Training {name}: {why}")
    assert without_seconds(history) == without_seconds(
        ar.fit(expected, windows(expected, images), config, stripes(5, 1))
    )
    assert same_weights(model, expected)
    assert contents(Path(os.environ["XDG_CACHE_HOME"], "ar_helpers")) == []  # no state is left


@pytest.mark.usefixtures("shipped")
def test_quick_mode_always_trains_a_few_steps(monkeypatch):
    monkeypatch.setenv("AR_QUICK", "1")
    model = build(seed=5)
    history = ar.train_or_load("tiny", model, windows(model), CONFIG)
    assert 1 <= history.train_steps[-1] <= 20
    assert not same_weights(model, ar.load_pretrained("tiny"))
    assert not Path(os.environ["XDG_CACHE_HOME"], "ar_helpers").exists()


def test_an_interrupted_training_goes_on_where_it_was(capsys, never_stopped):
    model = build()
    with interrupted_at(70):
        ar.train_or_load("new", model, windows(model), CONFIG, stripes(5, 1))
    cache = Path(os.environ["XDG_CACHE_HOME"], "ar_helpers")
    assert len(contents(cache)) == 1
    capsys.readouterr()
    model = build()
    history = ar.train_or_load("new", model, windows(model), CONFIG, stripes(5, 1))
    assert "Going on from step " in capsys.readouterr().out
    assert same_weights(model, never_stopped[0])
    assert without_seconds(history) == never_stopped[1]
    assert contents(cache) == []


def test_an_interrupted_training_is_not_taken_up_by_another():
    model = build()
    with interrupted_at(70):
        ar.train_or_load("new", model, windows(model), CONFIG)
    for change in ({"seed": 1}, {"model_class": edited(ar.OneHotMLP)}):
        model, expected = build(**change), build(**change)
        ar.train_or_load("new", model, windows(model), CONFIG)
        ar.fit(expected, windows(expected), CONFIG)
        assert same_weights(model, expected)


def test_a_record_is_read_by_its_name(monkeypatch, tmp_path):
    (tmp_path / "found.json").write_text('{"bits": 0.5}')
    monkeypatch.setattr(cards, "RECORDS", tmp_path)
    assert ar.load_record("found") == {"bits": 0.5}
    with pytest.raises(ValueError, match="name must be one of the records"):
        ar.load_record("lost")


def test_muon_computes_in_float32():
    """Its step is that of the Newton-Schulz iteration (Jordan et al., 2024), 100 times nearer than bfloat16 gets."""
    model = build(ar.PixelTransformer)
    linear = next(part for part in model.modules() if isinstance(part, torch.nn.Linear))
    before, gradients = linear.weight.detach().clone(), []
    linear.weight.register_hook(lambda gradient: gradients.append(gradient.clone()))
    ar.fit(model, windows(model), replace(CONFIG, steps=1, muon_rate=0.1, weight_decay=0.0), quiet=True)
    x = gradients[0] / gradients[0].norm()
    x = x.T if x.shape[0] > x.shape[1] else x
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    step = before - linear.weight.detach()
    expected = x.T if x.shape != step.shape else x
    torch.testing.assert_close(step / step.norm(), expected / expected.norm(), atol=1e-4, rtol=0)
