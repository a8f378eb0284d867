"""Chapter 13's experiments on landscapes of 32 x 32 pixels: a run in stages, kinds of tokens, and what drawings lack.

    python benchmarks/colours.py [--quick] [--work .work/colours]

Writes ar_helpers/records/colours.json. On two cores with fast bfloat16, the run in stages takes about an hour and the
five models of the comparison ten minutes each; interrupted, it goes on where it was.
"""

import contextlib
import dataclasses
import json
from pathlib import Path

import common
import torch
import torch.nn.functional as F
from chapter_models import ChannelTransformer, ColourTransformer

import ar_helpers as ar
from ar_helpers.cards import RECORDS
from ar_helpers.data import full_or_quick, quick_mode
from ar_helpers.files import read_tensors
from ar_helpers.recipes import RECIPES
from ar_helpers.tokens import image_tokens, pack_colours, unpack_colours
from ar_helpers.training import bfloat16_is_faster

# Those of the landscapes that the book grew out of; `fit` saves its state at every hundredth of the last.
STAGES = [200, 400, 800, 1_600, 3_000, 6_000, 10_000]
BATCH = 4  # images in a step of the run in stages
MINUTES = 10  # of each model of the comparison
LARGE = {"width": 128, "depth": 4}  # as the other models
KINDS = {
    "packed": (ColourTransformer, {}),
    "packed, columns": (ColourTransformer, {}),  # of images with their rows and columns swapped
    "a slot for each channel": (ChannelTransformer, {}),
    "channels in a pixel": (ar.NestedColourTransformer, LARGE | {"patch_height": 1, "patch_width": 1}),
    "channels in a patch": (ar.NestedColourTransformer, LARGE | {"patch_height": 2, "patch_width": 2}),
}
SHOWN = [0, 1, 6, 7, 8, 9, 14, 15]  # labels: two of each season, two of each time of day
FIRST = [0x8AC, 0x6AC, 0x558, 0x013]  # the top left pixel of many a dawn, day, dusk and night
UNSEEN = 0xFEC  # that of no training picture
BRIGHTNESS = [0x59C, 0xCDE]  # of one label, a summer day: a deep sky and a pale one
SUMMER_DAY = 5
DISTANCES = [1, 2, 4, 8, 16]


class Stage(ar.TokenImages):
    """Images that break off a training run after a number of batches."""

    left = 0

    def __getitem__(self, index):
        if self.left == 0:
            raise StopAsyncIteration  # no other part of a training run raises it
        self.left -= 1
        return super().__getitem__(index)


def build(kind: str, device: str) -> torch.nn.Module:
    """A model with its first weights."""
    torch.manual_seed(0)
    made, sizes = KINDS[kind]
    small = full_or_quick({}, {"width": 16, "depth": 1, "heads": 2})
    return made(**sizes | small).to(device)


def data_for(model: torch.nn.Module, images: ar.ImageSet, kind: type = ar.TokenImages) -> ar.TokenImages:
    """The training set of a model."""
    return kind(image_tokens(images.images, model), images.labels)


