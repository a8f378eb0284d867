"""Checkpoints and their cards: the weights that ship with the package, and the record of how they came about."""

import json
import platform
import zlib
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from . import models
from .checks import check_choice, check_ending, check_finite
from .data import ImageSet, quick_mode, user_cache
from .files import read_tensors, switched_on, write, write_tensors
from .plots import table
from .recipes import RECIPES
from .scoring import fingerprint
from .training import History, TrainConfig, describe_data, describe_recipe, describe_run, duration, fit, uncompiled

CHECKPOINTS = Path(__file__).parent / "checkpoints"
RECORDS = Path(__file__).parent / "records"


def save_checkpoint(path: str | Path, model: nn.Module, card: dict | None = None) -> None:
    """Write a model's weights (float16), class and configuration to a .safetensors file, and its card beside it.

    Args:
        path: the file, ending in .safetensors; the card is the same name ending in .json.
        model: any model of the book.
        card: recipe, fingerprint, history and scores, as `make_card` returns them; None writes no card.

    Raises:
        ValueError: path does not end in .safetensors, or float16 cannot hold a weight.
        OSError: the folder cannot be written. After an error, no half-written file is left.
    """
    path, model = Path(path), uncompiled(model)
    check_ending(".safetensors", path)
    tensors = {name: tensor.detach().cpu().half().contiguous() for name, tensor in model.state_dict().items()}
    check_finite("weights", tensors, "training went astray, or a number is beyond the 65,504 of float16")
    card = None if card is None else (json.dumps(card, indent=1) + "\n").encode()
    write_tensors(path, tensors, {"model": json.dumps([type(model).__name__, model.config])})
    if card is not None:
        write(path.with_suffix(".json"), card)


def load_checkpoint(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Load a model from a file that `save_checkpoint` wrote.

    Args:
        path: the .safetensors file.
        model: a model to fill; None builds a model of the class and configuration that the file names.

    Returns:
        The model, float32, in evaluation mode. A given model stays on its device; a new model is on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file is damaged or cut short.
        ValueError: it holds no model of the book, or its class or configuration differ from `model`.
    """
    path, given = Path(path), model
    model = None if model is None else uncompiled(model)
    tensors, metadata = read_tensors(path)
    class_name, config = json.loads(metadata.get("model", "[null, null]"))
    if model is None:
        if class_name not in models.__all__:
            what = f"class {class_name!r}" if class_name else "other tensors"
            raise ValueError(f"{path} holds no model of this package, but {what}")
        model = getattr(models, class_name)(**config)
    elif (type(model).__name__, model.config) != (class_name, config):
        raise ValueError(
            f"{path} holds a {class_name} with {config}, but model is a {type(model).__name__} with {model.config}"
        )
    check_finite(f"the weights in {path}", tensors, "its training went astray")
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the model: {error}") from error
    model.eval()
    return model if given is None else given


def card_names() -> list[str]:
    """The names of the checkpoints that ship with the package."""
    return sorted(path.stem for path in CHECKPOINTS.glob("*.json"))


def load_card(name: str) -> dict:
    """The card of a shipped checkpoint: recipe, fingerprint, history, scores, seconds and hardware."""
    check_choice("name", name, card_names(), "one of the shipped checkpoints")
    return json.loads((CHECKPOINTS / f"{name}.json").read_text(encoding="utf-8"))


def load_record(name: str) -> dict:
    """The record of a long experiment: its results, recipe and hardware, as its script in benchmarks/ wrote them."""
    check_choice("name", name, sorted(path.stem for path in RECORDS.glob("*.json")), "one of the records")
    return json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))


def load_pretrained(name: str) -> nn.Module:
    """Build and fill the model of a shipped checkpoint."""
    load_card(name)
    return load_checkpoint(CHECKPOINTS / f"{name}.safetensors")


def train_or_load(
    name: str,
    model: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    val: ImageSet | None = None,
    retrain: bool = False,
) -> History:
    """Load the shipped weights of this name into the model if they come from the same recipe and data; else train it.

    The recipe and the data must equal those of `recipes.RECIPES`, and with the weights the model must reproduce the
    fingerprint on the card. If you change the class, the recipe or the data, your own model is trained. An
    interrupted run continues from a state in the user's cache.

    Args:
        name: the name of a shipped checkpoint.
        model, dataset, config, val: as for `fit`.
        retrain: train in any case, like AR_RETRAIN=1 and AR_QUICK=1.

    Returns:
        The history of the run, read from the card or new.
    """
    if quick_mode():
        return fit(model, dataset, config, val)
    reason = _why_train(name, model, dataset, config, retrain or switched_on("AR_RETRAIN"))
    if reason is None:
        card = load_card(name)
        print(f"Loaded the weights of {name}, trained in {duration(card['history']['seconds'])} "
              f"on {card['hardware']}.")  # fmt: skip
        return History(**card["history"])
    print(f"Training {name}: {reason}.")
    run = json.dumps([describe_run(model, config, dataset), fingerprint(model)])
    state = user_cache() / f"{name}-{zlib.crc32(run.encode()):08x}.safetensors"
    history = fit(model, dataset, config, val, resume=state)
    state.unlink(missing_ok=True)
    return history


def _why_train(name: str, model: nn.Module, dataset: Dataset, config: TrainConfig, retrain: bool) -> str | None:
    """Why the shipped weights do not serve, or None after filling the model with them."""
    if retrain:
        return "asked to train it anew"
    if name not in card_names():
        return "no weights of this name ship with the package"
    shipped = describe_recipe(RECIPES[name].config, RECIPES[name].data)
    wanted = describe_recipe(config, describe_data(dataset))
    for key in shipped | wanted:
        if shipped.get(key) != wanted.get(key):
            return f"{key} is {wanted.get(key)}, and the shipped weights had {shipped.get(key)}"
    before = {key: value.clone() for key, value in model.state_dict().items()}
    try:
        load_checkpoint(CHECKPOINTS / f"{name}.safetensors", model)
    except ValueError:
        return "the model's class or size is not that of the shipped weights"
    if abs(fingerprint(model) - load_card(name)["fingerprint"]) > 1e-3:
        model.load_state_dict(before)
        return "this class does not compute what the shipped weights were trained for"
    return None


def model_table(*names: str, caption: str = "") -> str:
    """The book's cumulative table from the cards: parameters, test bits per pixel, time. See `table`."""
    heads = ["model", "parameters", "test bits per pixel", "training", "per image"]
    rows = []
    for card in map(load_card, names or card_names()):
        bits, seconds = card["scores"]["test_bits_per_pixel"], card["history"]["seconds"]
        measured = [f"{bits:.3f}", duration(seconds), f"{card['milliseconds_per_image']:.0f} ms"]
        rows.append([card["name"], f"{card['parameters']:,}", *measured])
    return table(heads, rows, caption)


def hardware(device: str) -> str:
    """The device of a run, in words."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    if device == "mps":
        return "an Apple GPU"
    threads = torch.get_num_threads()
    return f"{threads} CPU {'core' if threads == 1 else 'cores'}"


def make_card(name: str, model: nn.Module, config: TrainConfig, dataset: Dataset, history: History, **measured) -> dict:
    """The record of a finished run: model, recipe, data, history, and the further entries in `measured`."""
    model = uncompiled(model)
    return {
        "name": name,
        "class": type(model).__name__,
        "config": model.config,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "recipe": describe_recipe(config, describe_data(dataset)),
        "fingerprint": fingerprint(model),
        **measured,
        "hardware": hardware(next(model.parameters()).device.type),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "history": asdict(history),
    }
