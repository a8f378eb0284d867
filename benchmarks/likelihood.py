"""What the shipped models' likelihoods are when they are told the label of an image, and when they are not.

    python benchmarks/likelihood.py [NAME ...] [--images 500] [--work .work/likelihood]

Writes ar_helpers/records/likelihood.json; with names, measures only these models anew. A model that is not told the
label gives an image the mean of its probabilities under the ten labels: its mixture. About an hour on two cores;
interrupted, it goes on with the model where it was.
"""

import argparse
import json
import math
from pathlib import Path

import common
import torch

import ar_helpers as ar
from ar_helpers.cards import RECORDS

COMPARED = "transformer_256"


def tables(record: dict) -> list[dict]:
    """The record as the results page shows it."""
    rows = []
    for name, row in sorted(record["models"].items(), key=lambda pair: -pair[1]["told"]):
        bits = [f"{row[kind]:.4f}" for kind in ("told", "mixture")]
        rows.append([name, f"{row['images']:,}", *bits, f"{row['guessed']:.1%}"])
    return [{"heads": ["Model", "Test images", "Told the label", "Mixture", "Label guessed"], "rows": rows}]


def score(name: str, model: torch.nn.Module, images: ar.ImageSet) -> dict:
    """Both likelihoods of a conditional model in bits per pixel, by label too, and how often it guesses the label."""
    tokens, labels = ar.quantize(images.images, model.num_levels).flatten(1), images.labels
    bits = []
    for label in range(model.num_classes):
        common.note(f"{name}, label {label}")
        bits.append(ar.pixel_bits(model, tokens, torch.full_like(labels, label)).double().sum(1))
    bits = torch.stack(bits, dim=1)  # (M, 10), of whole images
    told = bits.gather(1, labels.unsqueeze(1)).squeeze(1)
    mixture = math.log2(bits.shape[1]) - torch.logsumexp(-bits * math.log(2), dim=1) / math.log(2)
    pixels = tokens.shape[1]
    return {
        "images": len(tokens),
        "told": told.mean().item() / pixels,
        "mixture": mixture.mean().item() / pixels,
        "guessed": (bits.argmin(1) == labels).double().mean().item(),
        "by_label": [told[labels == label].mean().item() / pixels for label in range(model.num_classes)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only these models; the rows of the others stay (default: all)")
    words = f"the first test images, so many; all of them for {COMPARED}, which is compared with published scores"
    parser.add_argument("--images", type=int, default=500, help=words)
    parser.add_argument("--work", type=Path, default=common.ROOT / ".work" / "likelihood")
    options = parser.parse_args()
    fitting = [name for name in common.digit_models() if ar.load_card(name)["config"].get("num_classes")]
    if wrong := sorted(set(options.names) - set(fitting)):
        parser.error(f"NAME must be one of the shipped conditional models of digits, not {', '.join(wrong)}")
    options.work.mkdir(parents=True, exist_ok=True)
    digits, device = ar.load_images(), ar.best_device()
    common.need_mnist(digits.name)
    rows = ar.load_record("likelihood")["models"] if options.names else {}
    for name in options.names or fitting:
        card = ar.load_card(name)
        images = len(digits.test.images) if name == COMPARED else options.images
        path = options.work / f"{name}_{card['fingerprint']:.6f}_{images}.json"
        if not path.exists():
            model = ar.load_pretrained(name).to(device)
            common.write(path, score(name, model, digits.test.first(images)))
        rows[name] = json.loads(path.read_text())
    record = common.machine(device) | {"models": rows}
    record["tables"] = tables(record)
    common.write(RECORDS / "likelihood.json", record)
    common.print_table(**record["tables"][0])


if __name__ == "__main__":
    main()
