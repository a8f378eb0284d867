"""Where the time goes when the command line draws ten digits.

    python benchmarks/start_up.py [--repeats 5]

Writes results/start_up.json. About a minute.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from ar_helpers.__main__ import hardware

ROOT = Path(__file__).resolve().parent.parent
WITHIN = """
import time
began = time.perf_counter()
import torch
torch_there = time.perf_counter()
import ar_helpers as ar
from ar_helpers import __main__
package_there = time.perf_counter()
model = ar.load_pretrained("transformer")
loaded = time.perf_counter()
ar.generate(model, list(range(10)), seed=0)
drawn = time.perf_counter()
print(torch_there - began, package_there - torch_there, loaded - package_there, drawn - loaded)
"""


def run(*command: str) -> tuple[float, str]:
    """Seconds that a command takes, and what it prints."""
    began = time.perf_counter()
    printed = subprocess.run([sys.executable, *command], check=True, text=True, stdout=subprocess.PIPE).stdout
    return time.perf_counter() - began, printed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    names = ("importing torch", "importing the rest", "loading the weights", "drawing")
    times = {name: [] for name in names}
    whole = []
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the command line draws on the CPU
    with tempfile.TemporaryDirectory() as folder:
        for i in range(options.repeats + 1):
            seconds, _ = run("-m", "ar_helpers", "sample", "--seed", "0", "--out", str(Path(folder, str(i))))
            _, printed = run("-c", WITHIN)
            if i == 0:
                continue  # nothing was in the file system's cache yet
            whole.append(seconds)
            for name, part in zip(names, printed.split(), strict=True):
                times[name].append(float(part))
    parts = {name: statistics.median(values) for name, values in times.items()}
    parts["starting Python, scoring, writing"] = statistics.median(whole) - sum(parts.values())
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    record = {"hardware": hardware("cpu"), "versions": versions, "repeats": options.repeats}
    record |= {"command_seconds": statistics.median(whole), "parts": parts}
    path = ROOT / "results" / "start_up.json"
    path.with_suffix(".part").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".part").replace(path)
    for name, seconds in [*parts.items(), ("all of it", statistics.median(whole))]:
        print(f"{name:34} {seconds:5.2f} s")


if __name__ == "__main__":
    main()
