"""The training loop of the book: recipes, batches, and runs that can be interrupted and resumed."""

import json
import math
import sys
import time
import warnings
import zlib
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, Dataset, Sampler

from .checks import (
    check_agreement,
    check_at_least,
    check_batch_size,
    check_between,
    check_choice,
    check_dataset,
    check_image_set,
    check_positive,
    real_number,
    whole_number,
)
from .data import ImageSet, full_or_quick, quick_mode
from .files import progress, read_tensors, write_tensors
from .scoring import bits_per_pixel
from .tokens import binarize

QUICK_STEPS, QUICK_BATCH, QUICK_IMAGES = 10, 4, 2
VAL_IMAGES = 500


@dataclass(frozen=True)
class TrainConfig:
    """A recipe: everything that determines the result of `fit`, besides the model and the data.

    Args:
        steps: optimizer steps, at least 1.
        batch_size: examples in a step, at least 1.
        learning_rate: the peak of torch's one-cycle schedule. The rate rises over the first `warmup` of the steps and
            falls to nearly zero over the rest, both along a cosine (Smith and Topin, 2019).
        weight_decay: AdamW's, at least 0 (Loshchilov and Hutter, 2019).
        warmup: share of the steps, between 0 and 1.
        clip: gradients with a larger norm are scaled down to this norm; above 0. A very large step can kill a ReLU.
        muon_rate: the peak rate of Muon (Jordan et al., 2024), which trains the matrices of all linear layers except
            the last; None trains them with AdamW.
        shift: moves each image of a batch at random by up to `shift` pixels along rows and columns, and fills with
            black; not in the last fifth of the steps, so that a run ends on unchanged images. For whole images only.
        average: the decay of a running average of the weights, between 0 and 1. The averaged weights are validated and
            kept (Polyak and Juditsky, 1992). None keeps the last weights.
        binarize: True draws the pixels of each batch anew, as `tokens.binarize` does. The data are then whole images at
            256 levels, for a model of two.
        arithmetic: "float32", or "bfloat16" for torch's autocast, which is faster on some processors and most GPUs.
        seed: for the order of the data and for dropout. The caller initializes the model.
    """

    steps: int
    batch_size: int = 1024
    learning_rate: float = 2e-3
    weight_decay: float = 1e-5
    warmup: float = 0.25
    clip: float = 0.5
    muon_rate: float | None = None
    shift: int = 0
    average: float | None = None
    binarize: bool | None = None
    arithmetic: str = "float32"
    seed: int = 0

    def __post_init__(self):
        for each in fields(self):  # NumPy's numbers become plain ones, which a card can hold
            value = getattr(self, each.name)
            if each.type in (int, float, float | None) and value is not None:
                plain = (whole_number if each.type is int else real_number)(each.name, value)
                object.__setattr__(self, each.name, plain)
        check_at_least(1, steps=self.steps, batch_size=self.batch_size)
        check_positive(learning_rate=self.learning_rate, clip=self.clip)
        if self.muon_rate is not None:
            check_positive(muon_rate=self.muon_rate)
        check_at_least(0, weight_decay=self.weight_decay, shift=self.shift)
        check_between(0, 1, warmup=self.warmup)
        if self.average is not None:
            check_between(0, 1, average=self.average)
        check_agreement("binarize must be True or None", self.binarize in (True, None), self.binarize)
        check_choice("arithmetic", self.arithmetic, ("float32", "bfloat16"))


@dataclass
class History:
    """The losses of a run, in bits per pixel, and its seconds of training and validation together.

    train_bits[i] is the mean over the steps after train_steps[i - 1] up to train_steps[i]; val_bits[i] was measured on
    the first 500 validation images after val_steps[i] steps.
    """

    train_steps: list[int] = field(default_factory=list)
    train_bits: list[float] = field(default_factory=list)
    val_steps: list[int] = field(default_factory=list)
    val_bits: list[float] = field(default_factory=list)
    seconds: float = 0.0


