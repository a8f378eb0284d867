"""One training loop for every model, the yardstick, and checkpoints."""

import json
import math
import os
import struct
import sys
import time
import warnings
import zlib
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from . import models
from .data import ImageSet, quantize, quick_mode, user_cache

CHECKPOINTS = Path(__file__).parent / "checkpoints"
MODEL_CLASSES = {
    c.__name__: c
    for c in (
        models.OneHotMLP,
        models.PositionalMLP,
        models.ConditionalMLP,
        models.PixelTransformer,
        models.PatchTransformer,
    )
}
QUICK_STEPS, QUICK_IMAGES = 10, 8
VAL_IMAGES = 500


@dataclass(frozen=True)
class TrainConfig:
    """A recipe: everything that decides what a run of `fit` gives, beside the model and the data.

    Args:
        steps: optimizer steps, at least 1.
        batch_size: examples in a step, at least 1.
        learning_rate: the peak of torch's one-cycle schedule: it climbs over the first `warmup` of the steps and
            falls over the rest to nearly nothing, both along a cosine (Smith and Topin, 2019).
        weight_decay: AdamW's, at least 0 (Loshchilov and Hutter, 2019).
        warmup: share of the steps, between 0 and 1.
        clip: the norm above which a gradient is scaled down, above 0: a wild step can kill a ReLU for good.
        muon: the peak rate of Muon (Jordan et al., 2024), which then trains the matrices of all linear layers but the
            last; None leaves them to AdamW.
        seed: decides the order of the data and what dropout drops; the model's first weights are the caller's.

    Raises:
        ValueError: a number is out of its range.
    """

    steps: int
    batch_size: int = 1024
    learning_rate: float = 2e-3
    weight_decay: float = 1e-5
    warmup: float = 0.25
    clip: float = 0.5
    muon: float | None = None
    seed: int = 0

    def __post_init__(self):
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "clip", "muon"):
            if name == "muon" and self.muon is None:
                continue
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"{name} must be a finite number above 0, not {getattr(self, name)}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must be at least 0, not {self.weight_decay}")
        if not 0 < self.warmup < 1:
            raise ValueError(f"warmup must lie between 0 and 1, not {self.warmup}")


@dataclass
class History:
    """What a run wrote down. Losses are in bits per pixel; seconds are of training and validating together.

    train_bits[i] is the mean over the steps since the point before, up to train_steps[i]; val_bits[i] was measured on
    the first 500 validation images after val_steps[i] steps.
    """

    train_steps: list[int] = field(default_factory=list)
    train_bits: list[float] = field(default_factory=list)
    val_steps: list[int] = field(default_factory=list)
    val_bits: list[float] = field(default_factory=list)
    seconds: float = 0.0