def from_state(model: torch.nn.Module, path: Path) -> torch.nn.Module:
    """The model with the weights of an interrupted run."""
    tensors = read_tensors(path)[0]
    model.load_state_dict({k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")})
    return model.eval()


def hexadecimal(tokens: torch.Tensor) -> list[str]:
    """Images (B, N) of packed colours as strings, three digits for each pixel."""
    return ["".join(f"{token:03x}" for token in image) for image in tokens.tolist()]


def in_stages(digits: ar.Digits, config: ar.TrainConfig, device: str, work: Path) -> tuple:
    """The model after all stages; and of each stage bits per pixel on some validation images, and a few drawings."""
    model, found, state = build("packed", device), [], work / "stages.safetensors"
    dataset = data_for(model, digits.train, Stage)
    config = dataclasses.replace(config, steps=full_or_quick(STAGES[-1], 10), batch_size=full_or_quick(BATCH, 2))
    val = digits.val.first(full_or_quick(200, 1))
    labels = SHOWN[: full_or_quick(8, 1)]
    for stage in full_or_quick(STAGES, [5, 10]):
        path = work / f"stage_{stage}.json"
        if not path.exists():
            done = json.loads(read_tensors(state)[1]["state"])["step"] if state.exists() else 0
            dataset.left = stage - done
            if dataset.left:
                with contextlib.suppress(StopAsyncIteration):
                    ar.fit(model, dataset, config, resume=state)
            saved = json.loads(read_tensors(state)[1]["state"])
            assert saved["step"] == stage, f"the state is of step {saved['step']}, not {stage}"
            drawn = ar.generate(from_state(model, state), labels, seed=0).tokens
            bits, history = ar.bits_per_pixel(model, val), saved["history"]
            about = {"step": stage, "val_bits_per_pixel": bits, "train_bits_per_pixel": history["train_bits"][-1]}
            about |= {"seconds": history["seconds"], "labels": labels, "drawings": hexadecimal(drawn)}
            common.write(path, about)
        found.append(json.loads(path.read_text()))
    return from_state(model, state), found


def pace(kind: str, dataset: ar.TokenImages, config: ar.TrainConfig, device: str) -> float:
    """Seconds of a step of a model's training, beyond the first five."""
    few, more = full_or_quick(5, 1), full_or_quick(20, 2)
    times = [ar.fit(build(kind, device), dataset, dataclasses.replace(config, steps=steps), quiet=True).seconds
             for steps in (few, few, more)]  # fmt: skip
    return (times[2] - times[1]) / (more - few)  # the first run only warms up


def compared_labels() -> torch.Tensor:
    """The labels (B,) of the drawings that are compared."""
    return torch.tensor(SHOWN).repeat(25)[: full_or_quick(200, 1)]


def swapped(images: ar.ImageSet, kind: str) -> ar.ImageSet:
    """The images as a kind of model sees them."""
    return images._replace(images=images.images.transpose(1, 2)) if kind.endswith("columns") else images


def packed(tokens: torch.Tensor, model: torch.nn.Module, kind: str = "") -> torch.Tensor:
    """A model's tokens (B, N or 3 N) as packed colours (B, H, W), in the usual order of rows and columns."""
    if model.channels == 3:
        tokens = pack_colours(tokens.unflatten(1, (-1, 3)), model.num_levels)
    images = tokens.unflatten(1, (model.image_size, model.image_size))
    return images.mT if kind.endswith("columns") else images


def compared(digits: ar.Digits, config: ar.TrainConfig, device: str, work: Path) -> tuple[list[dict], dict]:
    """All kinds of models, each trained for the same time; and drawings (B, H, W) by each, packed."""
    path = work / "paces.json"
    config = dataclasses.replace(config, batch_size=full_or_quick(8, 2))
    datasets = {kind: data_for(build(kind, device), swapped(digits.train, kind)) for kind in KINDS}
    if not path.exists():
        common.write(path, {kind: pace(kind, datasets[kind], config, device) for kind in KINDS})
    paces, runs, drawings = json.loads(path.read_text()), [], {}
    for kind in KINDS:
        steps = full_or_quick(max(200, round(60 * MINUTES / paces[kind])), 2)
        changed, place = dataclasses.replace(config, steps=steps), work / kind.replace(" ", "_").replace(",", "")
        about = {"name": kind, "steps": steps, "seconds_per_step": paces[kind]}
        val = swapped(digits.val, kind).first(full_or_quick(200, 1))
        model, found = common.trained(place, about, lambda kind=kind: build(kind, device), datasets[kind], changed, val)
        tokens = common.drawn(Path(f"{place}.drawings.safetensors"), model, compared_labels(), 0)
        drawings[kind] = packed(tokens, model, kind)
        few = hexadecimal(drawings[kind][: len(SHOWN)].flatten(1))
        minutes = found.pop("history")["seconds"] / 60
        runs.append(found | {"minutes": minutes, "drawings": few})
    return runs, drawings


# --- What the first pixel says, and what is alike -----------------------------------------------------------------


def explained(groups: list[torch.Tensor]) -> list[float]:
    """The share of the variance of a row's mean colour that lies between groups of packed images (B, H, W), by row.

    All groups weigh the same, however many images they have.
    """
    means = [unpack_colours(group).double().mean(2) for group in groups]  # (B, H, 3) each
    centres = torch.stack([each.mean(0) for each in means])  # (G, H, 3)
    between = centres.var(0, correction=0).sum(-1)  # (H,)
    within = torch.stack([each.var(0, correction=0) for each in means]).mean(0).sum(-1)
    return [round(share, 4) for share in (between / (between + within).clamp(min=1e-9)).tolist()]


def begun(model: torch.nn.Module, colour: int, path: Path, label: int | None, count: int) -> tuple:
    """Drawings (B, H, W) that begin with a colour, their labels (B,), and the chances of all labels after it.

    Without a label, each drawing has one of its own, drawn by these chances, as if the model had never been told one.
    """
    prompt = torch.tensor([colour])
    whole = F.pad(prompt.unsqueeze(0), (0, model.sequence_length - 1))
    beliefs = ar.label_beliefs(model, whole)[0, 1]
    generator = torch.Generator().manual_seed(colour)
    labels = torch.multinomial(beliefs, count, replacement=True, generator=generator)
    labels = labels if label is None else torch.full((count,), label)
    images = packed(common.drawn(path, model, labels, 0, prompt), model)
    return images, labels, [round(chance, 4) for chance in beliefs.tolist()]


def steered(model: torch.nn.Module, train: ar.ImageSet, work: Path) -> dict:
    """What a first pixel does to the rows below it, in drawings and in training pictures."""
    count, images, pictures = full_or_quick(100, 1), {}, pack_colours(ar.quantize(train.images, 16))
    painted = {colour: pictures[:, 0, 0] == colour for colour in (*FIRST, UNSEEN, *BRIGHTNESS)}  # which begin with it
    found = {"colours": [], "count": count}
    for colour in (*FIRST, UNSEEN):
        images[colour], labels, beliefs = begun(model, colour, work / f"first_{colour:03x}.safetensors", None, count)
        about = {"colour": f"0x{colour:03X}", "painted": int(painted[colour].sum()), "beliefs": beliefs}
        about |= {"labels": labels[:8].tolist(), "drawings": hexadecimal(images[colour][:8].flatten(1))}
        found["colours"].append(about)
    found["drawn"] = explained([images[colour] for colour in FIRST])
    found["painted"] = explained([pictures[painted[colour]] for colour in FIRST])
    pair = [begun(model, colour, work / f"first_{colour:03x}_{SUMMER_DAY}.safetensors", SUMMER_DAY, count)[0]
            for colour in BRIGHTNESS]  # fmt: skip
    pairs = [pictures[painted[colour] & (train.labels == SUMMER_DAY)] for colour in BRIGHTNESS]
    about = {"label": SUMMER_DAY, "colours": [f"0x{colour:03X}" for colour in BRIGHTNESS]}
    about["counts"] = [len(each) for each in pairs]
    found["of_a_label"] = about | {"drawn": explained(pair), "painted": explained(pairs)}
    return found


def apart(images: torch.Tensor) -> dict[str, list[float]]:
    """How much the levels of packed images (B, H, W) differ at each distance, on average, along rows and columns."""
    levels = unpack_colours(images).int()
    inside = [distance for distance in DISTANCES if distance < images.shape[1]]
    found = {"rows": [levels[:, :, d:] - levels[:, :, :-d] for d in inside]}
    found["columns"] = [levels[:, d:] - levels[:, :-d] for d in inside]
    return {way: [each.abs().double().mean().item() for each in parts] for way, parts in found.items()}


def of_labels(images: ar.ImageSet) -> torch.Tensor:
    """The first packed images (B, H, W) of a set with any of the labels shown, as many as there are drawings."""
    alike = torch.isin(images.labels, torch.tensor(SHOWN))
    alike = alike if alike.any() else ~alike  # a quick run has few labels
    return pack_colours(ar.quantize(images.images[alike][: len(compared_labels())], 16))


# --- The record ---------------------------------------------------------------------------------------------------


def tables(record: dict) -> list[dict]:
    """The record as the results page shows it."""
    rows = []
    for run in record["kinds"]:
        numbers = [f"{run['parameters']:,}", f"{run['steps']:,}", f"{run['minutes']:.1f}"]
        rows.append([run["name"], *numbers, f"{run['val_bits_per_pixel']:.3f}"])
    return [{"heads": ["Tokens", "Parameters", "Steps", "Minutes", "Bits per pixel"], "rows": rows}]


def main() -> None:
    work = common.parse(__doc__, "colours").work
    digits, device = ar.load_images("landscapes_32"), ar.best_device()
    arithmetic = "bfloat16" if bfloat16_is_faster(torch.device(device).type) else "float32"
    config = dataclasses.replace(RECIPES["transformer"].config, arithmetic=arithmetic)
    record = common.machine(device) | {"arithmetic": arithmetic, "distances": DISTANCES}
    model, record["stages"] = in_stages(digits, config, device, work)
    record["first_pixel"] = steered(model, digits.train, work)
    record["kinds"], drawings = compared(digits, config, device, work)
    drawings["after all stages"] = packed(common.drawn(work / "staged.safetensors", model, compared_labels(), 0), model)
    record["apart"] = {"painted": apart(of_labels(digits.val)), "painted, others": apart(of_labels(digits.train))}
    record["apart"] |= {name: apart(images) for name, images in drawings.items()}
    record["tables"] = tables(record)
    common.print_table(**record["tables"][0])
    if quick_mode():
        print(common.QUICK)
    else:
        common.write(RECORDS / "colours.json", record)


if __name__ == "__main__":
    main()
