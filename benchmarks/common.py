"""What the benchmarks share: how they are called, how they measure, what they write down and how they print it."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from torch.utils.data import Dataset

import ar_helpers as ar
from ar_helpers.cards import card_names, hardware
from ar_helpers.data import full_or_quick
from ar_helpers.files import read_tensors, write_tensors
from ar_helpers.recipes import RECIPES

ROOT = Path(__file__).resolve().parent.parent
QUICK = "A quick run: it shows that the benchmark works, its figures mean nothing, and nothing was written."


def parse(description: str, work: str | None = None, **more: dict) -> argparse.Namespace:
    """The command line of a benchmark that knows --quick, which sets AR_QUICK: built-in digits, runs of a few steps.

    Args:
        description: what it does.
        work: the name of a folder in .work for what an interrupted call leaves, which --work moves elsewhere; a quick
            run keeps to a folder inside it. None: the benchmark leaves nothing.
        more: further options, by name, as `add_argument` takes them.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only try that it runs: tiny sizes, nothing is written")
    if work is not None:
        parser.add_argument("--work", type=Path, help="a folder for what an interrupted call leaves")
    for name, arguments in more.items():
        parser.add_argument(f"--{name}", **arguments)
    options = parser.parse_args()
    if options.quick:
        os.environ["AR_QUICK"] = "1"
    if work is not None:
        options.work = (options.work or ROOT / ".work" / work) / full_or_quick("", "quick")
        options.work.mkdir(parents=True, exist_ok=True)
    return options


def need_mnist(name: str) -> None:
    """Leave unless the images loaded, by the name of their set, are MNIST's or the run is a quick one."""
    if name != "mnist" and not os.environ.get("AR_QUICK"):
        raise SystemExit("error: this needs MNIST")


def note(text: str) -> None:
    """Say what goes on, beside the output: a benchmark takes minutes."""
    print(text, file=sys.stderr, flush=True)


def write(path: Path, record: object) -> None:
    """Write a record aside, then rename it into place, so that no half-written file is ever there."""
    path.parent.mkdir(exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)


def machine(device: str = "cpu") -> dict:
    """What every record begins with: the hardware in words, and the versions."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"hardware": hardware(device), "versions": versions}


def seconds(function: Callable[[], object], repeats: int = 1) -> float:
    """How long a call takes: the shortest of `repeats`, because whatever disturbs a measurement makes it longer."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def trial(path: Path, about: dict, build: Callable[[], torch.nn.Module], dataset: Dataset, config, val, checks) -> dict:
    """Train a model and score it on `val`, or read what an earlier call found and kept in a file.

    Args:
        path: the file, ending in .json; beside it lies the state of an interrupted run.
        about: what tells the run from others; part of the result.
        build: makes the model, with its first weights, on its device.
        dataset, config: as `ar.fit` takes them.
        val: images for the score at the end.
        checks: images to validate on ten times during the run, or None.
    """
    if path.exists():
        return json.loads(path.read_text())
    note(", ".join(map(str, about.values())))
    model, state = build(), path.with_suffix(".safetensors")
    history = ar.fit(model, dataset, config, checks, resume=state)
    bits = ar.bits_per_pixel(model, val)
    found = about | {"parameters": count_parameters(model), "val_bits_per_pixel": bits, "history": asdict(history)}
    write(path, found)
    state.unlink()
    return found


def trained(path: Path, about: dict, build: Callable[[], torch.nn.Module], dataset: Dataset, config, val) -> tuple:
    """A model in evaluation mode, and what `trial` found: trained here, or by an earlier call, which kept its weights.

    Args:
        path: of its files, without an ending.
        about, build, dataset, config, val: as `trial` takes them.
    """
    model, weights, result = build(), Path(f"{path}.weights.safetensors"), Path(f"{path}.json")
    if not weights.exists():
        result.unlink(missing_ok=True)  # a call that ended between the two files leaves a result without its weights
    found = trial(result, about, lambda: model, dataset, config, val, None)
    if not weights.exists():
        write_tensors(weights, {key: each.contiguous().cpu() for key, each in model.state_dict().items()}, {})
    model.load_state_dict(read_tensors(weights)[0])
    return model.eval(), found


def drawn(path: Path, model: torch.nn.Module, labels: torch.Tensor, seed: int, prompt=None) -> torch.Tensor:
    """Drawings (B, N) of labels (B,), a hundred at a time, made here or by an earlier call, which kept them in a file.

    The same seed draws with the same random numbers, which makes models easier to compare.
    """
    if not path.exists():
        parts = [ar.generate(model, part, prompt=prompt, seed=seed + number).tokens
                 for number, part in enumerate(labels.split(100))]  # fmt: skip
        write_tensors(path, {"tokens": torch.cat(parts).to(torch.int16)}, {})
    return read_tensors(path)[0]["tokens"].long()


def digit_models() -> list[str]:
    """The names of the shipped models that draw digits; those of other images cannot be compared with them."""
    return [name for name in card_names() if RECIPES[name].images == "mnist"]


def count_parameters(model: torch.nn.Module) -> int:
    """How many numbers a model learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def where(record: dict) -> str:
    """What a record was measured on, as a sentence."""
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    parts = [record["hardware"], *([record["dtype"]] if "dtype" in record else []), versions]
    return f"On {'; '.join(parts)}."


def ratio(what: str, unit: str, plain: float, ours: float) -> dict:
    """How many times better ours is, in a unit where less is better, or more if it is something per second."""
    times = ours / plain if unit.endswith("per second") else plain / ours
    return {"what": what, "unit": unit, "plain": plain, "ours": ours, "ratio": times}


def short(number: float) -> str:
    """Three digits of a number, more only where it is large."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def print_table(heads: Iterable[str], rows: Iterable[Iterable[object]], note: str = "") -> None:
    """Print a table: the first column to the left, the others to the right; and the note below it."""
    lines = [[short(cell) if isinstance(cell, float) else str(cell) for cell in row] for row in [heads, *rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        first, *rest = zip(line, widths, strict=True)
        print("  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]))
    if note:
        print(note)


def report(name: str, record: dict, quick: bool) -> None:
    """Print a record's ratios, then its other tables, and keep it in results/NAME.json, unless it was a quick run.

    Args:
        name: of the benchmark.
        record: "ratios", a list of what `ratio` returns; "tables", each of "heads" and "rows" of words and numbers,
            as the results page shows them; and whatever else there is to say.
    """
    record = machine() | record
    record["tables"] = [ratio_table(record["ratios"]), *record["tables"]]
    for table in record["tables"]:
        print_table(table["heads"], table["rows"])
        print()
    if quick:
        print(QUICK)
        return
    record["tables"][-1]["note"] = where(record)
    write(ROOT / "results" / f"{name}.json", record)


def ratio_table(ratios: list[dict]) -> dict:
    """The ratios as a table of the results page."""
    rows = [
        [
            row["what"],
            f"{short(row['ratio'])} times",
            *(f"{short(row[side])} {row['unit']}" for side in ("ours", "plain")),
        ]
        for row in ratios
    ]
    return {"heads": ["Measured", "Better by", "Ours", "Plain"], "rows": rows}
