"""The site: it builds without a warning, no link is dead, and every page works in a browser from disk."""

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pypdfium2
import pytest
from fontTools.ttLib import TTFont

ROOT = Path(__file__).resolve().parent.parent
FORK = "https://github.com/reader/a-fork"
ADDRESS = "https://reader.github.io/a-fork/"  # of the fork's site
CHAPTER = "notebooks/05_transformer.html"
WIDTHS = (1280, 390)


def pages(site):
    """All pages but the one for lost readers, which works at its own address only."""
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts and path.name != "404.html")


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
    notebook = "blob/notebooks/notebooks/01_pixels_as_tokens.ipynb"  # on the branch that publishing makes
    assert f'<a href="https://colab.research.google.com/github/reader/a-fork/{notebook}">Open in Colab</a>' in fork
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


def test_notebooks_install_the_package_that_they_belong_to(sites):
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    if not revision:
        pytest.skip("this copy has no history")
    notebooks = sorted((sites[0] / "_sources" / "notebooks").glob("*.ipynb"))
    assert len(notebooks) == len(list((ROOT / "notebooks").glob("*.ipynb")))
    for path in notebooks:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
        assert f"git+{FORK}@{revision}" in text
        assert "OWNER" not in text
        page = (sites[0] / "notebooks" / path.name).with_suffix(".html").read_text(encoding="utf-8")
        assert f"git+{FORK}@{revision}" in re.sub("<[^>]*>", "", page)
        original = (ROOT / "notebooks" / path.name).read_text(encoding="utf-8")
        assert (sites[1] / "_sources" / "notebooks" / path.name).read_text(encoding="utf-8") == original


# What a page says about itself


def test_pages_can_be_found_and_shared(sites):
    site, copy = sites
    for path in [*(site / "book").glob("*.html"), *(site / "notebooks").glob("*.html")]:
        page, address = path.read_text(encoding="utf-8"), ADDRESS + path.relative_to(site).as_posix()
        assert page.count(f'<link rel="canonical" href="{address}"') == 1, path
        assert len(re.search('<meta name="description" content="([^"]*)"', page)[1]) > 60, path
        for property in ("title", "description", "url", "image", "image:alt"):
            assert f'<meta property="og:{property}" content="' in page, (path, property)
    picture = re.search('<meta property="og:image" content="([^"]*)"', page)[1]
    assert picture.startswith(ADDRESS)
    assert (site / picture.removeprefix(ADDRESS)).is_file()
    for words in ("canonical", "og:url"):
        assert words not in (copy / CHAPTER).read_text(encoding="utf-8"), "it has no address"


def test_the_map_names_every_page_and_the_first_page_has_a_title(sites):
    site, copy = sites
    named = re.findall("<loc>(.*?)</loc>", (site / "sitemap.xml").read_text(encoding="utf-8"))
    written = [*(site / "book").glob("*.html"), *(site / "notebooks").glob("*.html")]
    assert sorted(named) == sorted(ADDRESS + path.relative_to(site).as_posix() for path in written)
    assert not (copy / "sitemap.xml").exists()
    for each in sites:
        first = (each / "index.html").read_text(encoding="utf-8")
        assert "<title>Pixel by Pixel</title>" in first
        assert '<a href="book/index.html">' in first


def test_a_lost_reader_gets_a_page_that_works_at_any_depth(site):
    page = Page(site / "404.html")
    inside = [address for _, address in page.addresses if not urlsplit(address).scheme and not address.startswith("#")]
    assert len(inside) > 30
    assert all(address.startswith("/a-fork/") for address in inside), inside
    for address in inside:
        assert (site / urldefrag(unquote(address)).url.removeprefix("/a-fork/").split("?")[0]).is_file(), address


def test_the_footer_tells_version_date_revision_and_licences(sites):
    footer = (sites[0] / CHAPTER).read_text(encoding="utf-8").split('class="extra_footer"', 1)[1]
    assert re.search(r"Version \d+\.\d+\.\d+", footer)
    assert "opensource.org/license/mit" in footer
    assert "creativecommons.org/licenses/by/4.0" in footer
    if (ROOT / ".git").exists():
        assert re.search(rf'\d{{4}}-\d\d-\d\d, revision <a href="{FORK}/commit/\w{{40}}">\w{{7}}</a>', footer)


def test_docstrings_are_not_torn_at_a_colon(site):
    assert "Return type" not in (site / "book" / "api.html").read_text(encoding="utf-8")


