"""The benchmarks run, and what they wrote is what the results page takes it for."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import common
import pytest

from ar_helpers import cards

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("data", "training", "generation")
FILES = sorted([*(ROOT / "results").glob("*.json"), *(ROOT / "ar_helpers" / "records").glob("*.json")])
RECORDS = [name for name in NAMES if (ROOT / "results" / f"{name}.json").exists()]


def record(name):
    return json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_a_quick_run_prints_its_table_and_writes_nothing(name):
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "results").iterdir()}
    run = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / f"{name}.py", "--quick"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
        timeout=180,
    )
    assert run.returncode == 0, run.stderr
    assert "Better by" in run.stdout
    assert run.stdout.endswith("nothing was written.\n")
    assert {path: path.stat().st_mtime_ns for path in (ROOT / "results").iterdir()} == before


@pytest.mark.parametrize("name", ["colours", "greys", "lengths", "positions"])
def test_a_quick_run_of_an_experiment_writes_no_record(name, tmp_path):
    records = sorted((ROOT / "ar_helpers" / "records").iterdir())
    before = [path.stat().st_mtime_ns for path in records]
    work = [] if name == "lengths" else ["--work", tmp_path]
    for _ in range(2):  # with a folder, the second goes on where the first ended
        run = subprocess.run(
            [sys.executable, ROOT / "benchmarks" / f"{name}.py", "--quick", *work],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            text=True,
            capture_output=True,
            timeout=180,
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout.endswith("nothing was written.\n")
    assert sorted((ROOT / "ar_helpers" / "records").iterdir()) == records
    assert [path.stat().st_mtime_ns for path in records] == before


def test_models_of_digits_are_all_that_ship_but_landscapes():
    assert set(cards.card_names()) - set(common.digit_models()) == {"landscapes"}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("codec", "transformer_256"),
        ("codec", "landscapes"),
        ("codec", "x"),
        ("likelihood", "one_hot_mlp"),
        ("likelihood", "landscapes"),
    ],
)
def test_a_model_that_does_not_suit_an_experiment_gets_a_clear_line(name, wrong):
    command = [sys.executable, ROOT / "benchmarks" / f"{name}.py", wrong]
    run = subprocess.run(command, text=True, capture_output=True, timeout=60)
    assert run.returncode == 2
    assert run.stderr.strip().splitlines()[-1].endswith(f", not {wrong}")
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("name", RECORDS)
def test_a_ratio_is_the_quotient_of_its_parts(name):
    for row in record(name)["ratios"]:
        better, worse = row["plain"], row["ours"]
        if row["unit"].endswith("per second"):
            better, worse = worse, better
        assert row["ratio"] == pytest.approx(better / worse), row["what"]


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_says_where_it_was_measured_and_its_tables_are_whole(name):
    found = record(name)
    assert found["hardware"]
    assert found["dtype"]
    assert {"python", "torch"} <= set(found["versions"])
    for table in found["tables"]:
        assert all(len(row) == len(table["heads"]) for row in table["rows"])
        assert all(cell > 0 for row in table["rows"] for cell in row if not isinstance(cell, str))


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOT / "results").glob("*.json"), *(ROOT / "ar_helpers/records").glob("*.json")]),
    ids=lambda path: path.stem,
)
def test_the_tables_of_a_record_are_made_of_its_numbers(path):
    """The page shows a record's tables, and those are what the benchmark makes of the rest of the record."""
    found, module = json.loads(path.read_text(encoding="utf-8")), importlib.import_module(path.stem)
    if "ratios" in found:
        assert found["tables"][0] == importlib.import_module("common").ratio_table(found["ratios"])
    elif "tables" in found:
        assert found["tables"] == module.tables(found)


@pytest.mark.skipif("training" not in RECORDS, reason="not measured yet")
def test_the_shortened_recipes_reach_the_plain_loops_bits_and_shares_follow_from_their_parts():
    found = record("training")
    _, shares, products, bits = (table["rows"] for table in found["tables"])
    for plain, ours in zip(bits[::2], bits[1::2], strict=True):
        assert ours[-1] <= plain[-1], ours[0]
    fastest = dict(products)[found["dtype"]]  # GFLOP per second
    for _, _, needed, rate, share in shares:
        assert share == pytest.approx(needed * rate / 1000 / fastest)
