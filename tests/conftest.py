"""What the tests share."""

import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from filelock import FileLock  # which torch brings along

from ar_helpers import cli

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
CHROMIUM += ["--disable-background-networking", "--disable-component-update"]

torch.set_num_threads(1)  # the models here are tiny, and pytest-xdist uses the other cores


def pytest_terminal_summary(terminalreporter):
    """How long the quick run of each chapter took."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    quick = sorted(text for report in reports for name, text in report.user_properties if name == "quick run")
    if quick:
        terminalreporter.write_sep("=", "quick runs of the chapters")
        terminalreporter.write_line("\n".join(quick))


@pytest.fixture
def clean_environment(monkeypatch, tmp_path):
    """No test sees the user's settings, data, cache or proxy."""
    for name in ("AR_QUICK", "AR_RETRAIN", "AR_DATA"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def command(capsys):
    """Run the command line here; gives (exit code, stdout, stderr)."""

    def run(*arguments):
        code = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def start_build(folder, **environment):
    """Start building the site from scratch, as `make book` does, as if it were a copy from the repository given."""
    environment = {key: os.environ[key] for key in os.environ if key != "GITHUB_REPOSITORY"} | environment
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ROOT, "--path-output", folder]
    command += ["-W", "-n", "--keep-going", "-q"]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture(scope="session")
def sites(tmp_path_factory):
    """The site as a fork publishes it, and as a copy that has no public address does. Built once for all workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folders = [folder / "fork", folder / "copy"]
    with FileLock(folder / "sites.lock"):
        if not (folder / "sites_are_built").exists():
            builds = [
                start_build(folders[0], GITHUB_REPOSITORY="reader/a-fork"),
                start_build(folders[1], GIT_DIR=str(folders[1] / "no-such-repository")),
            ]
            for build in builds:
                output, _ = build.communicate(timeout=300)
                assert build.returncode == 0, output
            (folder / "sites_are_built").touch()
    return [folder / "_build" / "html" for folder in folders]


@pytest.fixture(scope="session")
def site(sites):
    return sites[0]


@pytest.fixture(scope="session")
def address(site):
    """The site by http, from this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next((found for name in names if (found := shutil.which(name))), None)
    if executable is None:
        reason = f"no browser: none of {', '.join(names)} is installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def accessibility():
    """A function from an open page to its serious violations, as axe finds them; with or without those of contrast.

    Axe measures the contrast of each word, which takes most of its time on a page with much code.
    """
    from axe_playwright_python.sync_playwright import Axe

    settled = """Promise.allSettled(document.getAnimations()
        .filter(each => each.effect.getComputedTiming().endTime < Infinity).map(each => each.finished))"""

    def violations(page, contrast=True):
        page.evaluate(settled)  # colours on their way to their theme's have too little contrast
        rules = {"color-contrast": {"enabled": contrast}}
        options = {"resultTypes": ["violations"], "preload": False, "rules": rules}
        found = Axe().run(page, options=options).response["violations"]
        return [
            f"{violation['id']} at {' '.join(map(str, node['target']))}: {node['failureSummary']}"
            for violation in found
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"]
        ]

    return violations
