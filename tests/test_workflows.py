"""The book outside this checkout: workflows on GitHub, the package, the zip of the site, readers' own CI."""

import http.server
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
import yaml
from test_repository import tracked_files
from test_site import Page

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BIN = Path(sys.executable).parent
MAIN = "github.ref == 'refs/heads/main'"
paths = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOWS = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}
every_workflow = pytest.mark.parametrize("name", WORKFLOWS)
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make")


def jobs(name):
    return WORKFLOWS[name]["jobs"]


def steps(name, job):
    return jobs(name)[job]["steps"]


def commands(name, job):
    return [step["run"] for step in steps(name, job) if "run" in step]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the repository's files, without git and without what was built."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in tracked_files():
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return folder


# Workflows


@every_workflow
def test_actions_are_pinned_and_permissions_least(name):
    text = (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")
    uses = re.findall(r"uses: *(.+)", text)
    assert uses
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", action) for action in uses)
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    writes = {key for job in jobs(name).values() for key in job.get("permissions", {})}
    assert writes <= {"pages", "id-token"} | ({"contents"} if name == "ci.yml" else set())
    assert all("timeout-minutes" in job for job in jobs(name).values())


@every_workflow
def test_a_failure_is_shown_as_a_failure(name):
    for job in jobs(name).values():
        assert not any("continue-on-error" in part for part in (job, *job["steps"]))


def test_all_workflows_use_an_action_in_the_same_version_and_its_updates_come_once_a_month_together():
    used = {step["uses"] for name in WORKFLOWS for job in jobs(name) for step in steps(name, job) if "uses" in step}
    assert len({action.split("@")[0] for action in used}) == len(used)
    (update,) = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    assert update["package-ecosystem"] == "github-actions"
    assert update["schedule"] == {"interval": "monthly"}
    assert [group["patterns"] for group in update["groups"].values()] == [["*"]]


def test_the_site_is_published_from_main_only_and_after_the_tests():
    publishing = [(name, job) for name in WORKFLOWS for job in jobs(name) if "deploy-pages" in str(steps(name, job))]
    assert publishing == [("ci.yml", "publish")]
    job = jobs("ci.yml")["publish"]
    assert job["if"] == MAIN
    assert set(job["needs"]) == {"test", "site"}
    assert commands("ci.yml", "test") == ["bash .ci/run"]
    assert commands("ci.yml", "site") == ["make book"]
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_notebooks_of_the_site_are_published_on_a_branch_of_their_own(tmp_path):
    job = jobs("ci.yml")["notebooks"]
    assert job["if"] == MAIN
    assert set(job["needs"]) == {"test", "site"}
    (built,) = [step["with"] for step in steps("ci.yml", "site") if "upload-artifact" in step.get("uses", "")]
    assert built["path"] == "_build/html/_sources/notebooks"
    environment = os.environ | {"GITHUB_SHA": "1234567", "GIT_CONFIG_GLOBAL": os.devnull}

    def run(command, folder):
        subprocess.run(["bash", "-ec", command], cwd=folder, env=environment, check=True, capture_output=True)

    run("git init --quiet --bare remote && git clone --quiet remote here", tmp_path)
    commit = (
        "git add . && git -c user.name=a -c user.email=a@b commit --quiet -m 1 && git push --quiet origin HEAD:main"
    )
    run(f"echo old > README.md && {commit}", tmp_path / "here")
    for round in ("first", "second"):  # publishing again replaces what is there
        run("git switch --quiet --detach origin/main && (git branch -D notebooks || true)", tmp_path / "here")
        before, after = commands("ci.yml", "notebooks")
        run(before, tmp_path / "here")
        run(f"mkdir notebooks && echo {round} > notebooks/01_a.ipynb", tmp_path / "here")  # as download-artifact does
        run(after, tmp_path / "here")
        run(f"git clone --quiet --branch notebooks remote {round}", tmp_path)
        assert sorted(path.name for path in (tmp_path / round).iterdir()) == [".git", "notebooks"]
        assert (tmp_path / round / "notebooks" / "01_a.ipynb").read_text().strip() == round


def test_a_newer_push_stops_the_run_of_a_pull_request_but_not_of_main():
    stopped = WORKFLOWS["ci.yml"]["concurrency"]["cancel-in-progress"]
    assert stopped == "${{ " + MAIN.replace("==", "!=") + " }}"


def test_ci_covers_the_versions_and_systems_that_readers_are_promised():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first, last = map(int, re.search(r"Python 3\.(\d+) to 3\.(\d+)", readme).groups())
    promised = [f"3.{minor}" for minor in range(first, last + 1)]
    assert jobs("ci.yml")["test"]["strategy"]["matrix"]["python"] == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"
    assert [line.rpartition(" ")[2] for line in PROJECT["classifiers"]] == promised
    assert jobs("ci.yml")["macos"]["runs-on"].startswith("macos")
    windows, oldest = jobs("ci.yml")["elsewhere"]["strategy"]["matrix"]["include"]
    assert windows["os"].startswith("windows")
    assert (oldest["python"], oldest["resolution"]) == (promised[0], "lowest-direct")
    install, unit, quick = commands("ci.yml", "elsewhere")[1:]
    assert "--resolution ${{ matrix.resolution }}" in install
    assert all((ROOT / test).is_file() for test in re.findall(r"tests/\S+", unit))
    assert quick.removeprefix("python -m ") == command_of_the_page("--nbval-lax").removeprefix("AR_QUICK=1 ")


def test_a_missing_browser_is_a_failure_on_linux_and_not_on_macos():
    assert "CI=true" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (step,) = (step for step in steps("ci.yml", "macos") if "run" in step)
    assert step == {"run": "make test", "env": {"CI": ""}}


@needs_make
@pytest.mark.parametrize("target", [".venv/test", ".venv/lab"])
def test_the_small_build_of_pytorch_is_installed_if_it_is_asked_for(target):
    (asked,) = (step["env"] for step in steps("ci.yml", "test") if "env" in step)
    environment = {key: os.environ[key] for key in os.environ if key != "CPU"}
    for added, small in (({}, False), (asked, True)):
        make = ["make", "-n", target, "-W", "pyproject.toml"]
        env = environment | {key: str(value) for key, value in added.items()}
        found = subprocess.run(make, cwd=ROOT, env=env, check=True, capture_output=True, text=True)
        assert ("--torch-backend=cpu torch torchvision" in found.stdout) == small
        assert "pip install -q --disable-pip-version-check -e" in found.stdout


@pytest.mark.parametrize("name", ["links.yml", "mnist.yml"])
def test_a_weekly_check_blocks_nothing(name):
    assert set(WORKFLOWS[name][True]) == {"schedule", "workflow_dispatch"}  # YAML reads the key `on` as true
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", WORKFLOWS[name][True]["schedule"][0]["cron"])


@pytest.fixture(scope="module")
def server():
    """A server whose page /404 has the status 404, and so on."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(int(self.path.strip("/")))
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
@pytest.mark.parametrize(
    ("links", "broken"),
    [
        (["{}/200"], []),
        (["{}/200", "{}/403"], []),
        (["{}/404", "{}/200"], ["404 {}/404"]),
        (["http://127.0.0.1:9/"], ["000 http://127.0.0.1:9/"]),
    ],
    ids=["found", "closed to programs", "gone", "no server"],
)
def test_the_link_check_is_red_if_a_page_is_gone(links, broken, server, tmp_path):
    site = tmp_path / "_build" / "html" / "book"
    site.mkdir(parents=True)
    page = "".join(f'<a href="{link.format(server)}#part">x</a>\n' for link in links)
    (site / "page.html").write_text(page + '<a href="../other.html">y</a>\n', encoding="utf-8")
    environment = os.environ | {"no_proxy": "127.0.0.1"}
    bash = ["bash", "-e", "-c", commands("links.yml", "check")[-1]]
    found = subprocess.run(bash, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert re.findall("::error::(.+)", found.stdout) == [line.format(server) for line in broken]
    assert found.returncode == bool(broken)


# Readers' own CI


def command_of_the_page(option):
    """The command of book/contributing.md that runs nbval with an option."""
    page = (ROOT / "book" / "contributing.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"```console\n(.*pytest {option} .*)\n```", page)
    return found


def cell(source, output):
    printed = nbformat.v4.new_output("stream", text=output)
    return nbformat.v4.new_code_cell(source, outputs=[printed], execution_count=1)


def test_the_quick_command_runs_every_cell_and_the_strict_command_compares_the_outputs(tmp_path):
    """Both as they stand on the page. A bar that takes longer than a second is no output to the strict command."""
    bar = "for _ in progress(range(2), unit='x'):\n    time.sleep(0.7)\n"
    notebook = nbformat.v4.new_notebook(
        cells=[
            cell("import time\nimport ar_helpers as ar\nfrom ar_helpers.files import progress\n" + bar + "1", ""),
            cell("print(ar.full_or_quick('full', 'quick'))", "full\n"),
            cell("print('found')", "stored\n"),
        ]
    )
    notebook.cells[0].outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "1"}, execution_count=1)]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "01_short.ipynb")
    environment = {key: os.environ[key] for key in os.environ if not key.startswith(("AR_", "TQDM_", "PYTEST_"))}
    environment |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def run(option):
        command = command_of_the_page(option) + " -q"
        options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
        return subprocess.run(["sh", "-c", command], **options)

    quick = run("--nbval-lax")
    assert "3 passed" in quick.stdout, quick.stdout
    strict = run("--nbval")
    assert "1 failed, 2 passed" in strict.stdout, strict.stdout
    assert "stored" in strict.stdout


def test_the_weekly_run_on_mnist_checks_the_claims_and_the_outputs():
    job = jobs("mnist.yml")["chapters"]
    checks = {each["option"]: each["claims"] for each in job["strategy"]["matrix"]["include"]}
    assert checks == {"--nbval-lax": 1, "--nbval": 0}
    step = job["steps"][-1]
    assert step["env"] == {"AR_CLAIMS": "${{ matrix.claims }}", "TQDM_DISABLE": 1}
    strict = f"TQDM_DISABLE=1 {step['run'].removeprefix('.venv/bin/')}".replace("${{ matrix.option }}", "--nbval")
    assert strict == command_of_the_page("--nbval")


# The package and its release


def test_a_release_does_nothing_until_it_is_switched_on_and_needs_no_password():
    assert WORKFLOWS["release.yml"][True] == {"release": {"types": ["published"]}}
    build, publish = jobs("release.yml")["build"], jobs("release.yml")["publish"]
    assert build["if"] == "vars.PUBLISH_TO_PYPI == 'true'"
    assert publish["needs"] == "build"  # and is skipped with it
    assert "if" not in publish
    assert publish["environment"] == "pypi"
    assert publish["permissions"] == {"id-token": "write"}
    assert "permissions" not in build
    assert publish["steps"][-1]["uses"].startswith("pypa/gh-action-pypi-publish@")
    assert "secrets." not in str(WORKFLOWS["release.yml"])


@pytest.mark.parametrize(("tag", "agrees"), [(f"v{PROJECT['version']}", True), ("v99.0", False), ("", False)])
def test_a_release_whose_tag_is_not_the_version_fails(tag, agrees):
    bash = ["bash", "-e", "-c", commands("release.yml", "build")[0]]
    assert (subprocess.run(bash, cwd=ROOT, env=os.environ | {"TAG": tag}).returncode == 0) == agrees


def test_the_package_holds_what_it_loads_and_nothing_of_the_book(checkout, tmp_path):
    """Built as the release builds it, the wheel from the source distribution."""
    build = [sys.executable, "-m", "build", "--outdir", tmp_path, checkout]
    found = subprocess.run(build, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "would be ignored" not in found.stderr  # setuptools' word for a folder that is not declared
    package = {f"ar_helpers/{path.relative_to(ROOT / 'ar_helpers').as_posix()}" for path in tracked_files()
               if path.is_relative_to(ROOT / "ar_helpers") and path.name != "ruff.toml"}  # fmt: skip
    assert {"ar_helpers/checkpoints/transformer.safetensors", "ar_helpers/records/knobs.json"} <= package
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if ".dist-info/" not in name}
    assert held == package
    assert wheel.stat().st_size < 35_000_000  # nearly all of it weights, which may take 35 MB
    (source,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as file:
        names = {member.name.partition("/")[2] for member in file.getmembers() if member.isfile()}
    beside = {name for name in names - package if ".egg-info/" not in name}
    made = {"PKG-INFO", "setup.cfg"}
    assert beside - made == {"LICENSE", "LICENSE-text", "MANIFEST.in", "README.md", "pyproject.toml"}


# The site as a zip


@needs_make
def test_the_zip_holds_the_site_and_its_notebooks_and_no_path_of_the_machine(checkout, tmp_path):
    make = ["make", "-C", checkout, "zip", f"BIN={BIN}", "-o", ".venv/book"]
    found = subprocess.run(make, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    with zipfile.ZipFile(checkout / "dist" / "pixel-by-pixel.zip") as file:
        assert all(name.startswith("pixel-by-pixel/") for name in file.namelist())
        file.extractall(tmp_path)
    site = tmp_path / "pixel-by-pixel"
    for name in ("index.html", "book/index.html", "book/live.html", "live/engine.js", "live/weights.js"):
        assert (site / name).is_file(), name
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        page = site / "notebooks" / f"{notebook.stem}.html"
        (link,) = {address for tag, address in Page(page).addresses if tag == "a" and address.endswith(".ipynb")}
        cells = nbformat.read(page.parent / link, as_version=4).cells
        assert [each.source for each in cells] == [each.source for each in nbformat.read(notebook, 4).cells]
    for path in site.rglob("*"):
        if path.suffix in (".html", ".js", ".css", ".md", ".ipynb", ".inv"):
            text = path.read_text(encoding="utf-8", errors="ignore")
            assert str(checkout) not in text, path
            beside = path.name == "404.html"  # which a server shows for any address, and nobody opens from disk
            assert beside or not re.search(r"(?:href|src)=\"(?:/|file:)", text), path
