"""The shipped models' drawings, judged by two readers of digits: legible, varied, and like written digits?

    python benchmarks/drawings.py [--work .work/drawings]

Writes ar_helpers/records/drawings.json. A thousand drawings of each model, as many of each digit, with seeds that were
fixed beforehand and without temperature, top-k or top-p. About forty minutes on two cores; interrupted, it goes on
where it was.
"""

import argparse
from pathlib import Path

import common
import torch
from safetensors.torch import load_file, save_file

import ar_helpers as ar
from ar_helpers import metrics
from ar_helpers.cards import RECORDS

SEEDS = range(2026, 2036)  # of a hundred drawings each
SIZES = [100, 200, 500, 1000]  # of samples, to see how a measure depends on them


def tables(record: dict) -> list[dict]:
    """The record as the results page shows it: a table for each reader."""
    found = []
    for reader, accuracy in record["readers"].items():
        rows = []
        for row in record["models"]:
            cells = [row["model"]]
            for name in ("recognized", "frechet", "precision", "recall"):
                number = row[reader][name]
                form = "{:.2f}" if name == "frechet" else "{:.1%}"
                cells.append(None if number is None else form.format(number))
            if reader == "LeNet-5":
                cells.append(f"{row['coverage']:.1%}")
            rows.append(cells)
        heads = ["Model", "Read as asked for", "Fréchet", "Precision", "Recall"]
        heads += ["Coverage"] if reader == "LeNet-5" else []
        note = f"Read by {reader}, which reads {accuracy:.2%} of the test images."
        found.append({"heads": heads, "rows": rows, "note": note})
    return found


def draw(name: str, work: Path, device: str) -> torch.Tensor:
    """A thousand drawings (1000, 784) of a shipped model at 16 levels; a conditional model draws 0, 1, 2 and so on."""
    model, fingerprint = ar.load_pretrained(name).to(device), ar.load_card(name)["fingerprint"]
    labels, drawn = torch.arange(100) % 10, []
    for seed in SEEDS:
        path = work / f"{name}_{fingerprint:.6f}_{seed}.safetensors"
        if not path.exists():
            common.note(f"{name}, seed {seed}")
            tokens = ar.generate(model, labels if model.num_classes else None, count=100, seed=seed).tokens
            aside = path.with_suffix(".part")
            save_file({"tokens": tokens.to(torch.uint8)}, aside)
            aside.replace(path)
        drawn.append(load_file(path)["tokens"])
    return torch.cat(drawn).int() * 16 // model.num_levels


def readers(digits: ar.Digits) -> dict:
    """The two readers, of which the second is trained here, and the share of the test images that each reads."""
    torch.manual_seed(0)
    second = metrics.MLPReader()
    common.note("the second reader")
    metrics.train_classifier(second, digits)
    chosen = {"LeNet-5": metrics.load_classifier(), "MLP": second}
    test = ar.quantize(digits.test.images, 16).flatten(1)
    read = {name: metrics.judge(test, digits.test.labels, 16, reader).recognized for name, reader in chosen.items()}
    return {name: (reader, read[name].double().mean().item()) for name, reader in chosen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=common.ROOT / ".work" / "drawings")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    digits, device = ar.load_images(), ar.best_device()
    common.need_mnist(digits.name)
    judges = readers(digits)
    even = ar.quantize(digits.test.images[::2], 16).flatten(1), digits.test.labels[::2]  # to be covered
    to_cover = metrics.judge(*even, 16).features

    def score(name: str, tokens: torch.Tensor, labels: torch.Tensor, asked: bool = True) -> dict:
        row = {"model": name}
        for reader, (classifier, _) in judges.items():
            row[reader] = metrics.compare_drawings(tokens, labels, 16, digits, classifier)
            if not asked:
                row[reader]["recognized"] = None
            elif name == "written digits":  # the readers know training images: the share of test images counts
                row[reader]["recognized"] = row[reader]["recognized_floor"]
        parts = {size: metrics.compare_drawings(tokens[:size], labels[:size], 16, digits) for size in SIZES}
        row["by_size"] = [{"size": size} | part for size, part in parts.items()]
        features = metrics.judge(tokens, labels, 16).features
        return row | {"coverage": metrics.coverage(features, labels, to_cover, even[1])}

    labels = torch.arange(100).repeat(len(SEEDS)) % 10
    chosen = metrics.rows_with(labels, digits.train.labels, "digits.train", seed=1)  # others than for the floor
    written = ar.quantize(digits.train.images[chosen], 16).flatten(1)
    rows = [score("written digits", written, labels)]
    for name in common.digit_models():
        card = ar.load_card(name)
        if card["config"]["num_levels"] > 2:  # black-and-white drawings are of another kind
            rows.append(score(name, draw(name, options.work, device), labels, card["config"].get("num_classes", 0) > 0))
    accuracies = {reader: accuracy for reader, (_, accuracy) in judges.items()}
    record = common.machine(device) | {"count": len(labels), "readers": accuracies, "models": rows}
    record["tables"] = tables(record)
    common.write(RECORDS / "drawings.json", record)
    for table in record["tables"]:
        common.print_table(**table)


if __name__ == "__main__":
    main()
