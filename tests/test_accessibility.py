"""The site for readers with a keyboard or weak eyes. In a file of its own, which a core of its own can run."""

import pytest
from test_site import CHAPTER, WIDTHS, open_page, pages

SCROLLS = "box.checkVisibility() && box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== 'visible'"
ONE_OF_EACH_KIND = ("book/index", "book/live", "book/before_you_start", "notebooks/01_pixels_as_tokens", "book/results")
ONE_OF_EACH_KIND += ("book/api",)


@pytest.mark.parametrize("width", WIDTHS)
def test_pages_are_accessible(site, browser, accessibility, width):
    problems = []
    context = browser.new_context(viewport={"width": width, "height": 900})
    for path in pages(site):
        page = open_page(context, path, problems)
        problems += [f"{path.name}, {width}: {violation}" for violation in accessibility(page, contrast=False)]
        page.close()
    context.close()
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_have_contrast(site, browser, accessibility, theme):
    problems = []
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=theme)
    for name in ONE_OF_EACH_KIND:
        page = open_page(context, site / f"{name}.html", problems)
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        problems += [f"{name}, {theme}: {violation}" for violation in accessibility(page)]
        page.close()
    context.close()
    assert not problems, "\n".join(problems)


def test_whatever_scrolls_can_be_scrolled_by_keyboard(site, browser):
    context = browser.new_context(viewport={"width": 390, "height": 900})
    page = open_page(context, site / CHAPTER, [])
    page.wait_for_timeout(300)  # sizes are observed
    for kind in ("pre", "table", "div.math"):
        wide = f"kind => [...document.querySelectorAll(kind)].find(box => {SCROLLS})"
        box = page.evaluate_handle(wide, f".bd-article {kind}").as_element()
        box.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(300)
        assert box.evaluate("box => box.scrollLeft") > 0, kind
    context.close()


def test_the_headers_buttons_show_where_the_keyboard_is(site, browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = open_page(context, site / CHAPTER, [])
    seen = set()
    for _ in range(60):  # the sidebar comes first
        page.keyboard.press("Tab")
        found = page.evaluate("""() => {
            const at = document.activeElement, style = getComputedStyle(at);
            return at.closest(".bd-header-article") &&
                [at.outerHTML.slice(0, 200), style.outlineStyle === "solid" && parseFloat(style.outlineWidth)];
        }""")
        if found:
            assert found[1] >= 2, found[0]
            seen.add(found[0])
    assert len(seen) >= 4
    context.close()