class ShuffledBatches(Sampler):
    """The indices (batch_size,) of every step from `start` on. Each epoch is shuffled anew; an incomplete last batch is
    dropped.

    The batch of a step depends only on the seed and the step, so a run can resume anywhere.
    """

    def __init__(self, size: int, batch_size: int, steps: int, seed: int, start: int = 0):
        check_batch_size(batch_size, size)
        self.size, self.batch_size, self.steps, self.seed, self.start = size, batch_size, steps, seed, start

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self):
        order, current = None, None
        for step in range(self.start, self.steps):
            epoch, batch = divmod(step, self.size // self.batch_size)
            if epoch != current:
                generator = torch.Generator().manual_seed(self.seed + epoch)
                order, current = torch.randperm(self.size, generator=generator), epoch
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size]


def uncompiled(model: nn.Module) -> nn.Module:
    """The original model, if `model` is the result of torch.compile."""
    return getattr(model, "_orig_mod", model)


def best_device() -> str:
    """The best device of this machine: "cuda", else "mps", else "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@lru_cache
def bfloat16_is_faster(device_type: str) -> bool:
    """Whether bfloat16 matrix products are clearly faster than float32: tried once on a CPU, looked up on CUDA."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type != "cpu":
        return False

    def seconds(dtype: torch.dtype) -> float:
        a = torch.ones(256, 1024, dtype=dtype)
        b = torch.ones(1024, 512, dtype=dtype)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(torch.float32) > 1.3 * seconds(torch.bfloat16)


