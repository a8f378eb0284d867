"""What the knobs of sampling do: how many drawings the classifier reads as asked for, and what they cover.

    python benchmarks/knobs.py [--count 500] [--work .work/knobs.json]

Writes ar_helpers/records/knobs.json. Eighteen settings, about a minute each on two cores. Whoever picks the best of
eighteen picks some luck, so the setting whose drawings are read most often then runs once more, against no knob, with
another seed and twice as many drawings. Interrupted, it goes on where it was.
"""

import argparse
import json
import time
from pathlib import Path

import common
import torch

import ar_helpers as ar
from ar_helpers import metrics
from ar_helpers.cards import RECORDS

SETTINGS = [{}]
SETTINGS += [{"temperature": value} for value in (0.5, 0.7, 0.8, 0.9, 1.1, 1.2)]
SETTINGS += [{"top_k": value} for value in (1, 2, 3, 4, 6, 8)]
SETTINGS += [{"top_p": value} for value in (0.8, 0.9, 0.95, 0.98, 0.99)]


def tables(record: dict) -> list[dict]:
    """The record as the results page shows it."""

    def row(words: str, measured: dict, count: int) -> list:
        share = measured["recognized"] / count
        error = (share * (1 - share) / count) ** 0.5
        return [words, f"{share:.1%}", f"{error:.1%}", f"{measured['coverage']:.1%}", measured.get("blank")]

    def words(measured: dict) -> str:
        knobs = measured["knobs"].items()
        return ", ".join(f"{name.replace('_', '-')} {setting:g}" for name, setting in knobs) or "no knob"

    count, again = record["count"], record["again"]
    rows = [row("written digits", record["real"], count)]
    rows += [row(words(measured), measured, count) for measured in record["settings"]]
    second = [row(words(measured), measured, again["count"]) for measured in again["settings"]]
    heads = ["Setting", "Read as asked for", "Standard error", "Coverage", "Blank"]
    first = f"{count:,} drawings for each setting, as many of each digit, all from the same seed."
    more = f"The setting read most often, and no knob, again: {again['count']:,} drawings each from another seed."
    return [{"heads": heads, "rows": rows, "note": first}, {"heads": heads, "rows": second, "note": more}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="drawings for each setting, a multiple of ten")
    parser.add_argument("--work", type=Path, default=common.ROOT / ".work" / "knobs.json")
    options = parser.parse_args()
    digits, device = ar.load_images(), ar.best_device()
    common.need_mnist(digits.name)
    model = ar.load_pretrained("transformer").to(device)
    fingerprint = ar.load_card("transformer")["fingerprint"]
    done = json.loads(options.work.read_text()) if options.work.exists() else {}

    classifier = metrics.load_classifier()
    reference, others = digits.test.images[::2], digits.test.images[1::2]  # to be covered; to compare with
    reference_labels, other_labels = digits.test.labels[::2], digits.test.labels[1::2]
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(0))  # of all writers
    per_class = [order[other_labels[order] == label][: options.count // 10] for label in range(10)]
    chosen = torch.cat(per_class)
    to_cover = metrics.judge(ar.quantize(reference, 16).flatten(1), reference_labels, 16, classifier).features

    def score(tokens: torch.Tensor, labels: torch.Tensor) -> dict:
        verdict = metrics.judge(tokens, labels, 16, classifier)
        share = metrics.coverage(verdict.features, labels, to_cover, reference_labels)
        return {"recognized": int(verdict.recognized.sum()), "coverage": share}

    real = score(ar.quantize(others[chosen], 16).flatten(1), other_labels[chosen])
    print(f"real: {real}", flush=True)

    def draw(knobs: dict, seed: int, count: int) -> dict:
        """What the drawings of one setting score, from the file if it is there."""
        run = {"fingerprint": fingerprint, "knobs": knobs, "seed": seed, "count": count}
        if json.dumps(run) not in done:
            began = time.perf_counter()
            labels = torch.arange(count) % 10
            drawn = ar.generate(model, labels, seed=seed, **knobs).tokens
            row = {"knobs": knobs, **score(drawn, labels), "blank": int((drawn == 0).all(1).sum())}
            done[json.dumps(run)] = row
            common.write(options.work, done)
            print(f"{knobs!s:22} {row['recognized']:4} of {count} read, coverage {row['coverage']:.3f}, "
                  f"{time.perf_counter() - began:.0f} s", flush=True)  # fmt: skip
        return done[json.dumps(run)]

    rows = [draw(knobs, 0, options.count) for knobs in SETTINGS]
    best = max(rows, key=lambda row: row["recognized"])["knobs"]
    again = [draw(knobs, 1, 2 * options.count) for knobs in ({}, best)]
    record = common.machine(device) | {"model": "transformer", "count": options.count}
    record |= {"real": real, "settings": rows, "again": {"count": 2 * options.count, "settings": again}}
    record["tables"] = tables(record)
    common.write(RECORDS / "knobs.json", record)
    for table in record["tables"]:
        common.print_table(**table)


if __name__ == "__main__":
    main()
