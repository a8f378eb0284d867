"""A classifier of digits, and the measures that use it: are drawings legible, varied, and like written digits?"""

import json
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cards import CHECKPOINTS
from .checks import check_agreement, check_labels, check_range, check_tokens
from .data import Digits, full_or_quick
from .files import progress, read_tensors, write_tensors
from .sampling import generate
from .tokens import dequantize, quantize
from .training import QUICK_IMAGES, ShuffledBatches

WEIGHTS = CHECKPOINTS / "lenet5.safetensors"
SHOWN_LEVELS = 16  # it is trained on images with the book's grey levels, since those are what it will judge


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al., 1998), but with ReLU and max pooling: 61,706 parameters."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(),
        )  # fmt: skip
        self.output = nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 10) of images (B, 28, 28) with grey values from 0 to 1."""
        return self.output(self.features(images.unsqueeze(1)))


class MLPReader(nn.Module):
    """A second reader of digits, with no convolution and no weight in common with LeNet-5: an MLP with dropout."""

    def __init__(self):
        super().__init__()
        layers = []
        for before, after in ((784, 512), (512, 256), (256, 84)):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(0.1)]
        self.features, self.output = nn.Sequential(nn.Flatten(), *layers), nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 10) of images (B, 28, 28) with grey values from 0 to 1."""
        return self.output(self.features(images))


class Verdict(NamedTuple):
    """Whether each image is read as its label, (B,) bool, and the classifier's features of each image (B, 84)."""

    recognized: Tensor
    features: Tensor


def load_classifier() -> LeNet5:
    """The classifier that ships with the package, in evaluation mode.

    Raises:
        FileNotFoundError, OSError: its file is missing or damaged.
    """
    tensors, _ = read_tensors(WEIGHTS)
    classifier = LeNet5()
    classifier.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return classifier.eval()


@torch.no_grad()
def judge(tokens: Tensor, labels: Tensor, num_levels: int, classifier: nn.Module | None = None) -> Verdict:
    """Let the classifier read images.

    Args:
        tokens: (B, 784) integers.
        labels: (B,) integers, the correct readings.
        num_levels: the number of levels K of the tokens.
        classifier: a `LeNet5` or a `MLPReader`; None for the LeNet-5 of the package.
    """
    check_tokens("tokens", tokens, num_levels, 784, 784)
    check_labels(labels, 10, len(tokens))
    classifier = load_classifier() if classifier is None else classifier
    images = dequantize(tokens, num_levels).view(-1, 28, 28)
    features = torch.cat([classifier.features(part.unsqueeze(1)) for part in images.split(1000)])
    return Verdict(classifier.output(features).argmax(1) == labels, features)


def coverage(features: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor, neighbours: int = 5) -> float:
    """The share of real images that have a drawing of their class near them (Naeem et al., 2020), from 0 to 1.

    A drawing is near if it is closer than the fifth nearest neighbour among the real images of the class. Drawings
    that are all alike, or unlike real images, cover little. Coverage grows with the number of drawings: compare it
    with the coverage of an equal number of real images.

    Args:
        features: (B, F) of the drawings, as `judge` gives them.
        labels: (B,) integers.
        real: (M, F) features of the real images to be covered.
        real_labels: (M,) integers.
        neighbours: which neighbour sets the distance, at least 1.
    """
    covered = 0
    for label in real_labels.unique():
        members = real[real_labels == label]
        most = f"neighbours must be at least 1 and below the {len(members)} real images of class {label}"
        check_agreement(most, 1 <= neighbours < len(members), neighbours)
        radii = torch.cdist(members, members).kthvalue(neighbours + 1).values  # the nearest is the image itself
        distances = torch.cdist(members, features[labels == label])
        covered += (distances < radii.unsqueeze(1)).any(1).sum().item()
    return covered / len(real)


