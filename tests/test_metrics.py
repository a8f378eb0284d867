"""The classifier that judges drawings, and the measures built on it."""

import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from scipy import linalg

import ar_helpers as ar
from ar_helpers import metrics


@pytest.fixture(scope="module")
def digits():
    return ar.load_images("digits")


def test_it_is_lenet_5():
    assert sum(p.numel() for p in metrics.LeNet5().parameters()) == 61_706
    assert metrics.LeNet5()(torch.zeros(3, 28, 28)).shape == (3, 10)


def test_the_shipped_classifier_reads_and_its_file_is_small():
    assert metrics.WEIGHTS.stat().st_size < 300_000
    with safe_open(metrics.WEIGHTS, "pt") as file:
        card = json.loads(file.metadata()["card"])
    assert card["test_accuracy"] >= 0.992  # measured on the test images of MNIST by the run that made the file


def test_it_reads_digits_that_it_has_never_seen(digits):
    tokens = ar.quantize(digits.test.images[:300], 16).flatten(1)
    verdict = metrics.judge(tokens, digits.test.labels[:300], 16)
    assert (verdict.recognized.shape, verdict.features.shape) == ((300,), (300, 84))
    assert verdict.recognized.float().mean() > 0.85  # of another hand, and from 8 x 8 pixels
    wrong = metrics.judge(tokens, (digits.test.labels[:300] + 1) % 10, 16)
    assert wrong.recognized.float().mean() < 0.1
    assert torch.equal(wrong.features, verdict.features)


def test_the_number_of_levels_hardly_matters(digits):
    images, labels = digits.test.images[:200], digits.test.labels[:200]
    few, many = (metrics.judge(ar.quantize(images, k).flatten(1), labels, k).recognized for k in (16, 256))
    assert (few == many).float().mean() > 0.97


def test_coverage_is_the_share_of_real_images_with_a_drawing_near_them():
    real = torch.tensor([[0.0, 0], [1, 0], [3, 0], [9, 0]])  # nearest others 1, 1, 2 and 6 away
    labels = torch.zeros(4, dtype=torch.long)

    def covered(*drawn, real=real, neighbours=1):
        return metrics.coverage(torch.tensor(drawn), labels[: len(drawn)], real, labels, neighbours)

    assert covered([0.5, 0.0]) == 2 / 4
    assert covered([0.5, 0.0], [0.5, 0.0]) == 2 / 4  # the same again covers nothing more
    assert covered([0.0, 1.0]) == 0  # as far from the first as its neighbour is, and that is not near
    assert covered([2.5, 0.0], [9.0, 5.0]) == 2 / 4
    assert covered([0.0, 0.0], neighbours=2) == 2 / 4  # now 3, 2, 3 and 8
    assert covered([0.0, 100.0]) == 0
    other = torch.ones(1, dtype=torch.long)
    assert metrics.coverage(torch.tensor([[0.5, 0.0]]), other, real, labels, 1) == 0  # of another class


def test_coverage_against_counting_one_by_one():
    generator = torch.Generator().manual_seed(0)
    real, drawn = torch.randn(60, 5, generator=generator), torch.randn(30, 5, generator=generator)
    real_labels, labels = torch.arange(60) % 3, torch.arange(30) % 3
    count = 0
    for i in range(60):
        others = [j for j in range(60) if j != i and real_labels[j] == real_labels[i]]
        radius = sorted(math.dist(real[i], real[j]) for j in others)[4]
        count += any(math.dist(real[i], drawn[j]) < radius for j in range(30) if labels[j] == real_labels[i])
    assert 0 < count < 60
    assert metrics.coverage(drawn, labels, real, real_labels) == count / 60