def test_each_part_of_the_package_page_describes_something(site):
    page = (site / "book" / "api.html").read_text(encoding="utf-8")
    parts = re.split(r"<h2>", page.partition("<article")[2].partition("</article>")[0])[1:]
    assert len(parts) > 8
    for part in parts:
        assert re.search(r'<dt class="sig[^>]* id="ar_helpers\.', part), part[:60]


def test_the_head_of_a_column_of_numbers_stands_above_them(site):
    for table in re.findall(r'<table class="book-table.*?</table>', (site / "book" / "results.html").read_text(), re.S):
        heads, *rows = re.findall(r"<tr.*?</tr>", table, re.S)
        numeric = [["number" in cell for cell in re.findall(r"<t[hd][^>]*>", row)] for row in (heads, *rows)]
        for head, *column in zip(*numeric, strict=True):
            assert head == all(column)


# How much a page loads


def test_a_chapter_is_light(site, browser):
    for width in WIDTHS:
        page, loaded = browser.new_page(viewport={"width": width, "height": 900}), []
        page.on("request", lambda request, loaded=loaded: loaded.append(request.url))
        page.goto((site / CHAPTER).as_uri(), wait_until="load")
        page.evaluate("MathJax.startup.promise")
        page.wait_for_timeout(500)  # fonts
        files = [Path(unquote(urlsplit(url).path)) for url in loaded if url.startswith("file:")]
        before_pictures = [file for file in files if file.parent.name != "_images"]
        assert len(before_pictures) < 30
        assert sum(file.stat().st_size for file in before_pictures) < 2_500_000
        page.close()
    assert not list(site.rglob("*.map"))


def test_maths_is_loaded_where_there_is_maths(site):
    for path in pages(site):
        text = path.read_text(encoding="utf-8")
        assert ("tex-chtml.js" in text) == ('class="math' in text), path


def test_every_icon_of_a_page_is_in_the_font(site):
    style = (site / "_static" / "styles" / "pydata-sphinx-theme.css").read_text(encoding="utf-8")
    fonts = list((site / "_static" / "vendor" / "fontawesome" / "webfonts").iterdir())
    assert sum(font.stat().st_size for font in fonts) < 10_000
    drawn = {code for font in fonts for code in TTFont(font).getBestCmap()}
    used = {name for path in pages(site) for name in re.findall(r"fa-[a-z-]+", path.read_text(encoding="utf-8"))}
    icons = {}
    for selectors, code in re.findall(r'((?:\.fa-[\w-]+:before,?)+)\{content:"\\([0-9a-f]+)"\}', style):
        icons |= dict.fromkeys(re.findall(r"fa-[\w-]+", selectors), int(code, 16))
    assert len(used & set(icons)) > 10
    assert all(icons[name] in drawn for name in used & set(icons))


def test_pictures_have_sizes_and_open_at_full_size(site):
    for path in sorted((site / "notebooks").glob("*.html")):
        text = path.read_text(encoding="utf-8")
        tags = re.findall(r'<img [^>]*src="\.\./_images/[^>]*>', text)
        assert all(re.search(r' width="\d+" height="\d+"', tag) for tag in tags), path
        assert ['loading="lazy"' in tag for tag in tags] == [False] + [True] * (len(tags) - 1), path
        assert len(re.findall(r'<a class="full-size[^>]*href="\.\./_images/[^>]*><img ', text)) == len(tags), path


# In a browser


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
        "Draw with the model in your browser",
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
    assert not problems, "\n".join(problems)


def test_published_figures_stand_beside_ours_in_order(site):
    page = re.sub(r"\s+", " ", (site / "book" / "results.html").read_text(encoding="utf-8"))
    published = json.loads((ROOT / "book" / "published.json").read_text(encoding="utf-8"))
    tables = [table for table in re.findall(r"<table.*?</table>", page) if "Protocol" in table]
    assert len(tables) == len({row["task"] for row in published}) == 3
    for table in tables:
        rows = [re.findall(r"<td.*?>(.*?)</td>", row) for row in re.findall(r"<tr.*?</tr>", table)[1:]]
        figures = [float(re.sub("<.*?>", "", figure)) for _, _, figure, _ in rows]
        assert figures == sorted(figures, reverse=True)
        assert all(re.sub("<.*?>", "", cell).strip() for row in rows for cell in row)
    for row in published:
        if "from" not in row:
            assert f">{row['figure']}<" in "".join(tables), row
    card = json.loads((ROOT / "ar_helpers/checkpoints/transformer_full.json").read_text(encoding="utf-8"))
    assert f"{card['scores']['test_bits_per_pixel']:.3f}" in tables[2]