def frechet_distance(features: Tensor, real: Tensor) -> float:
    """The Fréchet distance of two sets of features, each taken for a Gaussian (Heusel et al., 2017, section 2).

    The squared distance of the means, and trace(A + B - 2 (A B)^(1/2)) of the covariances A and B: 0 if all agree. Few
    images make it larger: compare it with the distance of as many real images. Another network gives other figures.

    Args:
        features: (B, F) of drawings, as `judge` gives them, B at least 2.
        real: (M, F) of real images, M at least 2.
    """
    fits = (
        features.dim() == real.dim() == 2 and features.shape[1] == real.shape[1] and min(map(len, (features, real))) > 1
    )
    shapes = f"{tuple(features.shape)} and {tuple(real.shape)}"
    check_agreement("features and real must have the shapes (B, F) and (M, F), B and M at least 2", fits, shapes)
    features, real = features.double(), real.double()
    a, b = (each.T.cov().view(each.shape[1], -1) for each in (features, real))  # (F, F), also for F = 1
    values, vectors = torch.linalg.eigh(a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    roots = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt()  # of the eigenvalues of A B
    apart = (features.mean(0) - real.mean(0)).square().sum()
    return (apart + a.trace() + b.trace() - 2 * roots.sum()).clamp(min=0).item()


def precision_recall(features: Tensor, real: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """How many drawings look real, and how much of the real images' variety is drawn (Kynkäänniemi et al., 2019).

    Around each real image lies a ball that reaches to its third nearest neighbour among the real images. Precision is
    the share of drawings that lie in such a ball. Recall is the share of real images that lie in a ball of a drawing.
    Both depend on the numbers of images: take as many drawings as real images.

    Args:
        features: (B, F) of drawings, as `judge` gives them.
        real: (M, F) of real images.
        neighbours: which neighbour sets the radius, at least 1 and below B and M.

    Returns:
        Precision and recall, each from 0 to 1.
    """
    fewest = min(len(features), len(real))
    most = f"neighbours must be at least 1 and below the {fewest} images"
    check_agreement(most, 1 <= neighbours < fewest, neighbours)
    return _share_inside(features, real, neighbours), _share_inside(real, features, neighbours)


def _share_inside(points: Tensor, others: Tensor, neighbours: int) -> float:
    """The share of points (B, F) that lie in a ball around one of the others (M, F)."""
    exact = {"compute_mode": "donot_use_mm_for_euclid_dist"}  # two equal images are 0 apart
    near = [torch.cdist(part, others, **exact).kthvalue(neighbours + 1).values for part in others.split(1000)]
    radii = torch.cat(near)  # the nearest is the image itself
    inside = [(torch.cdist(part, others, **exact) <= radii).any(1) for part in points.split(1000)]
    return torch.cat(inside).double().mean().item()


def judge_drawings(model: nn.Module, digits: Digits, count: int = 1000, seed: int = 0) -> dict:
    """Let a model draw, and compare its drawings with as many test images; see `compare_drawings`.

    Args:
        model: any model of images of 28 x 28 pixels, on any device. A conditional model draws the labels of `count`
            test images.
        digits: the images; `train` and `test` serve.
        count: how many drawings, from 4 to the number of test images.
        seed: of the drawings.
    """
    check_agreement("model must be of images of 28 x 28 pixels", model.image_size == 28, model.image_size)
    check_range(4, len(digits.test.labels), count=count)
    labels, drawn = digits.test.labels[_order(len(digits.test.labels), 0)[:count]], []
    for part, asked in enumerate(labels.split(100)):
        given = {"labels": asked} if model.num_classes else {"count": len(asked)}
        drawn.append(generate(model, **given, seed=seed + part).tokens)
    found = compare_drawings(torch.cat(drawn), labels, model.num_levels, digits)
    return found if model.num_classes else {key: value for key, value in found.items() if "recognized" not in key}


def compare_drawings(
    tokens: Tensor, labels: Tensor, num_levels: int, digits: Digits, classifier: nn.Module | None = None
) -> dict:
    """Compare drawings with test images of the same labels, in the features of a classifier.

    Each measure comes with its floor, the result of written digits: training images of the same labels take the place
    of the drawings. For the share that is read as its label, the floor is that of the test images. The written digits
    are a random choice, always the same, because the first half of MNIST's test images is easier than the second.

    Args:
        tokens: (B, 784) integers, the drawings.
        labels: (B,) integers, the digits asked for; at least 4.
        num_levels: the number of levels K of the tokens.
        digits: the images; `train` and `test` serve.
        classifier: a `LeNet5` or a `MLPReader`; None for the LeNet-5 of the package.

    Returns:
        The entries "recognized", "frechet", "precision" and "recall", each also with "_floor" behind its name.
    """
    classifier = load_classifier() if classifier is None else classifier
    drawn, written = judge(tokens, labels, num_levels, classifier), {}
    for name, part in (("train", digits.train), ("test", digits.test)):
        rows = rows_with(labels, part.labels, f"digits.{name}")
        pixels = quantize(part.images[rows], num_levels).flatten(1)
        written[name] = judge(pixels, labels, num_levels, classifier)
    target = written["test"].features
    read = {"recognized": drawn.recognized, "recognized_floor": written["test"].recognized}
    found = {name: right.double().mean().item() for name, right in read.items()}
    for name, verdict in (("", drawn), ("_floor", written["train"])):
        found[f"frechet{name}"] = frechet_distance(verdict.features, target)
        found[f"precision{name}"], found[f"recall{name}"] = precision_recall(verdict.features, target)
    return found


def rows_with(labels: Tensor, of: Tensor, name: str, seed: int = 0) -> Tensor:
    """The rows (B,) of images with these labels (B,), each taken once: a random choice that depends on the seed only.

    Args:
        labels: (B,) integers, the labels wanted.
        of: (M,) integers, the labels of the images to choose from.
        name: of these images, for an error.
        seed: of the choice.
    """
    order, rows = _order(len(of), seed), torch.empty(len(labels), dtype=torch.long)
    for label in labels.unique():
        found, wanted = order[of[order] == label], labels == label
        enough = f"{name} must hold at least {wanted.sum()} images of class {label}"
        check_agreement(enough, len(found) >= wanted.sum(), len(found))
        rows[wanted] = found[: wanted.sum()]
    return rows


def _order(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, 28, 28) each turned by up to 12 degrees, scaled by up to 12 % and shifted by up to 2.5 pixels."""
    uniform = 2 * torch.rand(4, len(images), generator=generator) - 1
    angle, scale = 12 / 180 * torch.pi * uniform[0], 1 + 0.12 * uniform[1]
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    shift = 2.5 / 14 * uniform[2:]
    matrices = torch.stack([cosine, -sine, shift[0], sine, cosine, shift[1]], 1).view(-1, 2, 3)
    grid = F.affine_grid(matrices, [len(images), 1, 28, 28], align_corners=False)
    return F.grid_sample(images.unsqueeze(1), grid, align_corners=False).squeeze(1)


def train_classifier(classifier: nn.Module, digits: Digits, epochs: int = 20, seed: int = 0) -> dict:
    """Train a classifier on jittered digits, round it to float16, and return its accuracies, seconds and recipe.

    AdamW and a one-cycle schedule, batches of 128; the last epoch counts.

    Args:
        classifier: a `LeNet5` or a `MLPReader`, with its first weights. It is trained in place.
        digits: the images; learned from `train`, scored on `val` and `test`.
        epochs: how often each image is seen, at least 1.
        seed: of order, jitter and dropout.
    """
    check_agreement("digits must be grey images", digits.train.images.dim() == 3, "images in colour")
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    classifier.train()
    batch_size = 128
    images, labels = digits.train.first(full_or_quick(len(digits.train.images), QUICK_IMAGES))
    images = dequantize(quantize(images, SHOWN_LEVELS), SHOWN_LEVELS)  # (M, 28, 28)
    batch_size = min(batch_size, len(images))
    steps = epochs * (len(images) // batch_size)
    optimizer = torch.optim.AdamW(classifier.parameters(), 4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps + 1, pct_start=0.15)
    began = time.perf_counter()
    batches = ShuffledBatches(len(images), batch_size, steps, seed)
    for rows in progress(batches, unit="step"):
        loss = F.cross_entropy(classifier(jitter(images[rows], generator)), labels[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    seconds = time.perf_counter() - began
    classifier.load_state_dict({name: tensor.half().float() for name, tensor in classifier.state_dict().items()})
    card = {"epochs": epochs, "seed": seed, "seconds": seconds}
    for name, part in (("val", digits.val), ("test", digits.test)):
        part = part.first(full_or_quick(len(part.images), QUICK_IMAGES))
        tokens = quantize(part.images, SHOWN_LEVELS).flatten(1)
        read = judge(tokens, part.labels, SHOWN_LEVELS, classifier.eval()).recognized
        card[f"{name}_accuracy"] = read.float().mean().item()
    return card


def save_classifier(classifier: nn.Module, path: Path, card: dict) -> None:
    """Write a classifier's weights in float16 to a .safetensors file, with its card in the metadata."""
    halves = {name: tensor.half().contiguous() for name, tensor in classifier.state_dict().items()}
    write_tensors(path, halves, {"card": json.dumps(card)})
