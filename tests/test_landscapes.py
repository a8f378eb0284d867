"""The landscapes, and other images in colour."""

import pickle
import time
import zlib

import numpy as np
import pytest
import torch

import ar_helpers as ar
from ar_helpers import data
from ar_helpers import landscapes as painter
from ar_helpers.landscapes import BATCH, Scene, label_name, landscapes

CHECKSUMS = {64: 0x8BE4CB85, 32: 0x23D8B2FF}  # of the first 64 pictures of seed 0


@pytest.mark.parametrize("size", [64, 32])
def test_the_same_bytes_everywhere(size):
    images, labels = landscapes(64, size=size)
    assert images.shape == (64, size, size, 3)
    assert images.dtype == labels.dtype == np.uint8
    assert zlib.crc32(images.tobytes()) == CHECKSUMS[size]


def test_a_picture_does_not_depend_on_how_many_are_made():
    images, labels = landscapes(2 * BATCH + 3)
    for first, count in ((0, 1), (5, 7), (BATCH, BATCH), (BATCH - 1, 4)):
        fewer, fewer_labels = landscapes(count, first=first)
        assert (fewer == images[first : first + count]).all()
        assert (fewer_labels == labels[first : first + count]).all()
    assert (landscapes(5, seed=1)[0] != images[:5]).any((1, 2, 3)).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 48}, "size must be 64 or a divisor of it, not 48"),
        ({"size": 0}, "size must be 64 or a divisor of it, not 0"),
        ({"count": -1}, "count must be from 0 to 4294967296, not -1"),
        ({"seed": -1}, "seed must be from 0 to 4294967295, not -1"),
        ({"seed": 2**32}, "seed must be from 0 to 4294967295, not 4294967296"),
        ({"first": 2**32 - 1, "count": 2}, "count must be from 0 to 1, not 2"),
    ],
)
def test_what_cannot_be_painted_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        landscapes(**{"count": 1} | wrong)


@pytest.mark.parametrize("name", ["count", "seed", "size", "first"])
def test_sizes_are_whole_numbers(name):
    with pytest.raises(TypeError, match=f"{name} must be a whole number, not 1.5"):
        landscapes(**{"count": 1, name: 1.5})


def test_no_value_leaves_its_range_and_wraps(monkeypatch):
    canvases = []

    class Kept(Scene):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            canvases.append(self)

    monkeypatch.setattr(painter, "Scene", Kept)
    landscapes(3 * BATCH)
    assert len(canvases) == 3
    assert min(scene.canvas.min() for scene in canvases) >= 0
    assert max(scene.canvas.max() for scene in canvases) <= 255


def test_no_two_are_alike_and_all_labels_are_about_as_frequent(record_property):
    began = time.perf_counter()
    images, labels = landscapes(1_600)
    record_property("landscapes a second", round(1_600 / (time.perf_counter() - began)))
    print(f"{1_600 / (time.perf_counter() - began):.0f} landscapes a second")
    assert len({(image >> 4).tobytes() for image in images}) == 1_600  # at 4 bits a channel, as models see them
    counts = np.bincount(labels, minlength=16)
    assert counts.shape == (16,)
    assert abs(counts - 100).max() < 40  # four standard deviations
    assert images.min() < 16
    assert images.max() > 240
    brightness = np.array([images[labels % 4 == hour].mean() for hour in range(4)])  # dawn, day, dusk, night
    assert brightness.argmin() == 3
    green = [(images[labels == 4 * season + 1, 40:, :, 1].mean() - images[labels == 4 * season + 1, 40:, :, 0].mean())
             for season in range(4)]  # by day, of the land  # fmt: skip
    assert green[1] > green[2]  # summer is greener than autumn


def test_labels_have_names():
    names = [label_name(label) for label in range(16)]
    assert names[0] == "spring dawn"
    assert names[15] == "winter night"
    assert len(set(names)) == 16