def fit(
    model: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    val: ImageSet | None = None,
    resume: str | Path | None = None,
    quiet: bool = False,
) -> History:
    """Train a model in place to predict the next pixel, on the device of the model.

    It prints about ten lines. With AR_QUICK=1 it takes only a few steps.

    Args:
        model: any model of the book, also compiled with torch.compile. It is called with the inputs of the data set.
        dataset: a `ContextWindows`, a `ThinnedWindows` or a `TokenImages`.
        config: the recipe.
        val: images to validate on, ten times a run, the first 500 of them.
        resume: a file for the state of the run, written a hundred times on the way. If the file exists, the run
            continues from it, with the same result as a run without a break. A killed run leaves an intact file.
        quiet: print nothing and show no bar.

    Raises:
        OSError: the state file is damaged.
        FloatingPointError: the loss is not finite.
    """
    steps = full_or_quick(config.steps, min(config.steps, QUICK_STEPS))
    batch_size = full_or_quick(config.batch_size, min(config.batch_size, QUICK_BATCH))
    arithmetic = full_or_quick(config.arithmetic, "float32")  # some processors take ages over bfloat16
    check_dataset(model, dataset, 256 if config.binarize else model.num_levels)
    if val is not None:
        check_image_set("val", val, model.image_size)
        val = val.first(full_or_quick(VAL_IMAGES, QUICK_IMAGES))
    channels = getattr(model, "channels", 1)
    whole = not config.shift or (not hasattr(dataset, "context_length") and channels == 1)
    suits = not config.binarize or (model.num_levels == 2 and not hasattr(dataset, "context_length"))
    check_agreement("shift must be 0 for context windows, and where a pixel has three tokens", whole, config.shift)
    asked = "binarize must be None unless the model has num_levels=2 and reads whole images"
    check_agreement(asked, suits, config.binarize)
    compiled, model = model, uncompiled(model)
    device = next(model.parameters()).device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=arithmetic == "bfloat16")
    optimizers = _optimizers(model, config)
    history, start, averaged, kept = History(), 0, None, model
    if config.average is not None:
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.average))
        kept = averaged.module
    run = None if resume is None else describe_run(model, config, dataset)
    if resume is not None and Path(resume).exists():
        start, history = _load_state(Path(resume), model, averaged, optimizers, run)
        if not quiet:
            print(f"Going on from step {start} of {steps}, kept in {resume}.")
    schedulers = [_one_cycle(optimizer, steps, config.warmup, start) for optimizer in optimizers]
    batches = ShuffledBatches(len(dataset), batch_size, steps, config.seed, start)
    loader = DataLoader(dataset, sampler=batches, batch_size=None, pin_memory=device.type == "cuda")

    note = math.ceil(steps / 100)  # steps between notes in the history
    report = note * math.ceil(steps / note / 10)  # and between validations, each of which prints a line
    bar = progress(loader, unit="step", quiet=quiet, initial=start, total=steps)
    if steps > 100 and not quiet and (advice := _advice(arithmetic, device.type)):
        print(f"Training in {arithmetic}{advice}.")
    began, before = time.perf_counter(), history.seconds
    loss_sum, noted = torch.zeros((), device=device), start
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for step, (inputs, target, *weight) in enumerate(bar, start + 1):
            torch.manual_seed(config.seed + step)  # dropout depends on the step alone, as the batches do
            inputs = [None if x is None else x.to(device, non_blocking=True) for x in inputs]
            target = target.to(device, non_blocking=True)
            if config.shift and step <= 0.8 * steps:
                inputs[0] = target = shifted(target, config.shift, config.seed + step)
            if config.binarize:
                inputs[0] = target = binarize(target, config.seed + step)
            with autocast:
                logits = compiled(*inputs)
            losses = F.cross_entropy(logits.float().flatten(0, -2), target.flatten(), reduction="none")
            loss = (losses * weight[0].to(device)).mean() if weight else losses.mean()
            model.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
                with _Float32():
                    optimizer.step()
                scheduler.step()
            if averaged is not None:
                averaged.update_parameters(model)
            loss_sum += loss.detach()
            if step == start + 5:  # the first steps are slow: threads start, memory is fetched
                settled, told = time.perf_counter(), steps <= 100 or quiet
            elif step > start + 5 and not told and (step == start + 25 or time.perf_counter() - settled > 10):
                pace, told = (time.perf_counter() - settled) / (step - start - 5), True
                rest = pace * (steps - step) + _validation_seconds(model, val, autocast)
                text = f"{steps - start} steps on {device.type} in {arithmetic}: about {duration(rest)}"
                bar.write(text, sys.stdout)
            if step % note and step < steps:
                continue
            history.train_steps.append(step)
            history.train_bits.append(channels * loss_sum.item() / (step - noted) / math.log(2))
            if not math.isfinite(history.train_bits[-1]):
                raise FloatingPointError(f"the loss is {history.train_bits[-1]} at step {step}: try a lower rate")
            noted, loss_sum = step, torch.zeros((), device=device)
            if step % report == 0 or step == steps:
                if val is not None:
                    history.val_steps.append(step)
                    with autocast:
                        history.val_bits.append(bits_per_pixel(kept, val, quiet=True))
                history.seconds = before + time.perf_counter() - began
                if not quiet:
                    bar.write(_line(step, steps, history), sys.stdout)
            if resume is not None:
                history.seconds = before + time.perf_counter() - began
                _save_state(Path(resume), model, averaged, optimizers, run, step, history)
    model.load_state_dict(kept.state_dict())
    model.eval()
    return history


def shifted(tokens: Tensor, pixels: int, seed: int) -> Tensor:
    """Square images (B, N), each moved at random by up to so many pixels along rows and columns; token 0 comes in."""
    side = math.isqrt(tokens.shape[1])
    padded = F.pad(tokens.view(-1, side, side), (pixels,) * 4)
    windows = padded.unfold(1, side, 1).unfold(2, side, 1)  # (B, 2 pixels + 1, 2 pixels + 1, side, side)
    moves = torch.randint(2 * pixels + 1, (2, len(tokens)), generator=torch.Generator().manual_seed(seed))
    moves = moves.to(tokens.device, non_blocking=True)  # a copy that waits would stop a GPU in every step
    return windows[torch.arange(len(tokens), device=tokens.device), *moves].flatten(1)


