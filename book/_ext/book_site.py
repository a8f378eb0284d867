"""Makes the site self-contained and its buttons point to whichever repository it is built from."""

import importlib
import os
import re
import subprocess
import sys
import typing
from importlib.metadata import files
from pathlib import Path
from shutil import copyfile

from docutils import nodes
from sphinx.ext.autodoc.mock import _MockObject
from sphinx.util import inspect
from sphinx.util.docutils import SphinxDirective

STAND_IN = "OWNER"
BUTTONS = ("use_repository_button", "use_issues_button", "use_edit_page_button")
# What a page loads of the MathJax that the package sphinx-mathjax-offline carries.
MATHJAX = re.compile(r"mathjax/(tex-chtml\.js|input/tex/extensions/.*|output/chtml/fonts/woff-v2/.*)$")


def repository_address(folder):
    """The https address of this copy's GitHub repository, or None where there is none."""
    if name := os.environ.get("GITHUB_REPOSITORY"):
        return f"https://github.com/{name}"
    remote = subprocess.run(["git", "remote", "get-url", "origin"], cwd=folder, capture_output=True, text=True)
    match = re.fullmatch(r"(?:https://|ssh://git@|git@)github\.com[/:]([\w.-]+)/([\w.-]+?)(\.git)?/?\s*", remote.stdout)
    if remote.returncode or match is None or match[1] == STAND_IN:
        return None
    return f"https://github.com/{match[1]}/{match[2]}"


def set_address(app, config):
    """Buttons for the repository that the site is built from; none where there is no such repository."""
    sys.path.insert(0, str(app.srcdir))  # autodoc reads the package from here, installed or not
    address = repository_address(app.srcdir)
    options = config.html_theme_options
    options["logo"] = {"text": config.html_title, "alt_text": ""}
    if address is None:
        options.pop("repository_url", None)
    else:
        options |= {"repository_url": address, "repository_branch": "main"} | dict.fromkeys(BUTTONS, True)


class Clone(SphinxDirective):
    """The command that fetches the repository, or a sentence where the site does not know its address."""

    def run(self):
        address = repository_address(self.env.srcdir)
        if address is None:
            return [nodes.paragraph("", "Clone the repository with git, or download it as a ZIP file and unpack it.")]
        commands = f"git clone {address}\ncd {address.rsplit('/', 1)[1]}"
        return [nodes.literal_block(commands, commands, language="console")]


def copy_mathjax(app, error):
    if error is not None or app.builder.format != "html":
        return
    for file in files("sphinx-mathjax-offline"):
        if match := MATHJAX.search(file.as_posix()):
            target = Path(app.outdir, "_static", "mathjax", match[1])
            target.parent.mkdir(parents=True, exist_ok=True)
            copyfile(file.locate(), target)


def drop_thebe_settings(app, doctree, page):
    for node in list(doctree.findall(nodes.raw)):
        if "text/x-thebe-config" in node.astext():
            node.parent.remove(node)


def skip_private(app, what, name, obj, skip, options):
    """Of the package's modules, the API page shows what `import ar_helpers as ar` gives, and what the page names."""
    named = options.members if isinstance(options.members, list) else []
    private = what == "module" and name not in [*importlib.import_module("ar_helpers").__all__, *named]
    return True if private or str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def class_arguments(app, what, name, obj, options, signature, returns):
    """The arguments of a class whose base class is only a stand-in, which hides them."""
    if what == "class" and (signature or "").startswith("(*args"):
        arguments = inspect.signature(obj.__init__, bound_method=True)
        return inspect.stringify_signature(arguments, unqualified_typehints=True), None
    return None


def setup(app):
    # The site is built without torch; autodoc's stand-ins for it cannot do `Tensor | None` by themselves.
    _MockObject.__or__ = lambda self, other: typing.Union[self, other]  # noqa: UP007
    _MockObject.__ror__ = lambda self, other: typing.Union[other, self]  # noqa: UP007
    app.add_directive("clone", Clone)
    # Excerpts below search results are fetched, which a browser refuses to do for files on disk.
    app.add_js_file(None, body='if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;')
    app.connect("config-inited", set_address, priority=100)
    app.connect("autodoc-skip-member", skip_private)
    app.connect("autodoc-process-signature", class_arguments)
    app.connect("doctree-resolved", drop_thebe_settings, priority=900)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