def test_landscapes_are_made_once_and_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data, "full_or_quick", lambda full, quick: [1_000, 100, 100] if full[0] == 10_000 else full)
    made = ar.load_images("landscapes_32", tmp_path)
    assert "Making 1,200 landscapes" in capsys.readouterr().out
    assert [tuple(part.images.shape) for part in made] == [(n, 32, 32, 3) for n in (1_000, 100, 100)]
    assert made.name == "landscapes_32"
    assert made.train.labels.dtype == torch.int64
    expected, labels = landscapes(3, size=32, first=1_000)
    assert torch.equal(made.val.images[:3], torch.from_numpy(expected))
    assert made.val.labels[:3].tolist() == labels.tolist()
    monkeypatch.setattr(data, "landscapes", None)
    again = ar.load_images("landscapes_32", tmp_path)
    assert capsys.readouterr().out == ""
    assert torch.equal(again.test.images, made.test.images)
    assert [path.name for path in (tmp_path / "landscapes").iterdir()] == ["landscapes_32_version_1.safetensors"]


def test_a_folder_that_cannot_be_written_is_named_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(data, "landscapes", None)
    with pytest.raises(OSError, match=r"root='.*file' cannot be written .*: set AR_DATA to another folder"):
        ar.load_images("landscapes", tmp_path / "file")


def test_a_disk_that_is_full_is_named_too(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(data, "full_or_quick", lambda full, quick: [4, 1, 1])
    monkeypatch.setattr(data, "write_tensors", full)
    with pytest.raises(OSError, match=r"root=.* cannot be written \(No space left on device\): set AR_DATA"):
        ar.load_images("landscapes", tmp_path)


def test_a_quick_run_makes_a_few_and_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("AR_QUICK", "1")
    few = ar.load_images("landscapes", tmp_path)
    assert [tuple(part.images.shape) for part in few] == [(32, 64, 64, 3), (8, 64, 64, 3), (8, 64, 64, 3)]
    assert not list(tmp_path.iterdir())


def test_photographs_are_pieces_that_no_two_sets_share():
    digits = ar.load_images("photographs")
    assert [tuple(part.images.shape) for part in digits] == [(n, 32, 32, 3) for n in (1_400, 250, 200)]
    assert [part.labels.bincount().tolist() for part in digits] == [[700, 700], [125, 125], [100, 100]]
    from sklearn.datasets import load_sample_images

    photo = torch.from_numpy(load_sample_images().images[1].copy())
    assert torch.equal(digits.train.images[700], photo[:32, :32])
    assert torch.equal(digits.train.images[-1], photo[384:416, 432:464])  # the next column belongs to validation
    assert torch.equal(digits.val.images[125], photo[:32, 464:496])
    assert torch.equal(digits.val.images[-1], photo[384:416, 528:560])
    assert torch.equal(digits.test.images[100], photo[:32, 560:592])
    assert torch.equal(digits.test.images[-1], photo[384:416, 608:640])


def cifar10(folder, count=10):
    """Files like those of CIFAR-10, and their checksums."""
    from hashlib import md5

    folder.mkdir(parents=True)
    sums = {}
    contents = {f"data_batch_{n}": count for n in range(1, 6)} | {"test_batch": count}
    for number, (name, size) in enumerate(contents.items()):
        content = {"data": np.full((size, 3072), number, np.uint8), "labels": [number] * size}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(n) for n in range(10)]}))
    for path in folder.iterdir():
        sums[path.name] = md5(path.read_bytes()).hexdigest()
    return sums


def test_cifar10_comes_through_torchvision(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    sums = cifar10(tmp_path / "cifar-10-batches-py")
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(CIFAR10, name, [[file, sums[file]] for file, _ in getattr(CIFAR10, name)])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
    monkeypatch.setattr(data, "_split", lambda name, train, test, val_size: (name, train, test, val_size))
    name, train, test, val_size = ar.load_images("cifar10", tmp_path)
    assert (name, val_size) == ("cifar10", 5_000)
    assert train.images.shape == (50, 32, 32, 3)
    assert train.images.dtype == torch.uint8
    assert train.labels[::10].tolist() == list(range(5))
    assert test.images.unique().tolist() == [5]


def test_without_a_network_cifar10_is_an_error_of_one_line(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    def fail(*arguments, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(CIFAR10, "download", fail)
    with pytest.raises(OSError, match=r"cifar10 could not be loaded .*no network"):
        ar.load_images("cifar10", tmp_path)
