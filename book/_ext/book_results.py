"""Tables out of the cards of the shipped models, so that no measured number is typed.

    {model-table}      every card in ar_helpers/checkpoints: parameters, scores, time
    {training-times}   how long training took, for those that a chapter builds
    {ladder}           for each of those with a picture book/_static/samples/NAME.png, the picture over its score
    {recipe-table}     how each of them was trained
    {stem-table}       short runs of the transformer with and without its stem, out of results/stem.json
    {knob-table}       what temperature, top-k and top-p do to samples, out of results/knobs.json
    {speed-table} NAME how many times faster, out of results/data.json, training.json or generation.json
    {start-up-table}   where the seconds of drawing ten digits go, out of results/start_up.json

A field that a card lacks shows as a dash, and no card at all as a sentence.
"""

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.util.docutils import SphinxDirective

DASH = "\N{EN DASH}"


def load(folder):
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(folder).glob("*.json"))]


def value(card, *keys):
    for key in keys:
        card = card.get(key) if isinstance(card, dict) else None
    return card


def show(number, form="{:,}"):
    if number is None or number == "":
        return DASH
    return form.format(number) if isinstance(number, int | float) and not isinstance(number, bool) else str(number)


def seconds(card):
    return value(card, "history", "seconds")


def duration(time):
    if time is None:
        return DASH
    return f"{time:.0f} s" if time < 90 else f"{time / 60:.1f} min"


class Table(SphinxDirective):
    """A table whose first column may link to a chapter; subclasses say what stands in it."""

    empty = "No trained model is stored in this copy yet."

    def run(self):
        folder = Path(self.env.srcdir, "ar_helpers/checkpoints")
        self.env.note_dependency(str(folder))
        for path in folder.glob("*.json"):
            self.env.note_dependency(str(path))
        entries = load(folder) if folder.is_dir() else []
        return self.build(entries) if entries else [nodes.paragraph("", self.empty)]

    def table(self, heads, rows):
        group = nodes.tgroup("", *[nodes.colspec(colwidth=1) for _ in heads], cols=len(heads))
        for kind, lines in ((nodes.thead, [heads]), (nodes.tbody, rows)):
            part = kind()
            for line in lines:
                row = nodes.row()
                for cell in line:
                    content = cell if isinstance(cell, nodes.Node) else nodes.Text(str(cell))
                    numeric = re.match(rf"[{DASH}\d]", str(cell)) and kind is nodes.tbody
                    row += nodes.entry("", nodes.paragraph("", "", content), classes=["number"] if numeric else [])
                part += row
            group += part
        return nodes.table("", group, classes=["book-table"])

    def model(self, card, key="class"):
        """The model's class or the name that it is stored by, linked to the chapter that builds it."""
        name = nodes.literal("", card.get(key, DASH))
        page = self.chapter(card)
        if page is None:
            return name
        link = pending_xref("", name, refdomain="std", reftype="doc", reftarget=f"/{page}", refexplicit=True)
        link["refdoc"], link["refwarn"] = self.env.docname, True
        return link

    def chapter(self, card):
        """The page of the chapter that builds the model of this card, or None."""
        pattern = rf"notebooks/\d\d_{re.escape(card.get('name', ''))}"
        return next((page for page in self.env.found_docs if re.fullmatch(pattern, page)), None)

    def by_chapter(self, cards):
        pairs = [(self.chapter(card), card) for card in cards]
        return sorted((pair for pair in pairs if pair[0]), key=lambda pair: pair[0])


class ModelTable(Table):
    def build(self, cards):
        heads = ["Model", "Parameters", "Levels", "Test", "Training", "One image"]
        rows = [
            [
                self.model(card, "name"),
                show(card.get("parameters")),
                show(value(card, "config", "num_levels")),
                show(value(card, "scores", "test_bits_per_pixel"), "{:.3f}"),
                duration(seconds(card)),
                show(card.get("milliseconds_per_image"), "{:,.0f}\N{NO-BREAK SPACE}ms"),
            ]
            for card in sorted(cards, key=lambda card: -(value(card, "scores", "test_bits_per_pixel") or 99))
        ]
        return [self.table(heads, rows)]


class TrainingTimes(Table):
    def build(self, cards):
        rows = [
            [f"{int(page[10:12])}", self.model(card), duration(seconds(card)), show(card.get("hardware"))]
            for page, card in self.by_chapter(cards)
        ]
        heads = ["Chapter", "Model", "Training", "Hardware"]
        return [self.table(heads, rows) if rows else nodes.paragraph("", self.empty)]


class Ladder(Table):
    def run(self):
        return super().run() if Path(self.env.srcdir, "book/_static/samples").is_dir() else []

    def build(self, cards):
        ladder = nodes.container(classes=["ladder"])
        for _, card in self.by_chapter(cards):
            picture = Path(self.env.srcdir, f"book/_static/samples/{card.get('name')}.png")
            if not picture.exists():
                continue
            score = show(value(card, "scores", "test_bits_per_pixel"), "{:.3f}")
            image = nodes.image("", uri=f"/book/_static/samples/{picture.name}")
            image["alt"] = f"A grid of digits drawn by {card.get('class')}"
            caption = nodes.caption("", "", self.model(card, "name"), nodes.Text(f": {score} bits per pixel"))
            ladder += nodes.figure("", image, caption)
        return [ladder] if ladder.children else []


