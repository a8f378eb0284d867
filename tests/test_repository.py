"""What must agree between files: names, versions, numbers, the repository's address."""

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
FROM_PIP = {"constriction"}  # which `pip: -e .` brings along
ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w-]+")


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def tracked_files():
    """Files that git knows or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def cells(notebook, kind="markdown"):
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def markdown(notebook):
    return "\n\n".join(cells(notebook))


def extension(name):
    """A Sphinx extension of the book's, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / "_ext" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def minimum_versions(requirements):
    pairs = (re.match(r"([\w-]+)\s*>=\s*([\d.]+)$", line) for line in requirements)
    return {pair[1]: pair[2] for pair in pairs if pair}


# Dependencies


def test_conda_environment_and_package_agree():
    listed = yaml.safe_load(read("environment.yml"))["dependencies"]
    conda = minimum_versions(line for line in listed if isinstance(line, str))
    wanted = minimum_versions(PROJECT["dependencies"])
    wanted |= minimum_versions(PROJECT["optional-dependencies"]["lab"])
    wanted = {CONDA_NAMES.get(name, name): version for name, version in wanted.items() if name not in FROM_PIP}
    assert conda == wanted
    (python,) = (line for line in listed if isinstance(line, str) and line.startswith("python="))
    assert re.fullmatch(r"python=3\.\d+", python), "repo2docker reads no range of versions"
    assert {"pip": ["-e ."]} in listed


def test_what_builds_the_site_is_pinned_and_has_no_torch():
    lines = [line for line in read("book/requirements.txt").splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in lines)
    assert not any(line.startswith("torch") for line in lines)


def test_the_site_has_a_stand_in_for_all_that_the_package_imports():
    """`make book` installs none of it, and this test's environment has it all."""
    config = yaml.safe_load(read("_config.yml"))
    stand_ins = set(config["sphinx"]["config"]["autodoc_mock_imports"])
    for path in (ROOT / "ar_helpers").rglob("*.py"):
        for node in ast.parse(
            path.read_text(encoding="utf-8")
        ).body:  # of functions' own imports the site knows nothing
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            found = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
            assert found <= stand_ins, f"{path.name}: {found - stand_ins}"


# Numbers


