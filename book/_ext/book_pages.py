"""What the pages say about themselves, and how little they load.

Every page has a description, a picture for those who share it, and its address; the site has a map, a page for those
who are lost, and a footer with version, date and revision. Chapters say where they can be run, and they install the
package of the repository and the revision that the site is built from. No page loads a script that it does not use.
The icons are cut out of the theme's font, and pictures wait until they come into view.
"""

import html
import logging
import re
import subprocess
import tomllib
from pathlib import Path

import imagesize
from book_site import repository_address
from fontTools import subset

COLAB = "https://colab.research.google.com/github"
BRANCH = "notebooks"  # where the publishing workflow puts the notebooks of the site, as they are in _sources
INSTALLS = re.compile(r"git\+https://github\.com/[\w.-]+/[\w.-]+@main")
logging.getLogger("fontTools").setLevel(logging.WARNING)
WIDE = 900  # pixels: on a phone, a wider figure would be too small to read, so it scrolls
UNUSED = ("thebe", "togglebutton", "sphinx-design", "design-tabs")


def git(folder, *arguments):
    """What git says about this copy, or None."""
    found = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else None


def site_address(folder):
    """Where GitHub Pages shows a site built from this copy, or None."""
    repository = repository_address(folder)
    if repository is None:
        return None
    owner, name = repository.split("/")[-2:]
    home = f"{owner}.github.io".lower()
    return f"https://{home}/" if name.lower() == home else f"https://{home}/{name}/"


def footer(folder):
    """Version, date and revision, and what may be done with it all."""
    project = tomllib.loads(Path(folder, "pyproject.toml").read_text(encoding="utf-8"))["project"]
    parts = [f"Version {project['version']}"]
    if revision := git(folder, "rev-parse", "HEAD"):
        short = revision[:7]
        if address := repository_address(folder):
            short = f'<a href="{address}/commit/{revision}">{short}</a>'
        parts += [git(folder, "show", "-s", "--format=%cs"), f"revision {short}"]
    licences = (
        'Code under the <a href="https://opensource.org/license/mit">MIT licence</a>, text and figures under '
        '<a href="https://creativecommons.org/licenses/by/4.0/">CC BY 4.0</a>.'
    )
    return f"<p>{', '.join(parts)}. {licences}</p>"


def describe(app, config):
    config.html_theme_options["extra_footer"] = footer(app.srcdir)
    address = site_address(app.srcdir)
    config.html_baseurl = config.ogp_site_url = address or ""
    config.ogp_image = f"{address}_static/samples/share.png" if address else ""
    config.ogp_image_alt = "Ten digits, 0 to 9, as if written by hand"
    config.notfound_urls_prefix = f"/{address.split('/', 3)[3]}" if address else "/"


def stamped(text, folder):
    """A notebook's text that installs the package from the repository and the revision that it belongs to."""
    address, revision = repository_address(folder), git(folder, "rev-parse", "HEAD")
    return INSTALLS.sub(f"git+{address}@{revision}", text) if address and revision else text


def stamp_page(app, docname, source):
    if docname.startswith("notebooks/"):
        source[0] = stamped(source[0], app.srcdir)


def polish(app, page, template, context, doctree):
    """A page's scripts and styles that it uses, its pictures' sizes, and links to other places to run it."""
    body = context.get("body", "")
    for name in ("script_files", "css_files"):
        files = context.get(name, [])
        context[name] = [file for file in files if used(f"{file} {getattr(file, 'attributes', '')}".lower(), body)]
    if not body:
        return
    folder = Path(app.srcdir, page).parent
    sources = {name: path for path, name in app.builder.images.items()}
    first = True

    def picture(match):
        nonlocal first
        link, tag = match[1] or "", match[2]
        source = html.unescape(re.search(r'src="([^"]*)"', tag)[1])
        if source.startswith("data:"):
            return match[0]
        file = Path(app.srcdir, sources[Path(source).name]) if "_images/" in source else folder / source
        attributes = "" if first else ' loading="lazy"'
        width, height = imagesize.get(file) if file.is_file() else (0, 0)
        if " width=" not in tag and width:
            attributes += f' width="{width}" height="{height}"'
        first = False
        tag = tag.removesuffix("/>").removesuffix(">").rstrip() + attributes + ">"
        if "_images/" not in source or (link and "image-reference" not in link):
            return link + tag
        wide = " wide" if width > WIDE else ""
        return f'<a class="full-size{wide}" href="{source}" title="Open at full size">{tag}</a>'

    body = re.sub(r"(<a\b[^>]*>\s*)?(<img\b[^>]*>)", picture, body)
    context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')  # as the list around it demands
    if page.startswith("notebooks/"):
        context["body"] = context["body"].replace("</h1>", f"</h1>\n{elsewhere(app, page)}", 1)