def test_the_frechet_distance_by_hand():
    # On a line: the means 0 and 5 are 5 apart, the variances are 2 and 18, so 25 + 2 + 18 - 2 sqrt(36) = 33.
    assert metrics.frechet_distance(torch.tensor([[-1.0], [1]]), torch.tensor([[2.0], [8]])) == pytest.approx(33)
    square = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    assert metrics.frechet_distance(square, square.flip(0)) == pytest.approx(0, abs=1e-12)
    assert metrics.frechet_distance(square + 3, square) == pytest.approx(18)  # 3 along each of two axes
    assert metrics.frechet_distance(3 * square, square) == pytest.approx(
        2 * (3 - 1) ** 2 * 2 / 3
    )  # variances 6 and 2/3


def test_the_frechet_distance_against_scipy():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(6, 6, generator=generator, dtype=torch.double)
    a = torch.randn(50, 6, generator=generator, dtype=torch.double) @ mix
    b = torch.randn(40, 6, generator=generator, dtype=torch.double) + 0.3
    product = linalg.sqrtm(a.T.cov().numpy() @ b.T.cov().numpy()).real
    expected = (a.mean(0) - b.mean(0)).square().sum() + a.T.cov().trace() + b.T.cov().trace() - 2 * product.trace()
    assert metrics.frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-9)
    assert metrics.frechet_distance(b, a) == pytest.approx(expected.item(), rel=1e-9)
    few = metrics.frechet_distance(a[:3], b)  # fewer images than features: the covariance is singular
    assert math.isfinite(few)
    assert few > 0


def test_precision_and_recall_by_hand():
    real = torch.tensor([[0.0], [1], [3]])  # the nearest others are 1, 1 and 2 away
    drawn = torch.tensor([[1.5], [4.5], [20]])  # 3, 3 and 15.5
    precision, recall = metrics.precision_recall(drawn, real, 1)
    assert precision == pytest.approx(2 / 3)  # 1.5 and 4.5 are near 1 and near 3; 20 is near nothing
    assert recall == 1  # 0, 1 and 3 are at most 3 from 1.5
    assert metrics.precision_recall(real, drawn, 1) == (recall, precision)
    assert metrics.precision_recall(drawn + 100, real, 1) == (0, 0)
    assert metrics.precision_recall(real, real, 1) == (1, 1)


def test_precision_and_recall_against_counting_one_by_one():
    generator = torch.Generator().manual_seed(0)
    drawn = 1.3 * torch.randn(30, 5, generator=generator)
    real = torch.randn(40, 5, generator=generator)

    def inside(points, others):
        radii = [sorted(math.dist(a, b) for b in others)[3] for a in others]  # the first is 0, to itself
        near = [any(math.dist(p, a) <= radius for a, radius in zip(others, radii, strict=True)) for p in points]
        return sum(near) / len(points)

    expected = inside(drawn.tolist(), real.tolist()), inside(real.tolist(), drawn.tolist())
    assert 0 < expected[0] < 1
    assert metrics.precision_recall(drawn, real) == pytest.approx(expected)


def test_a_model_that_draws_the_test_images_is_perfect(digits, monkeypatch):
    asked, order = [], torch.randperm(len(digits.test.labels), generator=torch.Generator().manual_seed(0))
    mixed = ar.ImageSet(digits.test.images[order], digits.test.labels[order])

    def copy(model, labels, seed):
        asked.append((labels, seed))
        start = sum(map(len, (labels for labels, _ in asked[:-1])))
        tokens = ar.quantize(mixed.images[start : start + len(labels)], 16).flatten(1)
        return ar.Samples(tokens, tokens, tokens)

    monkeypatch.setattr(metrics, "generate", copy)
    found = metrics.judge_drawings(ar.ConditionalMLP(hidden_size=4, context_length=3), digits, 130, seed=5)
    assert torch.equal(torch.cat([labels for labels, _ in asked]), mixed.labels[:130])
    assert len({seed for _, seed in asked}) == len(asked) == 2, "each batch has a seed of its own"
    assert found["frechet"] == pytest.approx(0, abs=1e-6)
    assert (found["precision"], found["recall"]) == (1, 1)
    assert found["recognized"] == found["recognized_floor"] > 0.8
    assert found["frechet_floor"] > 0
    assert 0 < found["precision_floor"] <= 1
    assert 0 < found["recall_floor"] <= 1
    few = digits._replace(train=digits.train.first(20))
    with pytest.raises(ValueError, match=r"digits.train must hold at least \d+ images of class \d, not \d"):
        metrics.judge_drawings(ar.ConditionalMLP(hidden_size=4, context_length=3), few, 130)
    with pytest.raises(ValueError, match="model must be of images of 28 x 28 pixels, not 8"):
        metrics.judge_drawings(ar.OneHotMLP(image_size=8, hidden_size=4), digits)