def test_file_numbers_are_chapter_numbers():
    parts = yaml.safe_load(read("_toc.yml"))["parts"]
    chapters = [chapter["file"] for part in parts for chapter in part["chapters"] if part.get("numbered")]
    assert chapters == [f"notebooks/{path.stem}" for path in NOTEBOOKS]
    assert [int(Path(chapter).name[:2]) for chapter in chapters] == list(range(1, len(chapters) + 1))
    assert not any(
        chapter["file"].startswith("notebooks/") and not part.get("numbered")
        for part in parts
        for chapter in part["chapters"]
    )


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("figure", r"^\*\*Figure (\d+)\.(\d+)\.\*\* \S"),
        ("table", r"\"Table (\d+)\.(\d+)\. \S"),
        ("equation", r"\\tag\{(\d+)\.(\d+)\}"),
        ("exercise", r"^### Exercise (\d+)\.(\d+)\b"),
    ],
)
def test_numbers_within_a_chapter_are_consecutive(notebook, kind, pattern):
    text = "\n\n".join(cells(notebook, "code")) if kind == "table" else markdown(notebook)  # ar.table has the caption
    found = [(int(chapter), int(number)) for chapter, number in re.findall(pattern, text, re.MULTILINE)]
    assert found == [(int(notebook.name[:2]), number) for number in range(1, len(found) + 1)]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_exercise_has_a_solution(notebook):
    headings = re.findall(r"^(### Exercise|#### Solution)", markdown(notebook), re.MULTILINE)
    assert headings == ["### Exercise", "#### Solution"] * (len(headings) // 2)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_solutions_fold_in_colab(notebook):
    loaded = json.loads(notebook.read_text(encoding="utf-8"))
    solutions = [cell for cell in loaded["cells"] if "".join(cell["source"]).startswith("#### Solution")]
    assert all("".join(cell["source"]) == "#### Solution" for cell in solutions)  # Colab folds the cells below it
    assert [cell["metadata"]["id"] for cell in solutions] == loaded["metadata"]["colab"]["collapsed_sections"]
    assert len({cell["id"] for cell in solutions}) == len(solutions)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_citations_are_plain_text_that_the_bibliography_knows(notebook):
    text = markdown(notebook)
    assert not re.search(r"\{[\w:]+\}`", text), "a role, which Jupyter and Colab show as it stands"
    keys = extension("book_citations").citation_keys(ROOT / "book" / "references.bib")
    authors = r"((?:van den )?[A-Z][\w-]+(?:\s+et\s+al\.|\s+and\s+[A-Z]\w+)?)"
    cited = re.findall(rf"{authors}\s+\(((?:19|20)\d\d[a-z]?)\)", text)
    cited += re.findall(rf"[(;]\s*{authors},\s+((?:19|20)\d\d[a-z]?)(?=[;)])", text)
    unknown = {(" ".join(names.split()), year) for names, year in cited} - keys.keys()
    assert not unknown


def test_citations_and_terms_become_links():
    linked = extension("book_citations").linked
    keys = {("Ba et al.", "2016"): "ba", ("Smith and Topin", "2019"): "smith", ("Gu", "2018a"): "gu"}
    text = "Smith\nand Topin (2019) and others (Ba et al., 2016; Gu, 2018a) like a *token*, **token** (Gu, 2018)."
    expected = "{cite:t}`smith` and others {cite:p}`ba,gu` like a {term}`token`, **token** (Gu, 2018)."
    assert linked(text, keys, {"token"}) == expected


def test_the_knobs_do_what_chapter_6_says_of_them():
    record = json.loads(read("ar_helpers/records/knobs.json"))
    plain, *turned = record["settings"]
    best = max(turned, key=lambda row: row["recognized"])
    plain_again, best_again = record["again"]["settings"]
    assert best["knobs"] == best_again["knobs"] == {"top_k": 8}
    assert all(row["recognized"] <= plain["recognized"] for row in turned if "top_p" in row["knobs"])
    assert plain["knobs"] == plain_again["knobs"] == {}
    lead = (best["recognized"] - plain["recognized"]) / record["count"]
    lead_again = (best_again["recognized"] - plain_again["recognized"]) / record["again"]["count"]
    assert lead_again < lead / 2
    assert best_again["coverage"] > plain_again["coverage"] - 0.01
    assert 0.93 < plain_again["recognized"] / record["again"]["count"] < 0.95  # one in sixteen is not read


# The address


def addresses(root):
    """Where the repository's address stands: file and address."""
    found = [("README.md", re.search(rf"git clone ({ADDRESS.pattern})", (root / "README.md").read_text("utf-8"))[1])]
    found.append(("CITATION.cff", yaml.safe_load((root / "CITATION.cff").read_text("utf-8"))["repository-code"]))
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        installs = re.findall(rf"git\+({ADDRESS.pattern})", path.read_text("utf-8"))
        found += [(path.name, address) for address in installs or [None]]
    return found


def test_the_address_is_the_same_everywhere():
    for name, address in addresses(ROOT):
        assert address == PROJECT["urls"]["Repository"], name


def test_one_command_writes_a_new_address_everywhere(tmp_path):
    for name in ("README.md", "CITATION.cff", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("notebooks", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    (tmp_path / "ar_helpers" / "checkpoints").mkdir(parents=True)
    new = "https://github.com/reader/a-fork"
    subprocess.run([sys.executable, tmp_path / "tools" / "book.py", "address", new], check=True)
    assert tomllib.loads((tmp_path / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"] == new
    for name, address in addresses(tmp_path):
        assert address == new, name


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/reader/a-fork.git", "https://github.com/reader/a-fork"),
        ("https://github.com/reader/a-fork", "https://github.com/reader/a-fork"),
        ("git@github.com:reader/a-fork.git", "https://github.com/reader/a-fork"),
        ("ssh://git@github.com/reader/a.fork", "https://github.com/reader/a.fork"),
        ("https://github.com/OWNER/pixel-by-pixel", None),
        ("https://example.org/reader/a-fork", None),
        ("../another/folder", None),
        (None, None),
    ],
)
def test_the_site_finds_its_repository(remote, address, tmp_path, monkeypatch):
    book_site = extension("book_site")
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    if remote:
        subprocess.run(["git", "remote", "add", "origin", remote], cwd=tmp_path, check=True)
    assert book_site.repository_address(tmp_path) == address
    monkeypatch.setenv("GITHUB_REPOSITORY", "reader/another")
    assert book_site.repository_address(tmp_path) == "https://github.com/reader/another"


# The rest


def test_commands_in_the_text_exist():
    targets = set(re.findall(r"^(\w+):", read("Makefile"), re.MULTILINE))
    for name in ("README.md", *(f"book/{path.name}" for path in (ROOT / "book").glob("*.md"))):
        commands = re.findall(r"(?:^|`)make (\w+)", read(name), re.MULTILINE)
        assert set(commands) <= targets, name


def test_files_named_in_the_readme_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", read("README.md")):
        assert target.startswith("https://") or (ROOT / target).is_file(), target


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "book/index.md",
        "book/before_you_start.md",
        "notebooks/05_transformer.ipynb",
        "notebooks/06_sampling.ipynb",
    ],
)
def test_the_live_page_is_linked_where_readers_come_by(name):
    assert re.search(r"""[("/]live\.(?:md|html)\b""", read(name))


def test_licences_and_citation():
    assert read("LICENSE").startswith("MIT License")
    assert "https://creativecommons.org/licenses/by/4.0/" in read("LICENSE-text")
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == PROJECT["version"]
    assert set(citation["license"]) == {"MIT", "CC-BY-4.0"}


def test_the_readme_cites_the_book_as_the_citation_file_does_and_the_changelog_knows_the_version():
    citation = yaml.safe_load(read("CITATION.cff"))
    (entry,) = re.findall(r"```bibtex\n(.+?)\n```", read("README.md"), re.DOTALL)
    fields = dict(re.findall(r"^  (\w+) += \{(.+)\},?$", entry, re.MULTILINE))
    assert fields == {
        "title": citation["title"],
        "author": "{" + " and ".join(author["name"] for author in citation["authors"]) + "}",
        "year": yaml.safe_load(read("_config.yml"))["copyright"],
        "note": f"Version {citation['version']}",
        "url": citation["repository-code"],
    }
    assert re.search(r"^## ([\d.]+)", read("CHANGELOG.md"), re.MULTILINE)[1] == PROJECT["version"]


def test_no_file_names_a_machine_or_a_package_index():
    machine = r"/(?:home|Users|root|work)/[a-z]"
    index = "|".join(("pypi" + r"\.org", "python" + r"hosted\.org", r"conda\.anaconda" + r"\.org", r"pytorch\.org/whl"))
    for path in tracked_files():
        if path == Path(__file__).resolve():
            continue
        content = path.read_bytes().decode("utf-8", errors="ignore")
        if path.suffix == ".ipynb":
            content = re.sub(r'"image/\w+": "[^"]*"', "", content)
        elif path.suffix in (".png", ".gif", ".safetensors"):
            continue
        assert not re.search(machine, content), path
        assert not re.search(index, content), path


# Make


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_an_old_python_is_named_in_a_line_and_what_it_left_is_cleared(tmp_path):
    for name in ("Makefile", "pyproject.toml", "book/requirements.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    make = ["make", "-C", tmp_path, "--no-print-directory"]
    found = subprocess.run([*make, "lab", f"PYTHON={old}"], capture_output=True, text=True)
    assert found.returncode != 0
    assert found.stdout == f"{old} is not Python 3.11 or newer: add one that is, as in make lab PYTHON=python3.12\n"
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "pip"):
        shutil.copy(old, tmp_path / ".venv" / "bin" / name)
    subprocess.run([*make, ".venv/made", f"PYTHON={sys.executable}"], check=True, capture_output=True)
    subprocess.run([tmp_path / ".venv" / "bin" / "python", "-c", "import pip"], check=True)


def test_the_first_line_of_make_lab_says_how_much_it_downloads():
    found = subprocess.run(["make", "-n", "lab", "-W", "pyproject.toml"], cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in found.stdout.splitlines() if "pip install" in line or "GB" in line]
    assert "6 GB" in lines[0]
    assert "make lab CPU=1" in lines[0]
