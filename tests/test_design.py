"""The package's shape: imports run one way, one file checks arguments, and what a reader overrides is what runs."""

import ast
import json
import math
import re
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ar_helpers as ar
from ar_helpers import cards, cli, metrics, models, recipes, scoring, training
from ar_helpers.tokens import binarize

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ar_helpers"
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
LAYERS = [
    "checks",
    "files",
    "pictures",
    "landscapes",
    "data",
    "tokens",
    "models",
    "scoring",
    "codec",
    "sampling",
    "training",
    "recipes",
    "plots",
    "cards",
    "metrics",
]
LAYERS += ["cli", "__main__", "__init__"]
MODEL_LAYERS = ["base", "windows", "transformer", "patches", "greys", "convolutions", "positions", "colours"]
MODEL_LAYERS += ["__init__"]
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
pytestmark = pytest.mark.usefixtures("clean_environment")


def imported(path):
    """The modules of the package that a file imports, as (how many dots, name)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            yield from ((node.level, name) for name in names)


@every_file
def test_imports_run_downwards(path):
    inside = path.parent.name == "models"
    layers = MODEL_LAYERS if inside else LAYERS
    for dots, name in imported(path):
        if inside and dots == 2:
            assert name == "checks"
        else:
            assert layers.index(name) < layers.index(path.stem), f"{path.name} imports {name}"


@every_file
def test_no_module_uses_a_private_name_of_another(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {name for _, name in imported(path)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert not any(alias.name.startswith("_") for alias in node.names), ast.unparse(node)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert not re.match(r"_[^_]", node.attr), ast.unparse(node)


@every_file
def test_only_checks_py_says_what_an_argument_must_be(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and path.stem != "checks":
            assert not re.search(r"\bmust\b.*, not ", ast.unparse(node)), ast.unparse(node)


def test_the_package_stays_small():
    """The chapters show every line of the models, and their length is limited; the helpers are what could grow."""
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert sum(number for path, number in lines.items() if path.parent.name != "models") <= 4_000
    assert all(number <= 260 for path, number in lines.items() if path.parent.name == "models")


@pytest.mark.parametrize("path", sorted((PACKAGE / "models").glob("*.py")), ids=lambda path: path.stem)
def test_model_files_check_no_arguments_but_the_base(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not any(isinstance(node, ast.Raise) for node in ast.walk(tree))
    assert path.stem == "base" or (2, "checks") not in imported(path)
    assert max(map(len, path.read_text(encoding="utf-8").splitlines())) <= 88


# --- What a reader overrides --------------------------------------------------------------------------------------


def double(model_class):
    """A subclass as a reader writes it, whose logits are those of the class times 2; and one for each other model."""

    class Doubled(model_class):
        def forward(self, *inputs):
            return 2 * super().forward(*inputs)

    return Doubled


SIZES = {"num_levels": 3, "image_size": 4}
WINDOW = SIZES | {"context_length": 5, "hidden_size": 8}
SEQUENCE = SIZES | {"num_classes": 2, "width": 8, "depth": 1, "heads": 2}
OF_EVERY_KIND = {
    "one-hot": (ar.OneHotMLP, WINDOW),
    "positional": (ar.PositionalMLP, WINDOW),
    "conditional": (ar.ConditionalMLP, WINDOW | {"num_classes": 2}),
    "transformer": (ar.PixelTransformer, SEQUENCE),
    "patches": (ar.PatchTransformer, SEQUENCE),
    "independent patches": (ar.PatchTransformer, SEQUENCE | {"independent": True}),
    "nested": (ar.NestedTransformer, SEQUENCE | {"inner_width": 8, "inner_heads": 2}),
}


@pytest.mark.parametrize(("model_class", "sizes"), OF_EVERY_KIND.values(), ids=OF_EVERY_KIND)
def test_training_scoring_and_drawing_use_an_overridden_forward(model_class, sizes):
    torch.manual_seed(0)
    plain = model_class(**sizes).eval()
    reader = double(model_class)(**sizes).eval()
    reader.load_state_dict(plain.state_dict())
    tokens = torch.randint(3, (6, 16), generator=torch.Generator().manual_seed(1))
    labels = torch.arange(6) % 2 if plain.num_classes else None
    with torch.no_grad():
        expected = 2 * plain.image_logits(tokens, labels)
        torch.testing.assert_close(reader.image_logits(tokens, labels), expected)
        for cache in (None, ar.Cache()):
            step = reader.next_logits(tokens[:, :5], labels, cache)
            torch.testing.assert_close(step, 2 * plain.next_logits(tokens[:, :5], labels))
    drawn = ar.generate(reader, labels, count=6, seed=0)
    logits = reader.image_logits(drawn.tokens, labels).detach()
    torch.testing.assert_close(drawn.probabilities, ar.prediction_maps(logits, drawn.tokens)[0], rtol=1e-3, atol=1e-4)
    of_plain = ar.prediction_maps(logits / 2, drawn.tokens)[0]
    assert (drawn.probabilities - of_plain).abs().max() > 0.01  # so the two can be told apart
    dataset = recipes.data_set(reader, tokens, torch.arange(6) % 2)
    config = ar.TrainConfig(steps=1, batch_size=6)
    history = ar.fit(reader, dataset, config, quiet=True)
    batch = next(iter(training.ShuffledBatches(len(dataset), 6, 1, 0)))
    inputs, target, *weight = dataset[batch]
    losses = torch.nn.functional.cross_entropy(2 * plain(*inputs).flatten(0, -2), target.flatten(), reduction="none")
    mean = (losses * weight[0]).mean() if weight else losses.mean()
    assert history.train_bits[0] == pytest.approx(mean.item() / torch.tensor(2.0).log().item(), rel=1e-4)


# --- Adding a model -----------------------------------------------------------------------------------------------


def test_a_new_model_is_its_class_its_export_its_recipe_and_its_card(monkeypatch, tmp_path, capsys):
    class AlwaysGrey(models.WindowModel):
        def __init__(self, num_levels=16, image_size=28, context_length=1):
            super().__init__(num_levels, image_size, context_length)
            self.grey = torch.nn.Parameter(torch.zeros(num_levels))

        def forward(self, context, position=None, label=None):
            return self.grey.expand(*context.shape[:-1], -1)

    monkeypatch.setattr(models, "AlwaysGrey", AlwaysGrey, raising=False)
    monkeypatch.setattr(models, "__all__", [*models.__all__, "AlwaysGrey"])
    recipe = recipes.Recipe(AlwaysGrey, {}, recipes.WINDOWS, ar.TrainConfig(steps=3, batch_size=8))
    monkeypatch.setitem(recipes.RECIPES, "always_grey", recipe)
    monkeypatch.setenv("AR_QUICK", "1")
    cli.main(["train", "always_grey", "--out", str(tmp_path), "--device", "cpu"])
    monkeypatch.setattr(cards, "CHECKPOINTS", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["always_grey.json", "always_grey.safetensors"]
    assert type(ar.load_pretrained("always_grey")) is AlwaysGrey
    assert "always_grey" in ar.model_table()
    assert ar.generate(ar.load_pretrained("always_grey"), count=2, seed=0).tokens.shape == (2, 784)
    cli.main(["sample", "--model", "always_grey", "--count", "1", "--out", str(tmp_path / "drawn")])
    cli.main(["evaluate", "always_grey", "--limit", "2"])
    card = json.loads((tmp_path / "always_grey.json").read_text())
    assert card["fingerprint"] == pytest.approx(scoring.fingerprint(ar.load_pretrained("always_grey")), abs=1e-6)
    capsys.readouterr()


def test_a_model_of_binarized_images_is_trained_and_scored_as_published_ones_are(monkeypatch, tmp_path, capsys):
    sizes = {"num_levels": 2, "num_classes": 0, "width": 8, "depth": 1, "heads": 2}
    config = ar.TrainConfig(steps=3, batch_size=8, binarize=True)
    monkeypatch.setitem(recipes.RECIPES, "binary", recipes.Recipe(ar.PixelTransformer, sizes, recipes.IMAGES, config))
    monkeypatch.setenv("AR_QUICK", "1")
    seen, fit = {}, training.fit

    def note(model, dataset, config, val, **more):
        seen.update(data=dataset, val=val)
        return fit(model, dataset, config, val, **more)

    monkeypatch.setattr(training, "fit", note)
    cli.main(["train", "binary", "--out", str(tmp_path), "--device", "cpu"])
    assert seen["data"].tokens.max() == 255
    assert seen["val"].images.unique().tolist() == [0, 255]
    card = json.loads((tmp_path / "binary.json").read_text())
    scores, test = card["scores"], ar.load_images("digits").test.first(training.QUICK_IMAGES)
    nats, error = scoring.binary_nats(ar.load_checkpoint(tmp_path / "binary.safetensors"), test)
    assert scores["test_nats_per_image"] == pytest.approx(nats, rel=1e-6)
    assert scores["standard_error"] == pytest.approx(error, rel=1e-4)
    assert scores["test_bits_per_pixel"] == pytest.approx(nats / 784 / math.log(2), rel=1e-6)
    assert (card["recipe"]["binarize"], card["config"]["num_classes"]) == (True, 0)
    capsys.readouterr()
    judged = {}
    monkeypatch.setattr(metrics, "judge_drawings", lambda model, digits, *more: judged.update(digits=digits) or {})
    limit = ["--limit", str(training.QUICK_IMAGES), "--samples", "4"]
    cli.main(["evaluate", str(tmp_path / "binary.safetensors"), *limit, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["nats_per_image"] == pytest.approx(nats, rel=1e-6)
    assert result["bits_per_pixel"] == pytest.approx(scores["test_bits_per_pixel"], rel=1e-6)
    assert all(part.images.unique().tolist() == [0, 255] for part in judged["digits"])
    capsys.readouterr()


# --- The environment ----------------------------------------------------------------------------------------------


def test_full_or_quick(monkeypatch):
    assert ar.full_or_quick(300, 4) == 300
    monkeypatch.setenv("AR_QUICK", "1")
    assert ar.full_or_quick(300, 4) == 4


def test_a_claim_raises_when_claims_are_checked_and_else_prints_a_line(monkeypatch, capsys):
    monkeypatch.delenv("AR_CLAIMS", raising=False)
    with ar.claims():
        assert True
    assert capsys.readouterr().out == ""
    with ar.claims():
        raise AssertionError("more than one\nline")
    assert len(capsys.readouterr().out.splitlines()) == 1
    monkeypatch.setenv("AR_CLAIMS", "1")
    with pytest.raises(AssertionError), ar.claims():
        raise AssertionError


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (4, 1), (5, 2)])
def test_few_images_are_drawn_by_one_thread_and_the_number_is_restored(monkeypatch, count, expected):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    seen = []
    model = ar.OneHotMLP(3, 3, 4, hidden_size=8)
    model.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    try:
        ar.generate(model, count=count, seed=0)
        assert set(seen) == {expected}
        assert torch.get_num_threads() == 2
        monkeypatch.setattr(model, "forward", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ar.generate(model, count=count)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_the_table_of_a_notebook_is_markdown():
    table = ar.table(["model", "bits"], [["a", 0.5], ["b", "1.25"]])
    assert table == "| model | bits |\n|:--|--:|\n| a | 0.5 |\n| b | 1.25 |"
    assert table._repr_markdown_() == repr(table) == str(table)
    with pytest.raises(ValueError, match="rows must have 2 entries, as heads has, not 3"):
        ar.table(["model", "bits"], [["a", 1, 2]])


def test_pixel_bits_are_minus_log2_of_the_probabilities_and_the_yardstick_is_their_mean():
    torch.manual_seed(0)
    model = ar.PixelTransformer(4, 3, 2, width=8, depth=1, heads=2, dropout=0.5).train()
    images = ar.ImageSet(torch.randint(256, (11, 3, 3), dtype=torch.uint8), torch.arange(11) % 2)
    tokens = ar.quantize(images.images, 4).flatten(1)
    bits = ar.pixel_bits(model, tokens, images.labels)
    assert model.training
    with torch.no_grad():
        probabilities, _ = ar.prediction_maps(model.eval().image_logits(tokens, images.labels), tokens)
    torch.testing.assert_close(bits, -probabilities.log2(), rtol=1e-4, atol=1e-5)
    assert ar.bits_per_pixel(model, images) == pytest.approx(bits.mean().item(), rel=1e-6)


def test_binary_nats_are_the_mean_over_draws_and_its_standard_error():
    torch.manual_seed(0)
    model = ar.PixelTransformer(2, 3, 0, width=8, depth=1, heads=2)
    images = ar.ImageSet(torch.randint(256, (7, 3, 3), dtype=torch.uint8), torch.zeros(7, dtype=torch.long))
    found = []
    for seed in range(4):
        tokens = binarize(images.images, seed).flatten(1)
        found.append(ar.pixel_bits(model, tokens).double().sum(1).mean().item() * math.log(2))
    mean, error = scoring.binary_nats(model, images, draws=4)
    assert mean == pytest.approx(statistics.mean(found), rel=1e-5)
    assert error == pytest.approx(statistics.stdev(found) / 2, rel=1e-3)
    with pytest.raises(ValueError, match="model must have num_levels=2, not 4"):
        scoring.binary_nats(ar.PixelTransformer(4, 3, width=8, depth=1, heads=2), images)
    with pytest.raises(ValueError, match="draws must be at least 2, not 1"):
        scoring.binary_nats(model, images, draws=1)


def test_a_chapter_spells_out_the_recipe_that_the_table_has():
    """Each call of train_or_load in a chapter is given the configuration that recipes.py has."""
    sys.path.insert(0, str(ROOT / "tools"))
    import book

    seen = set()
    for path in book.NOTEBOOKS:
        for cell in book.read(path).cells:
            if cell.cell_type != "code" or "train_or_load(" not in cell.source:
                continue
            calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
            for call in calls:
                match ast.unparse(call.func):
                    case "ar.TrainConfig":
                        config = eval(ast.unparse(call), {"ar": ar})
                    case "replace":  # of the configuration of an earlier cell
                        config = replace(config, **{word.arg: ast.literal_eval(word.value) for word in call.keywords})
                    case "ar.train_or_load":
                        name = call.args[0]
            if isinstance(name, ast.Constant):
                names = {name.value}
            else:
                names = set(re.findall(r"[\"'](\w+)[\"']", cell.source)) & set(recipes.RECIPES)
            assert names, cell.source
            assert all(recipes.RECIPES[name].config == config for name in names), cell.source
            seen |= names
    assert seen == set(recipes.RECIPES) - {"transformer_small", "transformer_full"}