def test_search_results_show_text_without_markup(address, browser):
    page = browser.new_page()
    page.goto(f"{address}/search.html?q=entropy", wait_until="load")
    page.wait_for_function("document.querySelectorAll('#search-results li p.context').length > 8")
    for text in page.locator("#search-results li p.context").all_inner_texts():
        assert not re.search(r"\\[(\[\w]|\$|\*\*|Repository|Open in Colab", text), text
    page.close()


def test_solutions_are_folded_and_open(site, browser):
    context = browser.new_context()
    page = open_page(context, site / "notebooks" / "01_pixels_as_tokens.html", [])
    solution = page.locator("details.solution").first
    assert solution.get_attribute("open") is None
    solution.locator("summary").click()
    assert solution.locator("p, pre").first.is_visible()
    context.close()


def test_figures_are_legible_on_a_phone(site, browser):
    context = browser.new_context(viewport={"width": 390, "height": 900})
    page = open_page(context, site / CHAPTER, [])
    shares = "all => all.map(each => each.clientWidth / each.getAttribute('width'))"
    found = page.locator(".full-size img").evaluate_all(shares)
    assert len(found) > 5
    assert min(found) > 0.35  # of its size in pixels: letters of 10 points have 20 of these
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_the_site_says_how_to_cite_the_book(site):
    page = (site / "book" / "bibliography.html").read_text(encoding="utf-8")
    assert "@misc{pixelbypixel," in re.sub("<[^>]*>", "", page)


def test_the_animation_of_a_chapter_stops_and_plays_again(site, browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = open_page(context, site / "notebooks" / "06_sampling.html", [])
    moving = page.locator("picture img").first
    moving.scroll_into_view_if_needed()
    page.locator("picture").get_by_role("button", name="Stop").click()
    assert not moving.is_visible()
    page.locator("picture").get_by_role("button", name="Play").click()
    page.locator("picture").get_by_role("button", name="Stop").wait_for()
    assert moving.is_visible()
    context.close()


@pytest.mark.parametrize("name", ["drawing", "landscapes"])
def test_an_animation_stops_and_plays_again(site, browser, name):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = open_page(context, site / "book" / "index.html", [])
    picture = page.locator("picture.drawing", has=page.locator(f"img[src*='{name}.gif']"))
    moving, still = picture.locator("img"), picture.locator("canvas")
    moving.scroll_into_view_if_needed()
    assert moving.is_visible()
    assert not still.is_visible()
    picture.get_by_role("button", name="Stop").click()
    assert still.is_visible()
    assert not moving.is_visible()
    assert still.get_attribute("aria-label")
    picture.get_by_role("button", name="Play").click()
    picture.get_by_role("button", name="Stop").wait_for()  # the picture is loaded anew
    assert moving.is_visible()
    assert moving.get_attribute("src").endswith("?1"), "from its beginning"
    context.close()
    calm = browser.new_context(reduced_motion="reduce")
    page = open_page(calm, site / "book" / "index.html", [])
    picture = page.locator("picture.drawing", has=page.locator(f"img[src*='{name}.gif']"))
    assert picture.get_by_role("button", name="Play").is_visible()
    calm.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_printed_chapter_is_whole(site, browser, theme, tmp_path):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=theme)
    page = open_page(context, site / CHAPTER, [])
    page.wait_for_function("[...document.images].every(picture => picture.complete)")
    code = page.locator(".bd-article pre").all_text_contents()
    pictures = page.locator(".bd-article figure img").count()
    page.pdf(path=tmp_path / "chapter.pdf", format="A5", print_background=True)
    context.close()
    printed = pypdfium2.PdfDocument(tmp_path / "chapter.pdf")
    text, drawn = "", 0
    for sheet in printed:
        words, width = sheet.get_textpage(), sheet.get_width()
        for i in range(words.count_chars()):
            left, _, right, _ = words.get_charbox(i)
            assert 0 <= left <= right <= width, "a line runs off the sheet"
        text += words.get_text_range()
        drawn += sum(1 for _ in sheet.get_objects(filter=[pypdfium2.raw.FPDF_PAGEOBJ_IMAGE]))
    assert text.startswith("5. A pixel transformer")
    bare = re.sub(r"\W", "", text)
    missing = [line for block in code for line in block.splitlines() if re.sub(r"\W", "", line) not in bare]
    assert not missing, missing
    assert drawn >= pictures
    corner = printed[0].render(scale=0.5).to_pil().convert("L").getpixel((2, 2))
    assert corner > 250, "paper is white"