class ShuffledBatches(Sampler):
    """The indices (batch_size,) of every step from `start` on: each epoch a fresh shuffle, its last odd batch dropped.

    A step's batch depends on the seed and the step alone, so a run can be taken up anywhere.
    """

    def __init__(self, size: int, batch_size: int, steps: int, seed: int, start: int = 0):
        if size < batch_size:
            raise ValueError(f"batch_size must be at most the {size} examples there are, not {batch_size}")
        self.size, self.batch_size, self.steps, self.seed, self.start = size, batch_size, steps, seed, start

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self):
        order, current = None, None
        for step in range(self.start, self.steps):
            epoch, place = divmod(step, self.size // self.batch_size)
            if epoch != current:
                generator = torch.Generator().manual_seed(self.seed + epoch)
                order, current = torch.randperm(self.size, generator=generator), epoch
            yield order[place * self.batch_size : (place + 1) * self.batch_size]


def best_device() -> str:
    """ "cuda" where there is one, else "mps", else "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@lru_cache
def bfloat16_is_faster(device_type: str) -> bool:
    """Whether bfloat16 matrix products are clearly faster than float32 ones: on a CPU, tried once; on CUDA, asked."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type != "cpu":
        return False

    def seconds(dtype: torch.dtype) -> float:
        a = torch.ones(512, 1024, dtype=dtype)
        b = torch.ones(1024, 1024, dtype=dtype)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(torch.float32) > 1.3 * seconds(torch.bfloat16)


def bits_per_pixel(model: nn.Module, images: ImageSet) -> float:
    """The book's yardstick: the mean of -log2 p(pixel | pixels before it) over every pixel of every image.

    Args:
        model: any model of the book. A conditional one is told the true labels.
        images: images (M, H, W), uint8, and their labels (M,); quantized to the model's levels here.

    Returns:
        Bits per pixel, at least 0; log2 K is what a uniform guess scores.

    Raises:
        ValueError: there are no images, or their size is not the model's.
    """
    return _bits(model, images, autocast=False)


@torch.no_grad()
def _bits(model: nn.Module, images: ImageSet, autocast: bool) -> float:
    if not len(images.images):
        raise ValueError("images must hold at least one image")
    device = next(model.parameters()).device
    batch_size = 8 if device.type == "cpu" else 64  # what still fits a processor's cache
    was_training = model.training
    model.eval()
    total = 0.0
    try:
        for pixels, labels in zip(images.images.split(batch_size), images.labels.split(batch_size), strict=True):
            tokens = quantize(pixels, model.num_levels).flatten(1).long().to(device)
            labels = labels.to(device) if model.num_classes else None
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                logits = model.image_logits(tokens, labels)
            total += F.cross_entropy(logits.float().flatten(0, -2), tokens.flatten(), reduction="sum").item()
    finally:
        model.train(was_training)
    return total / images.images.numel() / math.log(2)


def quick_images(images: ImageSet) -> ImageSet:
    """The images to score: all of them, but a handful when AR_QUICK=1."""
    return ImageSet(*(part[:QUICK_IMAGES] for part in images)) if quick_mode() else images


def fingerprint(model: nn.Module) -> float:
    """The model's bits per pixel on 16 fixed pseudo-random images: equal for two models only if they compute alike."""
    generator = torch.Generator().manual_seed(0)
    size = (16, model.image_size, model.image_size)
    images = torch.randint(256, size, generator=generator, dtype=torch.uint8)
    return bits_per_pixel(model, ImageSet(images, torch.arange(16) % max(model.num_classes, 1)))


def fit(
    model: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    val: ImageSet | None = None,
    resume: str | Path | None = None,
) -> History:
    """Train a model in place to predict the next pixel: the one loop of the book.

    Runs on the device the model is on, in bfloat16 autocast where that is faster, and prints about ten lines. With
    AR_QUICK=1 it takes a handful of steps, whatever the recipe says.

    Args:
        model: any model of the book, called with the data set's inputs.
        dataset: a `ContextWindows`, a `ThinnedWindows` or a `TokenImages`.
        config: the recipe.
        val: images to validate on, ten times a run, the first 500 of them.
        resume: a file for the state of the run. It is written a hundred times on the way (aside, then renamed, so
            that a run killed at any moment leaves a whole one), and where it is there already the run goes on from
            it, bit for bit as if it had never stopped.

    Returns:
        The history.

    Raises:
        ValueError: model and data set do not belong together, or the state is of another run.
        OSError: the state file is damaged.
    """
    steps, batch_size = config.steps, config.batch_size
    if quick_mode():
        steps, batch_size = min(steps, QUICK_STEPS), min(batch_size, 32)
    val = None if val is None else quick_images(ImageSet(*(part[:VAL_IMAGES] for part in val)))
    _check_dataset(model, dataset)
    device = next(model.parameters()).device
    autocast = bfloat16_is_faster(device.type)
    optimizers = _optimizers(model, config)
    history, start = History(), 0
    run = None if resume is None else _run(model, config, dataset)
    if resume is not None and Path(resume).exists():
        start, autocast, history = _load_state(Path(resume), model, optimizers, run)
        print(f"Going on from step {start} of {steps}, kept in {resume}.")
    schedulers = [_one_cycle(optimizer, steps, config.warmup, start) for optimizer in optimizers]
    batches = ShuffledBatches(len(dataset), batch_size, steps, config.seed, start)
    loader = DataLoader(dataset, sampler=batches, batch_size=None, pin_memory=device.type == "cuda")

    note = math.ceil(steps / 100)  # steps between notes in the history
    report = note * math.ceil(steps / note / 10)  # and between validations, each of which prints a line
    bar = tqdm(loader, initial=start, total=steps, unit="step", disable=None, leave=False)  # shown in a terminal only
    began, before = time.perf_counter(), history.seconds
    loss_sum, noted = torch.zeros((), device=device), start
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for step, (inputs, target, *weight) in enumerate(bar, start + 1):
            if step == noted + 1:
                torch.manual_seed(config.seed + step)  # dropout then depends on the step alone, as the batches do
            inputs = [None if x is None else x.to(device, non_blocking=True) for x in inputs]
            target = target.to(device, non_blocking=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                logits = model(*inputs)
            losses = F.cross_entropy(logits.float().flatten(0, -2), target.flatten(), reduction="none")
            loss = (losses * weight[0].to(device)).mean() if weight else losses.mean()
            model.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
                optimizer.step()
                scheduler.step()
            loss_sum += loss.detach()
            if step == start + 5:  # the first steps are slow: threads start, memory is fetched
                settled = time.perf_counter()
            if step == start + 25 and steps > 100:
                rest = (time.perf_counter() - settled) / 20 * (steps - step) + _validation_seconds(model, val, autocast)
                dtype = "bfloat16" if autocast else "float32"
                bar.write(f"{steps - start} steps on {device.type} in {dtype}: about {_duration(rest)}", sys.stdout)
            if step % note and step < steps:
                continue
            history.train_steps.append(step)
            history.train_bits.append(loss_sum.item() / (step - noted) / math.log(2))
            noted, loss_sum = step, torch.zeros((), device=device)
            if step % report == 0 or step == steps:
                if val is not None:
                    history.val_steps.append(step)
                    history.val_bits.append(_bits(model, val, autocast))
                history.seconds = before + time.perf_counter() - began
                bar.write(_line(step, steps, history), sys.stdout)
            if resume is not None:
                history.seconds = before + time.perf_counter() - began
                _save_state(Path(resume), model, optimizers, run, step, autocast, history)
    model.eval()
    return history


def _optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW and, where the recipe asks for it, Muon for the matrices of all linear layers but the last."""
    linear = [part.weight for part in model.modules() if isinstance(part, nn.Linear)]
    matrices = linear[:-1] if config.muon else []
    rest = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    betas = (0.9, 0.99)  # a short run forgets its beginnings faster than with the customary 0.999
    decay = {"weight_decay": config.weight_decay}
    optimizers = [torch.optim.AdamW(rest, config.learning_rate, betas, fused=rest[0].device.type != "mps", **decay)]
    if matrices:  # steps as long as AdamW's would be (Liu et al., 2025)
        optimizers.append(torch.optim.Muon(matrices, config.muon, adjust_lr_fn="match_rms_adamw", **decay))
    return optimizers


def _one_cycle(optimizer: torch.optim.Optimizer, steps: int, warmup: float, start: int):
    peak = optimizer.param_groups[0]["lr"]
    warmup = max(warmup, 1.5 / (steps + 1))  # in a run of a few steps: torch divides by zero if it ends with the first
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, total_steps=steps + 1, pct_start=warmup, cycle_momentum=False
    )
    if start:
        scheduler.last_epoch = start - 1
        with warnings.catch_warnings(action="ignore"):  # it cannot know that the optimizer has stepped before
            scheduler.step()
    return scheduler


def _validation_seconds(model: nn.Module, val: ImageSet | None, autocast: bool) -> float:
    """About how long the ten validations of a run will take."""
    if val is None:
        return 0.0
    few = ImageSet(*(part[:16] for part in val))
    began = time.perf_counter()
    _bits(model, few, autocast)
    return 10 * (time.perf_counter() - began) * len(val.images) / len(few.images)


def _line(step: int, steps: int, history: History) -> str:
    val = f"   val {history.val_bits[-1]:.4f}" if history.val_bits else ""
    width = len(str(steps))
    return f"step {step:{width}}/{steps}   train {history.train_bits[-1]:.4f}{val}   {_duration(history.seconds)}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def _check_dataset(model: nn.Module, dataset: Dataset) -> None:
    if not len(dataset):
        raise ValueError("dataset must hold at least one image")
    labels = getattr(dataset, "labels", None)
    models.check_labels(labels, model.num_classes, 0 if labels is None else len(labels))
    for name in ("num_levels", "context_length"):
        ours, theirs = getattr(model, name, None), getattr(dataset, name, None)
        if ours is not None and theirs is not None and ours != theirs:
            raise ValueError(f"dataset has {name}={theirs}, but the model has {name}={ours}")
    highest = max(int(part.max()) for part in dataset.tokens.split(4096))
    if highest >= model.num_levels:
        raise ValueError(f"dataset has tokens up to {highest}, but the model has num_levels={model.num_levels}")
    if dataset.tokens.shape[1] != model.image_size**2:
        raise ValueError(
            f"dataset has images of {dataset.tokens.shape[1]} pixels, but the model has image_size={model.image_size}"
        )


# --- Files --------------------------------------------------------------------------------------------------------


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file aside, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")  # what a killed run leaves of it, the next one writes over
    try:
        save_file(tensors, aside, metadata)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return load_file(path), metadata
    except (SafetensorError, struct.error) as error:
        raise OSError(f"{path} is damaged or no safetensors file ({error}): delete it, or fetch it again") from error


def _save_state(path, model, optimizers, run, step, autocast, history) -> None:
    tensors = {f"model/{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    for optimizer in optimizers:
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{type(optimizer).__name__}/{index}/{key}": value for key, value in state.items()}
    state = {"step": step, "autocast": autocast, "history": asdict(history), "run": run}
    _write(path, tensors, {"state": json.dumps(state)})


def _load_state(path, model, optimizers, run) -> tuple[int, bool, History]:
    tensors, metadata = _read(path)
    state = json.loads(metadata.get("state", "{}"))
    if state.get("run") != run:
        raise ValueError(f"resume={str(path)!r} is the state of another run: {state.get('run')}, not {run}")
    model.load_state_dict({k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")})
    for optimizer in optimizers:
        moments = {}
        for key, value in tensors.items():
            owner, index, *name = key.split("/")
            if owner == type(optimizer).__name__:
                moments.setdefault(int(index), {})[name[0]] = value
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return state["step"], state["autocast"], History(**state["history"])


def _run(model: nn.Module, config: TrainConfig, dataset: Dataset) -> dict:
    made = {"class": type(model).__name__, "config": model.config}
    return made | {"recipe": recipe(config, dataset), "quick": quick_mode()}


def save_checkpoint(path: str | Path, model: nn.Module, card: dict | None = None) -> None:
    """Write a model's weights in float16, with what rebuilds it, to a .safetensors file, and its card beside it.

    Args:
        path: the file, ending in .safetensors; the card is the same name ending in .json.
        model: any model of the book.
        card: what to note about it (recipe, fingerprint, history, scores); None writes no card.

    Raises:
        ValueError: path does not end in .safetensors.
        OSError: the folder cannot be written. Whatever fails, no half-written file is left.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, not {path.name!r}")
    tensors = {name: tensor.detach().cpu().half().contiguous() for name, tensor in model.state_dict().items()}
    _write(path, tensors, {"model": json.dumps([type(model).__name__, model.config])})
    if card is not None:
        aside = path.with_name(f".{path.stem}.json.part")
        try:
            aside.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
            os.replace(aside, path.with_suffix(".json"))
        finally:
            aside.unlink(missing_ok=True)


def load_checkpoint(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Load a model from a file that `save_checkpoint` wrote.

    Args:
        path: the .safetensors file.
        model: a model to fill; None builds one of the class and size that the file names.

    Returns:
        The model, float32, in evaluation mode, on the device it was on (a new one: on the CPU).

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file is damaged or cut short.
        ValueError: it holds no model of the book, or one of another class or size than `model`.
    """
    path = Path(path)
    tensors, metadata = _read(path)
    class_name, config = json.loads(metadata.get("model", "[null, null]"))
    if model is None:
        if class_name not in MODEL_CLASSES:
            raise ValueError(f"{path} holds no model of this package, but class {class_name!r}")
        model = MODEL_CLASSES[class_name](**config)
    elif (type(model).__name__, model.config) != (class_name, config):
        raise ValueError(
            f"{path} holds a {class_name} with {config}, but model is a {type(model).__name__} with {model.config}"
        )
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the model: {error}") from error
    return model.eval()


def card_names() -> list[str]:
    """The names of the checkpoints that ship with the package."""
    return sorted(path.stem for path in CHECKPOINTS.glob("*.json"))


def load_card(name: str) -> dict:
    """The card of a shipped checkpoint: recipe, fingerprint, history, scores, seconds and hardware.

    Raises:
        ValueError: no checkpoint of that name ships.
    """
    if name not in card_names():
        raise ValueError(f"name must be one of the shipped checkpoints {', '.join(card_names())}, not {name!r}")
    return json.loads((CHECKPOINTS / f"{name}.json").read_text(encoding="utf-8"))


def load_pretrained(name: str) -> nn.Module:
    """Build and fill the model of a shipped checkpoint.

    Raises:
        ValueError: no checkpoint of that name ships.
    """
    load_card(name)
    return load_checkpoint(CHECKPOINTS / f"{name}.safetensors")


def recipe(config: TrainConfig, dataset: Dataset) -> dict:
    """What a card notes as the recipe: the configuration, how many images of which checksum, and how thinned."""
    checksum = 0
    for part in dataset.tokens.split(4096):
        checksum = zlib.crc32(part.to(torch.uint8).numpy().tobytes(), checksum)
    data = {"images": len(dataset.tokens), "crc32": checksum, "keep": getattr(dataset, "keep", 1.0)}
    return {name: value for name, value in asdict(config).items() if value is not None} | {"data": data}


def train_or_load(
    name: str,
    model: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    val: ImageSet | None = None,
    retrain: bool = False,
) -> History:
    """Fill the model with the weights that ship under this name if they are what training it would give; else train.

    They are when the recipe, the data and the model's configuration are the card's, and when the model, filled with
    them, computes what the card's fingerprint says. So whoever changes the class, the recipe or the data gets their
    own model trained. A run that was interrupted goes on where it was, from a state in the user's cache.

    Args:
        name: of a shipped checkpoint.
        model, dataset, config, val: as for `fit`.
        retrain: train all the same; so does AR_RETRAIN=1, and AR_QUICK=1 always does.

    Returns:
        The history of the run: the card's, or the new one.
    """
    if quick_mode():
        return fit(model, dataset, config, val)
    reason = _why_train(name, model, dataset, config, retrain or os.environ.get("AR_RETRAIN", "") not in ("", "0"))
    if reason is None:
        card = load_card(name)
        print(f"Loaded the shipped weights of {name}, trained in {_duration(card['history']['seconds'])} "
              f"on {card['hardware']}.")  # fmt: skip
        return History(**card["history"])
    print(f"Training {name}: {reason}.")
    run = json.dumps([_run(model, config, dataset), fingerprint(model)])
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
    card, wanted = load_card(name), recipe(config, dataset)
    for key in card["recipe"]:
        if card["recipe"][key] != wanted[key]:
            return f"{key} is {wanted[key]}, and the shipped weights had {card['recipe'][key]}"
    before = {key: value.clone() for key, value in model.state_dict().items()}
    try:
        load_checkpoint(CHECKPOINTS / f"{name}.safetensors", model)
    except ValueError:
        return "the model's class or size is not that of the shipped weights"
    if abs(fingerprint(model) - card["fingerprint"]) > 1e-3:
        model.load_state_dict(before)
        return "this class does not compute what the shipped weights were trained for"
    return None


def model_table(*names: str) -> str:
    """The book's cumulative table, in Markdown, from the cards: parameters, test bits per pixel, time.

    Raises:
        ValueError: no checkpoint of a name ships.
    """
    lines = [
        "| model | parameters | test bits per pixel | training | per image |",
        "|:--|--:|--:|--:|--:|",
    ]
    for card in map(load_card, names or card_names()):
        lines.append(
            f"| {card['name']} | {card['parameters']:,} | {card['scores']['test_bits_per_pixel']:.3f} "
            f"| {_duration(card['history']['seconds'])} | {card['milliseconds_per_image']:.0f} ms |"
        )
    return "\n".join(lines)
