"""Where the time goes when the command line draws ten digits.

    python benchmarks/start_up.py [--quick]

Writes results/start_up.json. About a minute.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

REPEATS = 5
WITHIN = """
import time
began = time.perf_counter()
import torch
torch_there = time.perf_counter()
import ar_helpers as ar
from ar_helpers import cli
package_there = time.perf_counter()
model = ar.load_pretrained("transformer")
loaded = time.perf_counter()
with torch.no_grad():
    logits = model.next_logits(torch.zeros(10, 0, dtype=torch.long), torch.arange(10))
first = ar.sampling_probabilities(logits).multinomial(1)
first_there = time.perf_counter()
ar.generate(model, list(range(10)), prompt=first, seed=0)
drawn = time.perf_counter()
moments = began, torch_there, package_there, loaded, first_there, drawn
print(*(after - before for before, after in zip(moments, moments[1:])))
"""


def run(*command: str) -> tuple[float, str]:
    """Seconds that a command takes, and what it prints."""
    began = time.perf_counter()
    printed = subprocess.run([sys.executable, *command], check=True, text=True, stdout=subprocess.PIPE).stdout
    return time.perf_counter() - began, printed


def main() -> None:
    quick = common.parse(__doc__).quick
    repeats = 1 if quick else REPEATS
    names = ("importing torch", "importing the rest", "loading the weights", "the first pixel", "the other 783 pixels")
    times = {"starting Python": [], **{name: [] for name in names}}
    whole = []
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the command line draws on the CPU
    with tempfile.TemporaryDirectory() as folder:
        for i in range(repeats if quick else repeats + 1):
            command_seconds, _ = run("-m", "ar_helpers", "sample", "--seed", "0", "--out", str(Path(folder, str(i))))
            python_seconds, _ = run("-c", "")
            _, printed = run("-c", WITHIN)
            if i == 0 and not quick:
                continue  # nothing was in the file system's cache yet
            whole.append(command_seconds)
            for values, part in zip(times.values(), [python_seconds, *printed.split()], strict=True):
                values.append(float(part))
    parts = {name: statistics.median(values) for name, values in times.items()}
    first_pixel = sum(parts.values()) - parts["the other 783 pixels"]
    parts["scoring, writing, the rest"] = statistics.median(whole) - sum(parts.values())
    common.print_table(("Drawing ten digits", "seconds"), [*parts.items(), ("all of it", statistics.median(whole))])
    print(f"\nThe first pixel of each is there after {first_pixel:.2f} s.")
    if quick:
        print(common.QUICK)
        return
    record = common.machine() | {"repeats": repeats, "command_seconds": statistics.median(whole)}
    record |= {"first_pixel_seconds": first_pixel, "parts": parts}
    record["tables"] = tables(record)
    common.write(common.ROOT / "results" / "start_up.json", record)


def tables(record: dict) -> list[dict]:
    """The record as the results page shows it."""
    whole = record["command_seconds"]
    parts = [*record["parts"].items(), ("all of it", whole)]
    rows = [[name, f"{time:.2f} s", f"{time / whole:.0%}"] for name, time in parts]
    note = f"The first pixel of each digit is there after {record['first_pixel_seconds']:.1f} s."
    note += f" Median of {record['repeats']} runs, on {record['hardware']}."
    return [{"heads": ["Part", "Time", "Share"], "rows": rows, "note": note}]


if __name__ == "__main__":
    main()