def _optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW and, where the recipe asks for it, Muon for the matrices of all linear layers but the last."""
    linear = [part.weight for part in model.modules() if isinstance(part, nn.Linear)]
    matrices = linear[:-1] if config.muon_rate else []
    rest = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    betas = (0.9, 0.99)  # a short run forgets its beginnings faster than with the customary 0.999
    decay = {"weight_decay": config.weight_decay}
    optimizers = [torch.optim.AdamW(rest, config.learning_rate, betas, fused=rest[0].device.type != "mps", **decay)]
    if matrices:  # steps as long as AdamW's would be (Liu et al., 2025)
        optimizers.append(torch.optim.Muon(matrices, config.muon_rate, adjust_lr_fn="match_rms_adamw", **decay))
    return optimizers


class _Float32(TorchFunctionMode):
    """Keeps float32 where torch's Muon asks for bfloat16, which many processors multiply a hundred times slower."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is Tensor.bfloat16:
            return args[0].float()
        return function(*args, **(kwargs or {}))


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


def _validation_seconds(model: nn.Module, val: ImageSet | None, autocast: torch.autocast) -> float:
    """About how long the ten validations of a run will take."""
    if val is None:
        return 0.0
    few = val.first(16)
    began = time.perf_counter()
    with autocast:
        bits_per_pixel(model, few, quiet=True)
    return 10 * (time.perf_counter() - began) * len(val.images) / len(few.images)


def _advice(arithmetic: str, device_type: str) -> str:
    """A hint at the arithmetic that would be faster here, if it is another one."""
    faster = "bfloat16" if bfloat16_is_faster(device_type) else "float32"
    return "" if faster == arithmetic else f'; arithmetic="{faster}" would be faster here'


def _line(step: int, steps: int, history: History) -> str:
    val = f"   val {history.val_bits[-1]:.4f}" if history.val_bits else ""
    width = len(str(steps))
    return f"step {step:{width}}/{steps}   train {history.train_bits[-1]:.4f}{val}   {duration(history.seconds)}"


def duration(seconds: float) -> str:
    """Seconds in words: 83 is "1 min 23 s"."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


# --- Files --------------------------------------------------------------------------------------------------------


def _save_state(path, model, averaged, optimizers, run, step, history) -> None:
    tensors = {f"model/{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    if averaged is not None:
        tensors |= {f"average/{name}": tensor.contiguous() for name, tensor in averaged.state_dict().items()}
    for optimizer in optimizers:
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{type(optimizer).__name__}/{index}/{key}": value for key, value in state.items()}
    state = {"step": step, "history": asdict(history), "run": run}
    write_tensors(path, tensors, {"state": json.dumps(state)})


def _load_state(path, model, averaged, optimizers, run) -> tuple[int, History]:
    tensors, metadata = read_tensors(path)
    state = json.loads(metadata.get("state", "{}"))
    if state.get("run") != run:
        raise ValueError(
            f"resume={str(path)!r} is the state of another run: {state.get('run')}, not {run}; "
            "delete it to begin anew, or name another file"
        )
    for prefix, owner in (("model/", model), ("average/", averaged)):
        if owner is not None:
            owner.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    for optimizer in optimizers:
        moments = {}
        for key, value in tensors.items():
            owner, index, *name = key.split("/")
            if owner == type(optimizer).__name__:
                moments.setdefault(int(index), {})[name[0]] = value
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return state["step"], History(**state["history"])


def describe_data(dataset: Dataset) -> dict:
    """The data as a card describes them: the number of images, the checksum of their tokens, and the thinning."""
    checksum, kind = 0, "u1" if int(dataset.tokens.max()) < 256 else "<i4"
    for part in dataset.tokens.split(4096):
        checksum = zlib.crc32(part.numpy().astype(kind).tobytes(), checksum)
    return {"images": len(dataset.tokens), "crc32": checksum, "keep": getattr(dataset, "keep", 1.0)}


def describe_recipe(config: TrainConfig, data: dict) -> dict:
    """The recipe as a card describes it: the configuration and the data."""
    return {name: value for name, value in asdict(config).items() if value is not None} | {"data": data}


def describe_run(model: nn.Module, config: TrainConfig, dataset: Dataset) -> dict:
    """The class, sizes, recipe and data of a run: a state can be resumed only if all are equal."""
    model = uncompiled(model)
    made = {"class": type(model).__name__, "config": model.config}
    return made | {"recipe": describe_recipe(config, describe_data(dataset)), "quick": quick_mode()}
