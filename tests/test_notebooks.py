"""Every chapter runs as a reader would run it, and shows what its code gives."""

import ast
import base64
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from IPython.core.inputtransformer2 import TransformerManager
from PIL import Image

import ar_helpers as ar

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import book  # noqa: E402

NBVAL = """
import resource, sys, pytest
code = pytest.main(sys.argv[1:])
kernel = resource.getrusage(resource.RUSAGE_CHILDREN)
print(kernel.ru_utime + kernel.ru_stime)
sys.exit(code)
"""
NOTEBOOKS = pytest.mark.parametrize("path", book.NOTEBOOKS, ids=lambda path: path.stem)


def texts(cell):
    """All the text that a cell's outputs hold."""
    for output in cell.get("outputs", []):
        yield output.get("text", "")
        yield from (str(value) for kind, value in output.get("data", {}).items() if kind.startswith("text/"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """A folder with the package as its wheel installs it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(ROOT / "ar_helpers", folder / "source" / "ar_helpers").parent
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-text"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder, source], check=True)
    (built,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "installed", built], check=True)
    return folder / "installed"


@NOTEBOOKS
def test_runs_from_an_empty_folder_with_the_wheel_alone(path, wheel, tmp_path, record_property):
    """The processor time that its kernel takes is printed at the end of the tests: at most 25 s on a quiet machine.

    Starting nbval takes some five seconds more, whatever it runs.
    """
    shutil.copy(path, tmp_path)
    environment = os.environ | {"AR_QUICK": "1", "PYTHONPATH": str(wheel), "XDG_CACHE_HOME": str(wheel / "cache")}
    environment["TQDM_DISABLE"] = "1"
    environment["OMP_NUM_THREADS"] = "1"  # the other tests need a core as well, and threads that wait for one burn it
    environment.pop("AR_DATA", None)
    where = "import ar_helpers; print(ar_helpers.__file__)"
    found = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.stdout.startswith(str(wheel)), found.stderr
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", tmp_path, "--nbval-lax"]
    nbval = [sys.executable, "-c", NBVAL, *options, "--nbval-current-env", path.name]
    run = subprocess.run(nbval, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    record_property("quick run", f"{path.stem}: {float(run.stdout.split()[-1]):.1f} s of one core")
    assert " passed" in run.stdout
    assert os.listdir(tmp_path) == [path.name]  # it left nothing behind


@pytest.mark.parametrize("missing", [True, False], ids=["missing", "installed"])
@NOTEBOOKS
def test_the_set_up_cell_installs_the_package_where_it_is_missing(path, missing, monkeypatch):
    cell = next(cell for cell in book.read(path).cells if cell.cell_type == "code")
    code = TransformerManager().transform_cell("\n".join(cell.source.splitlines()[:4]))
    installed = []
    shell = SimpleNamespace(run_line_magic=lambda *command: installed.append(command))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if missing and name == "ar_helpers" else True)
    exec(code, {"get_ipython": lambda: shell})
    assert installed == ([("pip", f'install -q "git+{book.repository()}@main"')] if missing else [])


@NOTEBOOKS
def test_strict_nbval_does_not_compare_versions(path):
    cells = [cell for cell in book.read(path).cells if cell.cell_type == "code" and "__version__" in cell.source]
    assert cells
    assert all("nbval-ignore-output" in cell.metadata.tags for cell in cells)


@NOTEBOOKS
def test_stored_outputs_are_of_the_code_and_the_cards_that_are_here(path):
    notebook = book.read(path)
    assert notebook.metadata.get("code_hash") == book.code_hash(notebook), (
        f"make execute NOTEBOOK=notebooks/{path.name}"
    )
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "the cells were not run once, from top to bottom"


def test_the_hash_sees_a_changed_cell_card_or_record_but_not_another_address(monkeypatch, tmp_path):
    notebook = book.read(book.NOTEBOOKS[1])
    before = book.code_hash(notebook)
    for cell in notebook.cells:
        cell.source = cell.source.replace(book.repository(), "https://github.com/somebody/else")
    monkeypatch.setattr(book, "repository", lambda: "https://github.com/somebody/else")
    assert book.code_hash(notebook) == before
    cards = shutil.copytree(book.CARDS, tmp_path / "cards")
    monkeypatch.setattr(book, "CARDS", cards)
    with (cards / "one_hot_mlp.json").open("a") as card:
        card.write("\n")
    assert book.code_hash(notebook) != before
    shutil.copy(ROOT / "ar_helpers/checkpoints/one_hot_mlp.json", cards)
    notebook.cells[1].source += "\n"
    assert book.code_hash(notebook) != before
    monkeypatch.setattr(book, "RECORDS", tmp_path)
    notebook.cells[1].source = 'ar.load_record("found")'
    (tmp_path / "found.json").write_text("1")
    before = book.code_hash(notebook)
    (tmp_path / "found.json").write_text("2")
    assert book.code_hash(notebook) != before


@pytest.mark.parametrize("path", book.MODELS, ids=lambda path: path.stem)
def test_a_file_of_models_is_what_the_chapters_show_and_nothing_else(path):
    cells = [cell for notebook in book.NOTEBOOKS for cell in book.tagged(book.read(notebook), "mirror")]
    shown = [cell.source for cell in cells if book.mirror_source(cell)[0] == path]
    assert book.model_code(path) == "\n\n\n".join(shown), "make mirror"


@NOTEBOOKS
def test_claims_are_left_out_of_the_page_and_say_nothing_when_they_hold(path):
    """Only a cell tagged `claim` may ask whose pictures they are: no experiment depends on it."""
    for cell in book.read(path).cells:
        tags = cell.metadata.get("tags", [])
        assert ("claim" in tags) == ("remove-cell" in tags), cell.source
        if "claim" in tags:
            assert "with ar.claims():" in cell.source, cell.source
            assert not cell.outputs, cell.source
        elif cell.cell_type == "code":
            asks = re.search(r"digits\.name|\.name ==|ar\.claims|AR_QUICK|AR_CLAIMS", cell.source)
            assert not asks, cell.source


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@NOTEBOOKS
def test_the_sizes_of_a_chapter_s_experiments_are_the_same_for_all_pictures(path, name, monkeypatch):
    """Each call of full_or_quick gives what it gives without any pictures: its arguments are written out."""
    monkeypatch.delenv("AR_QUICK", raising=False)
    digits = SimpleNamespace(name=name)
    for cell in book.read(path).cells:
        if cell.cell_type != "code" or "full_or_quick" not in cell.source:
            continue
        for node in ast.walk(ast.parse(re.sub(r"^( *)%", r"\1# ", cell.source, flags=re.MULTILINE))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "ar.full_or_quick":
                full, quick = (ast.literal_eval(argument) for argument in node.args)
                assert eval(ast.unparse(node), {"ar": ar, "digits": digits}) == full != quick


@NOTEBOOKS
def test_stored_outputs_hold_no_paths_warnings_or_bars(path):
    for cell in book.read(path).cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", output["text"]
            assert output.output_type != "error" or "raises-exception" in cell.metadata.get("tags", [])
        for text in texts(cell):
            found = re.search(
                r"Warning|\d+%\||it/s|(?:/[\w.-]+){2,}/[\w.-]+\.(?:py|so)|/(?:home|root|tmp|work|Users)/", text
            )
            assert found is None, found


@NOTEBOOKS
def test_stored_outputs_are_of_real_mnist(path):
    assert not any("built-in 8 x 8 digits" in text for cell in book.read(path).cells for text in texts(cell))


@NOTEBOOKS
def test_cells_are_short_and_pictures_described(path):
    for cell in book.read(path).cells:
        if cell.cell_type == "code":
            tags = cell.metadata.get("tags", [])
            longest = 45 if "mirror" in tags else 25
            assert all(len(line) <= 88 for line in cell.source.splitlines()), cell.source
            assert "hide-cell" in tags or len(cell.source.splitlines()) <= longest, cell.source
            if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
                assert cell.metadata.get("mystnb", {}).get("image", {}).get("alt"), cell.source


@NOTEBOOKS
def test_stored_lines_fit_the_page_and_pictures_fit_a_dark_page(path):
    for cell in book.read(path).cells:
        for output in cell.get("outputs", []):
            found = output.get("data", {})
            printed = output.get("text") or ("" if "text/markdown" in found else found.get("text/plain", ""))
            assert max(map(len, printed.splitlines()), default=0) <= 88, cell.source
            if "image/png" in found:
                picture = Image.open(BytesIO(base64.b64decode(found["image/png"]))).convert("RGBA")
                assert picture.getpixel((0, 0))[3] == 0, cell.source  # the page shows through


@NOTEBOOKS
def test_no_line_of_prose_is_taken_for_a_comment(path):
    for cell in book.read(path).cells:
        if cell.cell_type == "markdown":  # the site drops a line that begins with a percent sign
            assert not re.search(r"^\s*(%|\+\+\+)", cell.source, re.MULTILINE), cell.source


@NOTEBOOKS
def test_a_chapter_has_the_book_s_anatomy(path):
    source = "\n".join(cell.source for cell in book.read(path).cells if cell.cell_type == "markdown")
    for part in ("**You will**", "## What is still wrong", "## Summary", "## Exercises", "## Further reading"):
        assert part in source, part
    exercises = re.findall(r"^### Exercise", source, re.MULTILINE)
    assert 3 <= len(exercises) <= 5
    assert len(exercises) == len(re.findall(r"^#### Solution", source, re.MULTILINE))
    assert path.stat().st_size <= 1_500_000


def test_every_shipped_checkpoint_is_what_a_chapter_trains():
    stored = "".join(text for path in book.NOTEBOOKS for cell in book.read(path).cells for text in texts(cell))
    loaded = re.findall(r"Loaded the weights of (\w+)", stored)
    others = {"transformer_small", "transformer_full"}  # for the browser, and for the best drawings
    assert set(loaded) == {path.stem for path in book.CARDS.glob("*.json")} - others
