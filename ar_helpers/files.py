"""Files that are never half-written, even if several runs write at once; progress bars."""

import os
import secrets
import struct
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from glob import escape
from importlib.util import find_spec
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm


def write(path: str | Path, content: bytes) -> None:
    """Write a file aside, under a name that no other run has, then rename it into place."""
    path = Path(path)
    aside = path.with_name(f".{path.name}-{secrets.token_hex(4)}.part")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    for left in path.parent.glob(f".{escape(path.name)}-*.part"):
        with suppress(OSError):  # by a run that was killed; another one, at work now, needs no hour for a file
            if time.time() - left.stat().st_mtime > 3600:
                left.unlink()


def write_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file; its folder is made if need be."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write(path, save(tensors, metadata))


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, "pt") as file:  # opened once: another run may put a newer one in its place
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, struct.error) as error:
        raise OSError(f"{path} is damaged or no safetensors file ({error}): delete it, or fetch it again") from error


def switched_on(variable: str) -> bool:
    """Whether an environment variable says yes: anything but nothing, 0, false, no and off does."""
    return os.environ.get(variable, "").strip().lower() not in ("", "0", "false", "no", "off")


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook, where nothing is a terminal and bars are shown all the same."""
    ipython = sys.modules.get("IPython")  # a kernel has imported it
    return ipython is not None and "IPKernelApp" in getattr(ipython.get_ipython(), "config", {})


def progress(steps: Iterable | None = None, *, unit: str, quiet: bool = False, **options) -> tqdm:
    """A bar with the time left, in a terminal or a notebook, after the first second; it leaves nothing behind.

    TQDM_DISABLE=1 hides it, as when the book is made.
    """
    kind = tqdm
    if in_notebook() and find_spec("ipywidgets"):  # without it a bar of text will do
        from tqdm.notebook import tqdm as kind
    hidden = quiet or switched_on("TQDM_DISABLE") or (False if in_notebook() else None)  # None: in a terminal only
    return kind(steps, unit=unit, leave=False, delay=1, disable=hidden, **options)
