"""Numbered figures, tables, equations and exercises out of plain Markdown.

Chapters are read in Jupyter and Colab too, so they are written without directives, and numbers stand in the text:

- a paragraph that starts with `**Figure 1.2.**` right after a code cell becomes the caption of that cell's picture;
- a paragraph that starts with `**Table 1.2.**` is a table's caption;
- `\\tag{1.2}` in displayed maths numbers an equation;
- a heading `Exercise 1.2 ...` becomes a box, and a heading `Solution` below it a fold;
- `Figure 1.2`, `Table 1.2`, `equation (1.2)`, `exercise 1.2` and `chapter 1` in running text become links.

A mention of a figure, table, equation or exercise that does not exist is a warning, which fails the build.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform

CAPTION = re.compile(r"(Figure|Table) (\d+)\.(\d+)\.$")
EXERCISE = re.compile(r"Exercise (\d+)\.(\d+)\b")
TAG = re.compile(r"\\tag\{(\d+)\.(\d+)\}")
MENTION = re.compile(r"\b(figure|table|exercise|equation) \(?(\d+)\.(\d+)\b\)?|\bchapter (\d+)\b", re.IGNORECASE)
NO_LINKS = (nodes.Titular, nodes.FixedTextElement, nodes.literal, nodes.reference, nodes.raw, nodes.math, pending_xref)


class solution(nodes.General, nodes.Element):
    """A folded solution."""


def open_solution(self, node):
    self.body.append(self.starttag(node, "details", CLASS="solution"))
    self.body.append("<summary>Solution</summary>\n")


def close_solution(self, node):
    self.body.append("</details>\n")


class Numbers(SphinxTransform):
    default_priority = 300

    def apply(self):
        for section in list(self.document.findall(nodes.section)):
            title = section[0].astext()
            if match := EXERCISE.match(title):
                self.box(section, match)
        for paragraph in list(self.document.findall(nodes.paragraph)):
            first = next((child for child in paragraph.children if child.astext()), None)  # after empty text
            if isinstance(first, nodes.strong) and (match := CAPTION.match(first.astext())):
                self.caption(paragraph, match)
        for math in self.document.findall(nodes.math_block):
            if match := TAG.search(math.astext()):
                self.target(math, "equation", match)
                content = rf"\[{math.astext()}\]"  # as it stands: Sphinx would wrap several lines, which a tag forbids
                math["nowrap"] = True
                math.children = [nodes.Text(content)]
        self.link_mentions()

    def target(self, node, kind, match):
        name = f"{kind}-{match[match.lastindex - 1]}-{match[match.lastindex]}".lower()
        node["names"].append(name)
        self.document.note_explicit_target(node)

    def box(self, section, match):
        """An exercise's section as a box, with what stands under its heading Solution folded."""
        box = nodes.admonition("", classes=["exercise"])
        self.target(box, "exercise", match)
        for child in section.children:
            if isinstance(child, nodes.section) and child[0].astext().startswith("Solution"):
                box += solution("", *child.children[1:])
            else:
                box += child
        section.replace_self(box)

    def caption(self, paragraph, match):
        """The picture of the code cell before this paragraph as a figure with this caption; a table's caption stays."""
        place = paragraph.parent.index(paragraph)
        cell = paragraph.parent[place - 1] if place else nodes.container()
        pictures = [part for part in cell.findall(nodes.container) if part.get("nb_element") == "mime_bundle"]
        if match[1] == "Table" or not pictures:
            paragraph["classes"].append(f"{match[1].lower()}-caption")
            self.target(paragraph, match[1], match)
            return
        figure = nodes.figure()
        pictures[-1].replace_self(figure)
        paragraph.parent.remove(paragraph)
        figure += [pictures[-1], nodes.caption("", "", *paragraph.children)]
        self.target(figure, match[1], match)

    def link_mentions(self):
        pages = [name for name in self.env.found_docs if re.match(r"notebooks/\d\d_", name)]
        chapters = {int(Path(name).name[:2]): name for name in pages}
        for text in list(self.document.findall(nodes.Text)):
            if any(isinstance(node, NO_LINKS) for node in ancestors(text)):
                continue
            pieces, end = [], 0
            for match in MENTION.finditer(text):
                if match[4]:
                    name = chapters.get(int(match[4]))
                    if name is None or name == self.env.docname:
                        continue
                    target = {"reftype": "doc", "reftarget": f"/{name}"}
                else:
                    name = f"{match[1]}-{match[2]}-{match[3]}".lower()
                    if isinstance(text.parent, nodes.strong) and CAPTION.match(text.parent.astext()):
                        continue
                    target = {"reftype": "ref", "reftarget": name}
                link = pending_xref("", nodes.inline("", match[0]), refdomain="std", refexplicit=True, refwarn=True)
                link.update_all_atts(target | {"refdoc": self.env.docname})
                place = next((node for node in ancestors(text) if node.line), self.document)
                link.source, link.line = place.source, place.line
                pieces += [nodes.Text(text[end : match.start()]), link]
                end = match.end()
            if pieces:
                text.parent.replace(text, [*pieces, nodes.Text(text[end:])])


def ancestors(node):
    while (node := node.parent) is not None:
        yield node


def setup(app):
    app.add_node(solution, html=(open_solution, close_solution))
    app.add_transform(Numbers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