def test_the_measures_name_what_is_wrong():
    two, three = torch.zeros(2, 3), torch.zeros(4, 2)
    with pytest.raises(ValueError, match=r"features and real must have the shapes .*, not \(2, 3\) and \(4, 2\)"):
        metrics.frechet_distance(two, three)
    with pytest.raises(ValueError, match=r"B and M at least 2, not \(1, 2\) and \(4, 2\)"):
        metrics.frechet_distance(three[:1], three)
    with pytest.raises(ValueError, match="neighbours must be at least 1 and below the 2 images, not 3"):
        metrics.precision_recall(three[:2], three)


def test_bad_input_is_named():
    tokens, labels = torch.zeros(2, 784, dtype=torch.long), torch.tensor([1, 2])
    for change, error, message in (
        ({"tokens": tokens[:, :9]}, ValueError, r"tokens must have shape \(B, 784\), not \(2, 9\)"),
        ({"tokens": tokens + 16}, ValueError, "tokens must be from 0 to 15, not 16"),
        ({"tokens": tokens.float()}, TypeError, "tokens must be a tensor of integers"),
        ({"labels": labels + 8}, ValueError, "labels must be from 0 to 9, not 10"),
        ({"labels": labels[:1]}, ValueError, "labels must have shape"),
    ):
        with pytest.raises(error, match=message):
            metrics.judge(**{"tokens": tokens, "labels": labels, "num_levels": 16} | change)
    some = torch.zeros(6, 2), torch.zeros(6, dtype=torch.long)
    for neighbours in (0, 6):
        message = f"at least 1 and below the 6 real images of class 0, not {neighbours}"
        with pytest.raises(ValueError, match=message):
            metrics.coverage(*some, *some, neighbours)


def test_jitter_moves_a_little_and_keeps_the_range(digits):
    images = digits.test.images[:64].float() / 255
    moved = metrics.jitter(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert 0 <= moved.min() <= moved.max() <= 1 + 1e-5
    assert not torch.equal(moved, images)
    place = torch.arange(28.0)
    for axis in (1, 2):
        before, after = ((x.sum(axis) * place).sum(1) / x.sum((1, 2)) for x in (images, moved))
        assert (before - after).abs().max() < 4.5
    again = metrics.jitter(images, torch.Generator().manual_seed(0))
    assert torch.equal(moved, again)


def test_training_it_learns_and_is_reproducible(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "full_or_quick", lambda full, quick: 256)
    for kind in (metrics.LeNet5, metrics.MLPReader):
        cards = []
        for path in (tmp_path / "0.safetensors", tmp_path / "1.safetensors"):
            torch.manual_seed(0)
            classifier = kind()
            cards.append(metrics.train_classifier(classifier, digits, epochs=20))
            metrics.save_classifier(classifier, path, cards[-1])
        assert cards[0]["val_accuracy"] > 0.5
        assert {**cards[0], "seconds": 0} == {**cards[1], "seconds": 0}
        first, second = (load_file(tmp_path / f"{i}.safetensors") for i in (0, 1))
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_missing_or_damaged_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "WEIGHTS", tmp_path / "lenet5.safetensors")
    with pytest.raises(FileNotFoundError, match="lenet5"):
        metrics.load_classifier()
    (tmp_path / "lenet5.safetensors").write_bytes(b"short")
    with pytest.raises(OSError, match="damaged"):
        metrics.load_classifier()
