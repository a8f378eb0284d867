"""The site: it builds without a warning, no link is dead, and every page works in a browser from disk."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORK = "https://github.com/reader/a-fork"
WIDTHS = (1280, 390)
ONE_OF_EACH_KIND = ("book/index", "book/live", "book/before_you_start", "notebooks/01_pixels_as_tokens", "book/results")
ONE_OF_EACH_KIND += ("book/api",)


def pages(site):
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


class Page(HTMLParser):
    """A page's anchors, and the addresses it refers to: (tag, address)."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.addresses = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes[key] for key in ("id", "name") if attributes.get(key)}
        self.addresses += [(tag, attributes[key]) for key in ("href", "src", "srcset") if attributes.get(key)]


def test_internal_links_and_fragments_exist(site):
    read = {path: Page(path) for path in pages(site)}
    broken = []
    for path, page in read.items():
        for _, address in page.addresses:
            if urlsplit(address).scheme or address.startswith("//"):
                continue
            file, fragment = urldefrag(unquote(address))
            target = (path.parent / file.split("?")[0]).resolve() if file else path
            if not target.is_file():
                broken.append(f"{path.relative_to(site)}: no file {address}")
            elif fragment and target in read and fragment not in read[target].anchors:
                broken.append(f"{path.relative_to(site)}: no anchor {address}")
    assert not broken, "\n".join(broken)


def test_nothing_is_loaded_from_elsewhere(site):
    loaded = [
        f"{path.relative_to(site)}: {address}"
        for path in pages(site)
        for tag, address in Page(path).addresses
        if tag not in ("a", "link") and urlsplit(address).scheme not in ("", "data")
    ]
    assert not loaded


def test_buttons_follow_the_repository_that_the_site_is_built_from(sites):
    fork, copy = ((site / "notebooks" / "01_pixels_as_tokens.html").read_text(encoding="utf-8") for site in sites)
    notebook = "blob/main/notebooks/01_pixels_as_tokens.ipynb"
    assert f"https://colab.research.google.com/github/reader/a-fork/{notebook}" in fork
    assert "mybinder" not in fork  # its 2 GB are too little for chapter 2
    assert f"{FORK}/edit/main/notebooks/01_pixels_as_tokens.ipynb" in fork
    assert f"{FORK}/issues/new" in fork
    for words in ("colab.research", "issues/new", "/edit/"):
        assert words not in copy
    assert f"git clone {FORK}" in (sites[0] / "book" / "running.html").read_text(encoding="utf-8").replace(
        "</span>", ""
    )


def test_nothing_links_to_the_stand_in_address(sites):
    for site in sites:
        for path in pages(site):
            for _, address in Page(path).addresses:
                assert "OWNER" not in address, path
                assert "executablebooks/jupyter-book" not in address, path


def test_chapters_have_their_figures_numbered_and_described(site):
    for path in sorted((site / "notebooks").glob("*.html")):
        page = path.read_text(encoding="utf-8")
        assert "<figure" in page, path
        for picture in page.split("<img ")[1:]:
            alternative = picture.split(">")[0].partition('alt="')[2].split('"')[0]
            assert not alternative.startswith(("../_images", "_images")), f"{path.name}: a picture has no description"


def open_page(context, path, problems, query=""):
    """Open a page from disk; append to problems what goes wrong with it."""
    page = context.new_page()
    page.on("pageerror", lambda error: problems.append(f"{path.name}: {error}"))
    page.on("console", lambda message: message.type == "error" and problems.append(f"{path.name}: {message.text}"))

    def local_only(route):
        if route.request.url.startswith(("file:", "data:", "blob:")):
            return route.continue_()
        problems.append(f"{path.name} asks for {route.request.url}")
        return route.abort()

    page.route("**/*", local_only)
    page.goto(path.as_uri() + query, wait_until="load")
    if path.parent.name == "html":  # the site's index.html sends on to the landing page
        page.wait_for_url(lambda url: "/html/index" not in url)
    page.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise : null")
    return page


def test_every_page_in_a_browser(site, browser):
    problems = []
    context = browser.new_context()
    for path in pages(site):
        page = open_page(context, path, problems)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            lefts = "[...document.querySelectorAll('mjx-container')].map(box => box.getBoundingClientRect().left)"
            if any(left < 0 for left in page.evaluate(lefts)):
                problems.append(f"{path.name}: an equation is cut off at a width of {width}")
            if page.evaluate("document.documentElement.scrollWidth > window.innerWidth + 1"):
                problems.append(f"{path.name} scrolls sideways at a width of {width}")
        source = path.read_text(encoding="utf-8")
        if 'class="math' in source and page.locator("mjx-container").count() == 0:
            problems.append(f"{path.name}: its maths is not set")
        if page.locator("mjx-merror").count():
            problems.append(f"{path.name}: an error in its maths")
        page.close()
    context.close()
    assert not problems, "\n".join(problems)


def test_the_landing_page_fits_one_screen(site, browser):
    page = open_page(browser.new_context(viewport={"width": 1280, "height": 900}), site / "index.html", [])
    for text in (
        "Build networks",
        "Start with chapter 1",
        "A one-hot MLP",
        "A pixel transformer",
        "You begin, it finishes",
    ):
        box = page.locator(".bd-article").get_by_text(text).first.bounding_box()
        assert box["y"] + box["height"] <= 900, text
    page.context.close()


def test_search_works_from_disk(site, browser):
    problems = []
    context = browser.new_context()
    page = open_page(context, site / "search.html", problems, "?q=quantize")
    page.wait_for_selector("#search-results li a")
    assert "glossary" in page.locator("#search-results").inner_html()
    context.close()
    assert not problems


def test_solutions_are_folded_and_open(site, browser):
    context = browser.new_context()
    page = open_page(context, site / "notebooks" / "01_pixels_as_tokens.html", [])
    solution = page.locator("details.solution").first
    assert solution.get_attribute("open") is None
    solution.locator("summary").click()
    assert solution.locator("p, pre").first.is_visible()
    context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_are_accessible(site, browser, accessibility, theme):
    problems = []
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=theme)
    for name in ONE_OF_EACH_KIND:
        page = open_page(context, site / f"{name}.html", problems)
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        problems += [f"{name}, {theme}: {violation}" for violation in accessibility(page)]
        page.close()
    context.close()
    assert not problems, "\n".join(problems)
