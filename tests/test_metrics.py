"""The classifier that judges drawings, and the measures built on it."""

import json
import math

import pytest
import torch
from safetensors import safe_open

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


def test_spread_is_the_mean_distance_within_classes():
    features = torch.tensor([[0.0, 0], [3, 4], [0, 0], [10, 0], [0, 0], [10, 0]])
    labels = torch.tensor([7, 7, 2, 2, 2, 2])
    distances = [math.dist(a, b) for a, b in ((features[2], features[3]),)]  # ten, four times of six pairs
    assert metrics.spread(features, labels) == pytest.approx((5 + 4 * distances[0] / 6) / 2)
    assert metrics.spread(torch.ones(4, 84), torch.zeros(4, dtype=torch.long)) == 0
    assert metrics.spread(3 * features, labels) == pytest.approx(3 * metrics.spread(features, labels))


def test_bad_input_is_named():
    tokens, labels = torch.zeros(2, 784, dtype=torch.long), torch.tensor([1, 2])
    for change, error, message in (
        ({"tokens": tokens[:, :9]}, ValueError, r"tokens must have shape \(B, 784\), not \(2, 9\)"),
        ({"tokens": tokens + 16}, ValueError, "tokens must hold levels from 0 to 15, not 16"),
        ({"tokens": tokens.float()}, TypeError, "tokens must be a tensor of integers"),
        ({"labels": labels + 8}, ValueError, "labels must be from 0 to 9, not 10"),
        ({"labels": labels[:1]}, ValueError, "labels must have shape"),
    ):
        with pytest.raises(error, match=message):
            metrics.judge(**{"tokens": tokens, "labels": labels, "num_levels": 16} | change)
    with pytest.raises(ValueError, match="at least twice, not class 2 once"):
        metrics.spread(torch.zeros(3, 2), torch.tensor([1, 1, 2]))


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
    monkeypatch.setattr(metrics, "quick_mode", lambda: True)
    monkeypatch.setattr(metrics.training, "quick_images", lambda images: ar.ImageSet(*(part[:256] for part in images)))
    cards = [metrics.train_classifier(digits, tmp_path / f"{i}.safetensors", epochs=20) for i in (0, 1)]
    assert cards[0]["val_accuracy"] > 0.5
    assert {**cards[0], "seconds": 0} == {**cards[1], "seconds": 0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.safetensors", "1.safetensors"]


def test_a_missing_or_damaged_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "WEIGHTS", tmp_path / "lenet5.safetensors")
    with pytest.raises(FileNotFoundError, match="lenet5"):
        metrics.load_classifier()
    (tmp_path / "lenet5.safetensors").write_bytes(b"short")
    with pytest.raises(OSError, match="damaged"):
        metrics.load_classifier()