def used(file, body):
    """Whether a page with this body needs a script or style."""
    if "design" in file and "sd-" in body:
        return True
    if "mathjax" in file:
        return 'class="math' in body
    return not any(name in file for name in UNUSED)


def elsewhere(app, page):
    """Links to a chapter in Colab and as a notebook."""
    links = [f'<a href="../_sources/{page}.ipynb" download>Download the notebook</a>']
    if address := repository_address(app.srcdir):
        repository = address.removeprefix("https://github.com/")
        links.insert(0, f'<a href="{COLAB}/{repository}/blob/{BRANCH}/{page}.ipynb">Open in Colab</a>')
    return f'<p class="elsewhere">{" ".join(links)}</p>'


def finish(app, error):
    if error is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    for notebook in out.glob("_sources/notebooks/*.ipynb"):
        notebook.write_text(stamped(notebook.read_text(encoding="utf-8"), app.srcdir), encoding="utf-8")
    pages = sorted(path for path in out.rglob("*.html") if "_static" not in path.parts)
    map_site(app, out)
    drop_icon_script(out, pages)
    cut_icons(out, pages)
    for unused in out.rglob("*.map"):
        unused.unlink()


def map_site(app, out):
    """A sitemap, and a first page with a title that sends on to the landing page."""
    root = f"{app.config.root_doc}.html"
    address = site_address(app.srcdir)
    canonical = f'<link rel="canonical" href="{address}{root}">' if address else ""
    (out / "index.html").write_text(
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{app.config.html_title}</title>\n'
        f'<meta http-equiv="refresh" content="0; url={root}">{canonical}</head>\n'
        f'<body><p>The book begins <a href="{root}">here</a>.</p></body></html>\n',
        encoding="utf-8",
    )
    if address:
        places = "".join(f"<url><loc>{address}{name}.html</loc></url>\n" for name in sorted(app.env.found_docs))
        head = '<?xml version="1.0" encoding="utf-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
        (out / "sitemap.xml").write_text(f"{head}{places}</urlset>\n", encoding="utf-8")


def drop_icon_script(out, pages):
    """The theme draws its icons twice: with a font, and with a script of 1.5 MB."""
    for path in pages:
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"<script [^>]*scripts/fontawesome\.js[^>]*></script>", "", text), encoding="utf-8")
    for file in out.glob("_static/scripts/fontawesome.js*"):
        file.unlink()


def cut_icons(out, pages):
    """Leave the icons in the theme's fonts that a page or a script of the theme uses."""
    scripts = (out / "_static" / "scripts").glob("*.js")
    names = set(re.findall(r"fa-[a-z-]+", "".join(path.read_text(encoding="utf-8") for path in [*pages, *scripts])))
    style = (out / "_static" / "styles" / "pydata-sphinx-theme.css").read_text(encoding="utf-8")
    icons = re.findall(r'((?:\.fa-[\w-]+:before,?)+)\{content:"\\([0-9a-f]+)"\}', style)
    codes = [int(code, 16) for selectors, code in icons if names & set(re.findall(r"fa-[\w-]+", selectors))]
    options = subset.Options(flavor="woff2", layout_features=[])
    for path in (out / "_static" / "vendor" / "fontawesome" / "webfonts").iterdir():
        if path.suffix != ".woff2":
            path.unlink()  # for browsers of another age
            continue
        font = subset.load_font(path, options)
        cutter = subset.Subsetter(options)
        cutter.populate(unicodes=codes)
        cutter.subset(font)
        subset.save_font(font, path, options)


def setup(app):
    app.setup_extension("notfound.extension")
    if site_address(app.srcdir):
        app.setup_extension("sphinxext.opengraph")
        app.config.ogp_enable_meta_description = True
    app.add_js_file("book.js", loading_method="defer")
    app.connect("config-inited", describe, priority=101)
    app.connect("source-read", stamp_page)
    app.connect("html-page-context", polish, priority=900)
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
