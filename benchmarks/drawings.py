"""How many of the shipped models' drawings a classifier reads as asked for, without any knob, and what they cover.

    python benchmarks/drawings.py [--work .work/drawings]

Writes ar_helpers/records/drawings.json. A thousand drawings of each model, as many of each digit, with seeds that were
fixed beforehand. About twenty minutes on two cores; interrupted, it goes on where it was.
"""

import argparse
from pathlib import Path

import common
import torch
from safetensors.torch import load_file, save_file

import ar_helpers as ar
from ar_helpers import metrics
from ar_helpers.cards import RECORDS

MODELS = ["conditional_mlp", "transformer_small", "transformer", "transformer_full"]
SEEDS = range(2026, 2036)  # of a hundred drawings each


def tables(record: dict) -> list[dict]:
    """The record as the results page shows it."""
    rows = []
    for row in record["models"]:
        share = row["recognized"] / record["count"]
        error = (share * (1 - share) / record["count"]) ** 0.5
        rows.append([row["model"], f"{share:.1%}", f"{error:.1%}", f"{row['coverage']:.1%}"])
    return [{"heads": ["Model", "Read as asked for", "Standard error", "Coverage"], "rows": rows}]


def draw(name: str, work: Path, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A thousand drawings (1000, 784) of a shipped model, and the digits asked for (1000,)."""
    model, fingerprint = ar.load_pretrained(name).to(device), ar.load_card(name)["fingerprint"]
    labels, drawn = torch.arange(100) % 10, []
    for seed in SEEDS:
        path = work / f"{name}_{fingerprint:.6f}_{seed}.safetensors"
        if not path.exists():
            print(f"{name}, seed {seed}", flush=True)
            tokens = ar.generate(model, labels, seed=seed).tokens
            aside = path.with_suffix(".part")
            save_file({"tokens": tokens.to(torch.uint8)}, aside)
            aside.replace(path)
        drawn.append(load_file(path)["tokens"])
    return torch.cat(drawn), labels.repeat(len(SEEDS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=common.ROOT / ".work" / "drawings")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    digits, device = ar.load_images(), ar.best_device()
    common.need_mnist(digits.name)
    classifier = metrics.load_classifier()
    count = 100 * len(SEEDS)
    even, odd = digits.test.images[::2], digits.test.images[1::2]  # to be covered; to compare with
    even_labels, odd_labels = digits.test.labels[::2], digits.test.labels[1::2]
    to_cover = metrics.judge(ar.quantize(even, 16).flatten(1), even_labels, 16, classifier).features

    def score(name: str, tokens: torch.Tensor, labels: torch.Tensor) -> dict:
        verdict = metrics.judge(tokens, labels, 16, classifier)
        covered = metrics.coverage(verdict.features, labels, to_cover, even_labels)
        return {"model": name, "recognized": int(verdict.recognized.sum()), "coverage": covered}

    chosen = torch.cat([(odd_labels == label).nonzero()[: count // 10, 0] for label in range(10)])
    rows = [score("written digits", ar.quantize(odd[chosen], 16).flatten(1), odd_labels[chosen])]
    rows += [score(name, *draw(name, options.work, device)) for name in MODELS]
    record = common.machine(device) | {"count": count, "models": rows}
    record["tables"] = tables(record)
    common.write(RECORDS / "drawings.json", record)
    common.print_table(**record["tables"][0])


if __name__ == "__main__":
    main()
