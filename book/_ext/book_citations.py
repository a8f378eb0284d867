"""Citations and glossary terms out of plain text, so that chapters read well in Jupyter and Colab too.

In notebooks, "Bengio et al. (2003)" and "(Bengio et al., 2003; Shannon, 1948)" become citations if the bibliography
has them, and a term of the glossary in italics becomes a link to the glossary. Papers by the same authors from the same
year are told apart as 2016a and 2016b, in the order of the bibliography.
"""

import json
import re
from collections import defaultdict
from pathlib import Path

from pybtex.database import parse_file


def citation_keys(bibliography):
    """The keys of a .bib file by authors and year, as (authors, year): ("Smith and Topin", "2019")."""
    keys = defaultdict(list)
    for key, entry in parse_file(str(bibliography)).entries.items():
        persons = entry.persons.get("author") or entry.persons.get("editor")
        names = [" ".join([*person.prelast_names, *person.last_names]) for person in persons]
        authors = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
        keys[authors, entry.fields["year"]].append(key)
    found = {}
    for (authors, year), same in keys.items():
        letters = [""] if len(same) == 1 else "abcdefgh"
        found |= {(authors, year + letter): key for letter, key in zip(letters, same, strict=False)}
    return found


def glossary_terms(page):
    """The terms that a page's glossary explains."""
    inside = re.search(r"^:::\{glossary\}$(.*?)^:::$", page, re.MULTILINE | re.DOTALL)[1]
    return set(re.findall(r"^(?=\S)(.+)$", inside, re.MULTILINE))


def linked(text, keys, terms):
    """Markdown with its citations and terms as roles."""
    by_label = {f"{authors} ({year})": key for (authors, year), key in keys.items()}
    in_brackets = {f"{authors}, {year}": key for (authors, year), key in keys.items()}

    def words(labels):  # the longest first; a line may end between two words
        ordered = sorted(labels, key=len, reverse=True)
        return "|".join(re.escape(label).replace(r"\ ", r"\s+") for label in ordered)

    def brackets(match):
        return f"{{cite:p}}`{','.join(in_brackets[' '.join(part.split())] for part in match[1].split(';'))}`"

    one = rf"(?:{words(in_brackets)})"
    text = re.sub(rf"\(({one}(?:;\s+{one})*)\)", brackets, text)
    text = re.sub(words(by_label), lambda match: f"{{cite:t}}`{by_label[' '.join(match[0].split())]}`", text)
    italics = rf"(?<!\*)\*({words(terms)})\*(?!\*)"
    return re.sub(italics, lambda match: f"{{term}}`{' '.join(match[1].split())}`", text)


def link_notebook(app, docname, source):
    if not docname.startswith("notebooks/"):
        return
    folder = Path(app.srcdir, "book")
    keys = citation_keys(folder / "references.bib")
    terms = glossary_terms((folder / "glossary.md").read_text(encoding="utf-8"))
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = linked("".join(cell["source"]), keys, terms)
    source[0] = json.dumps(notebook)


def setup(app):
    app.connect("source-read", link_notebook)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