class RecipeTable(Table):
    def build(self, cards):
        settings = {"Steps": "steps", "Batch": "batch_size", "Rate": "learning_rate", "Warm-up": "warmup"}
        settings |= {"Muon": "muon", "Clip": "clip", "Decay": "weight_decay"}
        rows = [
            [card.get("name", DASH)]
            + [show(value(card, "recipe", key), "{:,g}") for key in settings.values()]
            + [show(value(card, "recipe", "data", "keep"), "{:g}"), show(card.get("dtype")), show(card.get("hardware"))]
            for card in cards
        ]
        return [self.table(["Model", *settings, "Dull kept", "Trained in", "Hardware"], rows)]


class Record(Table):
    """A table out of one file that a benchmark wrote, results/NAME.json."""

    def run(self):
        path = Path(self.env.srcdir, f"results/{self.file}.json")
        self.env.note_dependency(str(path))
        return self.build(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


class StemTable(Record):
    file = "stem"

    def build(self, record):
        rows = [
            [
                "with a stem" if run["stem"] else "plain",
                "Muon and AdamW" if run["muon"] else "AdamW",
                show(run["parameters"]),
                show(run["history"]["val_bits"][-1], "{:.3f}"),
                duration(run["history"]["seconds"]),
            ]
            for run in record["runs"]
        ]
        recipe = record["recipe"]
        text = f"{recipe['steps']:,} steps of {recipe['batch_size']} images each, on {record['hardware']}."
        return [
            self.table(["Transformer", "Optimizer", "Parameters", "Validation", "Time"], rows),
            nodes.paragraph("", text),
        ]


class KnobTable(Record):
    file = "knobs"

    def build(self, record):
        def row(words, measured, count):
            share = measured["recognized"] / count
            error = (share * (1 - share) / count) ** 0.5
            cells = [words, f"{share:.1%}", f"{error:.1%}", f"{measured['coverage']:.1%}"]
            return [*cells, f"{measured['blank']}" if "blank" in measured else DASH]

        def words(measured):
            knobs = measured["knobs"].items()
            return ", ".join(f"{name.replace('_', '-')} {setting:g}" for name, setting in knobs) or "no knob"

        count, again = record["count"], record["again"]
        rows = [row("written digits", record["real"], count)]
        rows += [row(words(measured), measured, count) for measured in record["settings"]]
        second = [row(words(measured), measured, again["count"]) for measured in again["settings"]]
        heads = ["Setting", "Read as asked for", "Standard error", "Coverage", "Blank"]
        first = f"{count:,} drawings for each setting, as many of each digit, all from the same seed."
        more = f"The setting read most often, and no knob, again: {again['count']:,} drawings each from another seed."
        return [
            self.table(heads, rows),
            nodes.paragraph("", first),
            self.table(heads, second),
            nodes.paragraph("", more),
        ]


class SpeedTable(Record):
    """The ratios of one benchmark, then its other tables; the argument names the file."""

    required_arguments = 1

    def run(self):
        self.file = self.arguments[0]
        return super().run()

    def build(self, record):
        rows = [
            [row["what"], f"{self.digits(row['ratio'])} times"]
            + [f"{self.digits(row[key])} {row['unit']}" for key in ("ours", "plain")]
            for row in record["ratios"]
        ]
        tables = [self.table(["Measured", "Better by", "Ours", "Plain"], rows)]
        for table in record["tables"]:
            rows = [[self.digits(cell) for cell in row] for row in table["rows"]]
            tables.append(self.table(table["heads"], rows))
        versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
        return [*tables, nodes.paragraph("", f"On {record['hardware']}, {record['dtype']}; {versions}.")]

    @staticmethod
    def digits(cell):
        """A measured number with three digits, more only where it is large; words and counts as they are."""
        if not isinstance(cell, float):
            return f"{cell:,}" if isinstance(cell, int) else cell
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:#.3g}".rstrip(".")


class StartUpTable(Record):
    file = "start_up"

    def build(self, record):
        whole = record["command_seconds"]
        parts = [*record["parts"].items(), ("all of it", whole)]
        rows = [[name, f"{time:.2f} s", f"{time / whole:.0%}"] for name, time in parts]
        first = f"The first pixel of each digit is there after {record['first_pixel_seconds']:.1f} s."
        return [
            self.table(["Part", "Time", "Share"], rows),
            nodes.paragraph("", f"{first} Median of {record['repeats']} runs, on {record['hardware']}."),
        ]


def setup(app):
    app.add_directive("model-table", ModelTable)
    app.add_directive("training-times", TrainingTimes)
    app.add_directive("ladder", Ladder)
    app.add_directive("recipe-table", RecipeTable)
    app.add_directive("stem-table", StemTable)
    app.add_directive("knob-table", KnobTable)
    app.add_directive("speed-table", SpeedTable)
    app.add_directive("start-up-table", StartUpTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
