"""Tables out of measured records, so that no measured number is typed.

    {record-table} results/NAME.json    the record's own "tables", each of heads, rows and perhaps a note
    {record-table} FOLDER/*.json        a row for each record, the columns as the directive's lines say:

        Head: key.of.the.record FORMAT

FORMAT is Python's, as in {:.3f}, or {duration}; without it, numbers get thousands separators. The key `name` links to
the chapter that builds the model, `chapter` is that chapter's number. Options: `sort: key` or `sort: -key`, and
`chapters`, which leaves out models that no chapter is named after. A field that a record lacks shows as a dash.

    {literature} TASK    the rows of book/published.json for a task, ours among them, sorted by their figures

    {ladder}    for each model that a chapter is named after, its picture book/_static/samples/NAME.png over the title
                of that chapter and the model's score
"""

import json
import re
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.addnodes import pending_xref
from sphinx.util.docutils import SphinxDirective

DASH = "\N{EN DASH}"
COLUMN = re.compile(r"(?P<head>[^:]+): (?P<key>[\w.]+)(?: (?P<form>.*\{.*\}.*))?")


def value(record, key):
    """What stands in a record under a key with dots, or None."""
    for part in key.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def show(number, form=None):
    """A number as a format says; without one, three digits of a measured number, more only where it is large."""
    if number is None or number == "":
        return DASH
    if form == "{duration}":
        return f"{number:.0f} s" if number < 90 else f"{number / 60:.1f} min"
    if form:
        return form.format(number)
    if isinstance(number, float):
        return f"{number:,.0f}" if abs(number) >= 100 else f"{number:#.3g}".rstrip(".")
    return f"{number:,}" if isinstance(number, int) and not isinstance(number, bool) else str(number)


class Records(SphinxDirective):
    """What the directives share: finding records, chapters and links to them."""

    def records(self, pattern):
        found = sorted(Path(self.env.srcdir).glob(pattern))
        for path in found:
            self.env.note_dependency(str(path))
        return [json.loads(path.read_text(encoding="utf-8")) for path in found]

    def chapter(self, record):
        """The page of the chapter that is named after a record, or None."""
        pattern = rf"notebooks/\d\d_{re.escape(record.get('name', ''))}"
        return next((page for page in self.env.found_docs if re.fullmatch(pattern, page)), None)

    def by_chapter(self, records):
        return sorted(filter(self.chapter, records), key=self.chapter)

    def linked_name(self, record):
        """The record's name, linked to its chapter if it has one."""
        name, page = nodes.literal("", record.get("name", DASH)), self.chapter(record)
        if page is None:
            return name
        link = pending_xref("", name, refdomain="std", reftype="doc", reftarget=f"/{page}", refexplicit=True)
        link["refdoc"], link["refwarn"] = self.env.docname, True
        return link


class RecordTable(Records):
    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"sort": directives.unchanged, "chapters": directives.flag}

    def run(self):
        records = self.records(self.arguments[0])
        if not records:
            return [nodes.paragraph("", "Nothing has been measured in this copy yet.")]
        if not self.content:
            (record,) = records
            return [node for part in record["tables"] for node in self.table(**part)]
        if "chapters" in self.options:
            records = self.by_chapter(records)
        if "sort" in self.options:
            key = self.options["sort"]
            sign = -1 if key.startswith("-") else 1
            records.sort(key=lambda record: sign * (value(record, key.lstrip("-")) or 0))
        columns = [COLUMN.fullmatch(line).groupdict() for line in self.content if line.strip()]
        rows = [[self.cell(record, column["key"], column["form"]) for column in columns] for record in records]
        return self.table([column["head"] for column in columns], rows)

    def cell(self, record, key, form):
        if key == "name":
            return self.linked_name(record)
        if key == "chapter":
            return str(int(self.chapter(record)[10:12]))
        return show(value(record, key), form)

    def table(self, heads, rows, note=None):
        group = nodes.tgroup("", *[nodes.colspec(colwidth=1) for _ in heads], cols=len(heads))
        rows = [[cell if isinstance(cell, nodes.Node) else nodes.Text(show(cell)) for cell in row] for row in rows]
        numeric = [
            all(re.match(rf"[{DASH}\d]", cell.astext()) for cell in column) for column in zip(*rows, strict=True)
        ]
        for kind, lines in ((nodes.thead, [map(nodes.Text, heads)]), (nodes.tbody, rows)):
            part = kind()
            for line in lines:
                row = nodes.row()
                for cell, number in zip(line, numeric, strict=True):
                    row += nodes.entry("", nodes.paragraph("", "", cell), classes=["number"] if number else [])
                part += row
            group += part
        table = nodes.table("", group, classes=["book-table"])
        return [table, nodes.paragraph("", note)] if note else [table]


class Literature(Records):
    """Published figures, typed in book/published.json, beside ours, which its entries `from` find in records."""

    required_arguments = 1

    def run(self):
        (rows,) = self.records("book/published.json")
        chosen = [row | {"figure": self.figure(row)} for row in rows if row["task"] == self.arguments[0]]
        lines = ["| Model | Protocol | Figure | Source |", "|:--|:--|--:|:--|"]
        for row in sorted((row for row in chosen if row["figure"]), key=lambda row: -float(row["figure"])):
            source = row.get("source")
            cite = f"{{cite:t}}`{source}`" if source else "this book"
            lines.append(f"| {row['model']} | {row['protocol']} | {row['figure']} | {cite} |")
        return self.parse_text_to_nodes("\n".join(lines))

    def figure(self, row):
        """The published figure as its source has it, or ours; None as long as ours has not been measured."""
        if "from" not in row:
            return row["figure"]
        path, key = row["from"]
        ours = next((value(record, key) for record in self.records(path)), None)
        return None if ours is None else f"{ours:.{2 if ours > 10 else 3}f}"


class Ladder(Records):
    def run(self):
        ladder = nodes.container(classes=["ladder"])
        for card in self.by_chapter(self.records("ar_helpers/checkpoints/*.json")):
            picture = Path(self.env.srcdir, f"book/_static/samples/{card['name']}.png")
            if not picture.exists():
                continue
            image = nodes.image("", uri=f"/book/_static/samples/{picture.name}")
            image["alt"] = f"A grid of digits drawn by {card['class']}"
            score = show(value(card, "scores.test_bits_per_pixel"), "{:.3f}")
            title = pending_xref("", nodes.inline(), refdomain="std", reftype="doc", reftarget=f"/{self.chapter(card)}")
            title.attributes |= {"refexplicit": False, "refdoc": self.env.docname, "refwarn": True}
            bits = nodes.inline("", f"{score} bits per pixel", classes=["score"])
            ladder += nodes.figure("", image, nodes.caption("", "", title, bits))
        return [ladder] if ladder.children else []


def setup(app):
    app.add_directive("record-table", RecordTable)
    app.add_directive("literature", Literature)
    app.add_directive("ladder", Ladder)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
