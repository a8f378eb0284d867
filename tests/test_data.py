"""Quantization, the two data sets, and loading images whatever the network and the folder are like."""

import gzip
import hashlib
import os
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from torchvision import datasets

import ar_helpers as ar
from ar_helpers import data
from ar_helpers.tokens import binarize

pytestmark = pytest.mark.usefixtures("clean_environment")

ALL_LEVELS = range(2, 257)
ALL_PIXELS = torch.arange(256, dtype=torch.uint8)

# --- quantize and dequantize --------------------------------------------------------------------------------------


def test_quantize_is_integer_arithmetic_for_every_pixel_and_every_number_of_levels():
    for num_levels in ALL_LEVELS:
        assert ar.quantize(ALL_PIXELS, num_levels).tolist() == [x * num_levels // 256 for x in range(256)]


def test_quantize_of_floats_agrees_with_uint8():
    for num_levels in ALL_LEVELS:
        assert torch.equal(ar.quantize(ALL_PIXELS / 256, num_levels), ar.quantize(ALL_PIXELS, num_levels))


def test_quantize_reaches_every_level_in_order_and_white_is_the_last():
    for num_levels in ALL_LEVELS:
        assert ar.quantize(ALL_PIXELS, num_levels).unique_consecutive().tolist() == list(range(num_levels))
        ramp = ar.quantize(torch.linspace(0, 1, 5000), num_levels)
        assert ramp.unique_consecutive().tolist() == list(range(num_levels))
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            assert ar.quantize(torch.tensor([0.0, 1.0], dtype=dtype), num_levels).tolist() == [0, num_levels - 1]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_quantize_undoes_dequantize(dtype):
    for num_levels in ALL_LEVELS:
        tokens = torch.arange(num_levels).to(dtype)
        assert torch.equal(ar.quantize(ar.dequantize(tokens, num_levels), num_levels).to(dtype), tokens)


def test_dequantize_gives_bin_centres():
    for num_levels in ALL_LEVELS:
        centres = ar.dequantize(torch.arange(num_levels), num_levels)
        expected = torch.tensor([(t + 0.5) / num_levels for t in range(num_levels)])
        torch.testing.assert_close(centres, expected, rtol=1e-6, atol=0)


def test_an_image_is_never_further_from_its_bin_centre_than_half_a_bin():
    grey = torch.rand(1000)
    for num_levels in ALL_LEVELS:
        error = (ar.dequantize(ar.quantize(grey, num_levels), num_levels) - grey).abs().max()
        assert error <= 0.5 / num_levels + 1e-6


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (2, 1, 4, 4)])
def test_quantize_and_dequantize_keep_any_shape(shape):
    tokens = ar.quantize(torch.zeros(shape, dtype=torch.uint8), 16)
    assert (tokens.shape, tokens.dtype) == (shape, torch.uint8)
    assert ar.quantize(torch.zeros(shape), 16).shape == shape
    grey = ar.dequantize(tokens, 16)
    assert (grey.shape, grey.dtype) == (shape, torch.float32)


def test_binarized_pixels_are_white_as_often_as_their_grey_value_says():
    grey = ALL_PIXELS.repeat(4000, 1)
    tokens = binarize(grey, seed=3)
    assert torch.equal(tokens, binarize(grey, seed=3))
    assert not torch.equal(tokens, binarize(grey, seed=4))
    assert set(tokens.unique().tolist()) == {0, 1}
    share, expected = tokens.double().mean(0), ALL_PIXELS / 255
    assert (share[0], share[-1]) == (0, 1)
    assert ((share - expected).abs() <= 5 * (expected * (1 - expected) / 4000).sqrt()).all()
    with pytest.raises(ValueError, match="images must be from 0 to 255, not 256"):
        binarize(torch.tensor([256]), 0)
    with pytest.raises(TypeError, match="images must be a tensor of integers"):
        binarize(torch.zeros(3), 0)


def test_quantize_takes_numpy_arrays():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert torch.equal(ar.quantize(pixels, 16), ar.quantize(torch.from_numpy(pixels), 16))


@pytest.mark.parametrize("value", [-0.001, 1.001, 255.0, float("nan"), float("inf"), -float("inf")])
def test_quantize_names_a_value_outside_0_to_1(value):
    with pytest.raises(ValueError, match=rf"images must lie in \[0, 1\].*not {value}"):
        ar.quantize(torch.tensor([0.5, value], dtype=torch.float64), 16)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8, torch.bool, torch.complex64])
def test_quantize_refuses_other_types(dtype):
    with pytest.raises(TypeError, match=f"images must be uint8 or floating point, not {dtype}"):
        ar.quantize(torch.zeros(3, dtype=dtype), 16)


@pytest.mark.parametrize("num_levels", [-16, 0, 1, 257])
def test_levels_outside_their_range_are_named(num_levels):
    for use in (ar.quantize, ar.dequantize):
        with pytest.raises(ValueError, match=f"num_levels must be from 2 to 256, not {num_levels}"):
            use(torch.zeros(3, dtype=torch.uint8), num_levels)


@pytest.mark.parametrize("num_levels", [True, 16.0, "16", None])
def test_levels_that_are_no_int_are_named(num_levels):
    for use in (ar.quantize, ar.dequantize):
        with pytest.raises(TypeError, match=f"num_levels must be an int, not {num_levels!r}"):
            use(torch.zeros(3, dtype=torch.uint8), num_levels)


def test_dequantize_refuses_what_is_no_token():
    with pytest.raises(ValueError, match="tokens must be from 0 to 15, not 16"):
        ar.dequantize(torch.tensor([0, 16]), 16)
    with pytest.raises(ValueError, match="tokens must be from 0 to 15, not -1"):
        ar.dequantize(torch.tensor([-1, 3]), 16)
    with pytest.raises(TypeError, match=r"tokens must be a tensor of integers, not torch\.float32"):
        ar.dequantize(torch.zeros(3), 16)


# --- ContextWindows -----------------------------------------------------------------------------------------------


def slow_windows(tokens, labels, context_length, num_levels):
    """Every example as nested lists, pixel by pixel: what `ContextWindows` must equal."""
    for m, image in enumerate(tokens.tolist()):
        for n in range(len(image)):
            context = [image[n - back] if n - back >= 0 else num_levels for back in range(context_length, 0, -1)]
            yield context, n, None if labels is None else labels[m].item(), image[n]


def as_lists(example):
    (context, position, label), target = example
    return context.tolist(), position.item(), None if label is None else label.item(), target.item()


def random_tokens(num_levels, shape=(3, 6)):
    tokens = torch.randint(num_levels, shape, generator=torch.Generator().manual_seed(0))
    tokens[0, 0], tokens[-1, -1] = num_levels - 1, num_levels - 1  # the highest token, next to the start token
    return tokens.to(torch.uint8)  # as `quantize` gives them


@pytest.mark.parametrize("num_levels", [2, 16, 128, 255, 256])
@pytest.mark.parametrize("context_length", [1, 2, 5, 6, 7, 20])
@pytest.mark.parametrize("labelled", [False, True])
def test_every_window_equals_the_slow_one_in_order(num_levels, context_length, labelled):
    tokens, labels = random_tokens(num_levels), torch.tensor([7, 0, 3]) if labelled else None
    windows = ar.ContextWindows(tokens, labels, context_length=context_length, num_levels=num_levels)
    expected = list(slow_windows(tokens, labels, context_length, num_levels))
    assert len(windows) == tokens.numel() == len(expected)
    assert [as_lists(windows[i]) for i in range(len(windows))] == expected
    assert [as_lists(example) for example in windows] == expected  # iteration goes over all of them and ends


@pytest.mark.parametrize("num_levels", [2, 256])
def test_a_batch_is_its_single_examples_stacked(num_levels):
    labels = torch.tensor([7, 0, 3])
    windows = ar.ContextWindows(random_tokens(num_levels), labels, context_length=4, num_levels=num_levels)
    indices = torch.tensor([17, 0, 5, 5, -1, 6])
    (context, position, label), target = windows[indices]
    for row, index in enumerate(indices.tolist()):
        single = as_lists(windows[index])
        assert single == (context[row].tolist(), position[row].item(), label[row].item(), target[row].item())
    assert (context.shape, position.shape, label.shape, target.shape) == ((6, 4), (6,), (6,), (6,))
    assert {part.dtype for part in (context, position, label, target)} == {torch.int64}
    (of_list, _, _), _ = windows[indices.tolist()]
    assert torch.equal(of_list, context)


def test_a_negative_index_counts_from_the_end_and_others_raise():
    windows = ar.ContextWindows(random_tokens(4), context_length=2, num_levels=4)
    for index in range(-len(windows), 0):
        assert as_lists(windows[index]) == as_lists(windows[index + len(windows)])
    for index in (len(windows), -len(windows) - 1, torch.tensor([0, len(windows)])):
        with pytest.raises(IndexError, match="index must be from 0 to 17"):
            windows[index]


@pytest.mark.parametrize(("num_levels", "dtype"), [(2, torch.uint8), (255, torch.uint8), (256, torch.int16)])
def test_windows_are_a_view_of_the_smallest_integers_that_hold_the_start_token(num_levels, dtype):
    windows = ar.ContextWindows(random_tokens(num_levels), context_length=9, num_levels=num_levels)
    assert windows.padded.dtype == dtype
    assert windows.padded.shape == (3, 9 + 6)
    for part in (windows.windows, windows.tokens):
        assert part.untyped_storage().data_ptr() == windows.padded.untyped_storage().data_ptr()


OF_EACH_KIND = {
    "windows": lambda tokens: ar.ContextWindows(tokens, context_length=3, num_levels=4),
    "thinned": lambda tokens: ar.ThinnedWindows(tokens, context_length=3, num_levels=4, keep=0.5),
    "images": lambda tokens: ar.TokenImages(tokens),
}


def flat(example):
    """Everything that an example or a batch holds, as tensors."""
    return [part for part in torch.utils._pytree.tree_leaves(example) if part is not None]


@pytest.mark.parametrize("kind", OF_EACH_KIND)
def test_all_data_sets_take_whatever_picks_rows_of_a_tensor(kind):
    dataset = OF_EACH_KIND[kind](random_tokens(4, (9, 6)))
    size = len(dataset)
    numbers = torch.arange(size)
    mask = numbers % 3 == 1
    indices = [slice(None), slice(2, 5), slice(-3, None), slice(None, None, -1), slice(7, 2, -2), slice(4, 4), mask]
    indices += [
        mask.numpy(),
        mask.tolist(),
        [0, -1, 2],
        [],
        np.array([3, 1]),
        np.int64(2),
        torch.tensor([[0, 1], [2, 3]]),
    ]
    for index in indices:
        rows = torch.as_tensor(np.array(np.arange(size)[index.numpy() if isinstance(index, torch.Tensor) else index]))
        expected = [flat(dataset[int(row)]) for row in rows.flatten()]
        for number, part in enumerate(flat(dataset[index])):
            assert part.shape[: rows.dim()] == rows.shape
            for row, single in enumerate(expected):
                assert torch.equal(part.flatten(0, rows.dim() - 1)[row] if rows.dim() else part, single[number])


@pytest.mark.parametrize("kind", OF_EACH_KIND)
def test_an_index_that_fits_no_example_is_named(kind):
    dataset = OF_EACH_KIND[kind](random_tokens(4))
    for index, words in (
        (len(dataset), "from 0 to"),
        (torch.ones(len(dataset) + 1, dtype=torch.bool), "as a mask"),
        (0.5, "must be of integers, a slice or a mask"),
    ):
        with pytest.raises(IndexError, match=f"index must.*{words}|{words}"):
            dataset[index]


def test_a_data_loader_gives_whole_batches():
    windows = ar.ContextWindows(random_tokens(4), context_length=3, num_levels=4)
    sampler = BatchSampler(SequentialSampler(windows), batch_size=4, drop_last=False)
    batches = list(DataLoader(windows, sampler=sampler, batch_size=None))
    assert [len(target) for _, target in batches] == [4, 4, 4, 4, 2]
    assert all(inputs[2] is None for inputs, _ in batches)
    expected = [target for *_, target in slow_windows(random_tokens(4), None, 3, 4)]
    assert torch.cat([target for _, target in batches]).tolist() == expected


def test_context_windows_name_what_is_wrong():
    tokens, good = random_tokens(4), {"context_length": 2, "num_levels": 4}
    for context_length in (0, -1):
        with pytest.raises(ValueError, match=f"context_length must be at least 1, not {context_length}"):
            ar.ContextWindows(tokens, context_length=context_length, num_levels=4)
    with pytest.raises(ValueError, match="tokens must be from 0 to 2, not 3"):
        ar.ContextWindows(tokens, context_length=2, num_levels=3)
    with pytest.raises(ValueError, match="num_levels must be from 2 to 256, not 257"):
        ar.ContextWindows(tokens, context_length=2, num_levels=257)
    with pytest.raises(TypeError, match="tokens must be a tensor of integers"):
        ar.ContextWindows(tokens.float(), **good)
    for shape in ((3, 2, 3), (18,), (3, 0)):
        with pytest.raises(ValueError, match=r"tokens must have shape \(M, N\)"):
            ar.ContextWindows(torch.zeros(shape, dtype=torch.long), **good)
    with pytest.raises(ValueError, match=r"labels must have shape \(3,\).*not \(2,\)"):
        ar.ContextWindows(tokens, torch.tensor([1, 2]), **good)
    with pytest.raises(TypeError, match="labels must be a tensor of integers"):
        ar.ContextWindows(tokens, torch.zeros(3), **good)


# --- Thinned windows ----------------------------------------------------------------------------------------------


def thinned(keep=0.25, seed=0):
    tokens = random_tokens(3, (40, 25)) * (random_tokens(5, (40, 25)) == 0)  # mostly black
    return ar.ThinnedWindows(tokens, torch.arange(40), context_length=5, num_levels=3, keep=keep, seed=seed)


def is_dull(context):
    return all(token in (0, 3) for token in [*context[:3], *context[-2:]])


def test_thinning_drops_dull_windows_only_and_gives_those_that_stay_their_weight():
    windows = thinned()
    everything = [ar.ContextWindows.__getitem__(windows, i) for i in range(windows.tokens.numel())]
    kept = set(windows.indices.tolist())
    dull = [is_dull(context.tolist()) for (context, _, _), _ in everything]
    assert all(i in kept for i in range(len(dull)) if not dull[i])
    assert 0.1 < sum(dull[i] for i in kept) / sum(dull) < 0.4
    ratio = {is_dull(context.tolist()): weight.item() for ((context, _, _), _, weight) in windows}
    assert ratio[True] / ratio[False] == pytest.approx(4)
    assert windows.weights.mean().item() == pytest.approx(1)


def test_the_weighted_mean_over_thinned_windows_is_the_mean_over_all_of_them_on_average():
    windows = thinned(keep=1.0)
    value = windows[torch.arange(len(windows))][1].float() + 1  # of each window's target, in place of a loss
    means = []
    for seed in range(300):
        some = thinned(seed=seed)
        means.append((value[some.indices] * some.weights).mean())
    means = torch.stack(means)
    assert abs(means.mean() - value.mean()) < 4 * means.std() / len(means) ** 0.5


def test_keeping_all_windows_is_no_thinning():
    windows = thinned(keep=1.0)
    assert len(windows) == windows.tokens.numel()
    assert (windows.weights == 1).all()


def test_the_seed_decides_which_windows_stay():
    assert torch.equal(thinned().indices, thinned().indices)
    assert not torch.equal(thinned().indices, thinned(seed=1).indices)


@pytest.mark.parametrize("keep", [0, -1, 1.5, float("nan")])
def test_a_share_to_keep_outside_its_range_is_named(keep):
    with pytest.raises(ValueError, match=rf"keep must lie in \(0, 1\], not {keep}"):
        thinned(keep=keep)


# --- TokenImages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [None, torch.tensor([7, 0, 3])])
def test_token_images_are_whole_images_in_order(labels):
    tokens = random_tokens(256).to(torch.uint8)
    images = ar.TokenImages(tokens, labels)
    assert len(images) == 3
    for m, ((inputs, label), target) in enumerate(images):
        assert inputs.tolist() == target.tolist() == tokens[m].tolist()
        assert inputs.dtype == target.dtype == torch.int64
        assert label is None if labels is None else label == labels[m]
    (inputs, label), target = images[torch.tensor([2, 0, -1])]
    assert torch.equal(inputs, tokens[[2, 0, 2]].long())
    assert torch.equal(inputs, target)
    assert label is None if labels is None else label.tolist() == [3, 7, 3]
    with pytest.raises(IndexError):
        images[3]


def test_token_images_name_what_is_wrong():
    tokens = random_tokens(4)
    with pytest.raises(TypeError, match="tokens must be a tensor of integers"):
        ar.TokenImages(tokens.float())
    with pytest.raises(ValueError, match="tokens must be from 0 on, not -1"):
        ar.TokenImages(tokens.long() - 1 - tokens.min())
    with pytest.raises(ValueError, match=r"tokens must have shape \(M, N\)"):
        ar.TokenImages(tokens[0])
    with pytest.raises(ValueError, match=r"labels must have shape \(3,\)"):
        ar.TokenImages(tokens, torch.tensor([1]))


# --- load_images: the built-in digits -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built_in():
    return ar.load_images("digits")


def same(a, b):
    return all(torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True))


def test_the_split_is_that_of_mnist(built_in):
    assert [len(part.images) for part in built_in] == [50_000, 10_000, 10_000]
    for images, labels in built_in:
        assert images.shape[1:] == (28, 28)
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert labels.shape == (len(images),)
        assert labels.unique().tolist() == list(range(10))
        assert (images.amin(), images.amax()) == (0, 255)


def test_the_built_in_digits_are_the_same_each_time_and_leave_the_random_state_alone(built_in):
    before = torch.random.get_rng_state()
    assert same(ar.load_images("digits"), built_in)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_no_built_in_picture_is_in_two_parts(built_in):
    train, val, test = ({image.numpy().tobytes() for image in part.images} for part in built_in)
    assert train.isdisjoint(val | test)
    assert val.isdisjoint(test)


def test_quick_mode_uses_the_built_in_digits_and_says_so(built_in, monkeypatch, capsys):
    monkeypatch.setenv("AR_QUICK", "1")
    assert same(ar.load_images("fashion_mnist"), built_in)
    assert capsys.readouterr().out.splitlines() == [
        "AR_QUICK is set: using the built-in 8 x 8 digits in place of fashion_mnist."
    ]


def test_an_unknown_name_is_refused_even_in_quick_mode(monkeypatch):
    for quick in ("0", "1"):
        monkeypatch.setenv("AR_QUICK", quick)
        with pytest.raises(ValueError, match=r"name must be mnist, .* or the path of images, not 'cifar'"):
            ar.load_images("cifar")


# --- load_images: idx files ---------------------------------------------------------------------------------------


def write_idx(folder, train=60_000, test=10_000):
    """The four files of an MNIST-like data set, with pictures that can be told apart."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("t10k", test)):
        images = (np.arange(count)[:, None] * 7 + np.arange(784)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())


@pytest.fixture(scope="module")
def idx_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("idx")
    write_idx(root / "MNIST" / "raw")
    return root


@pytest.fixture
def no_network(monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        mirror = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    for data_set in (datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST):
        monkeypatch.setattr(data_set, "mirrors", [mirror])


@pytest.mark.usefixtures("no_network")
def test_idx_files_already_there_are_used_as_they_are(idx_root, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in sorted(idx_root.rglob("*"))}
    folders = [idx_root, *(path for path in before if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        digits = ar.load_images("mnist", idx_root)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert [len(part.images) for part in digits] == [50_000, 10_000, 10_000]
    assert digits.train.images[3, 0, :4].tolist() == [21, 22, 23, 24]
    assert digits.val.images[0, 0, 0] == 50_000 * 7 % 256  # the last 10,000 of the training file
    assert digits.test.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert {path: path.stat().st_mtime_ns for path in sorted(idx_root.rglob("*"))} == before
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("AR_DATA", str(idx_root))
    assert same(ar.load_images(), digits)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.usefixtures("no_network")
def test_a_damaged_idx_file_is_named(idx_root, tmp_path, name):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (idx_root / "MNIST" / "raw").iterdir():
        (raw / path.name).symlink_to(path)
    whole = (raw / name).read_bytes()
    for damaged in (whole[:-1], b"", b"<htm" + whole[4:]):
        (raw / name).unlink()
        (raw / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=name):
            ar.load_images("mnist", tmp_path)
        assert (raw / name).read_bytes() == damaged  # the user's file is the user's


# --- load_images: downloads, served here and tiny -----------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(data, "TRAIN_SIZE", 5)
    monkeypatch.setattr(data, "VAL_SIZE", 3)
    monkeypatch.setattr(data, "TEST_SIZE", 2)


@pytest.fixture
def server(monkeypatch, tmp_path, tiny):
    """A mirror of MNIST on this machine; `spoil[file name]` says what goes wrong with a file."""
    write_idx(tmp_path / "served", train=8, test=2)
    files = {path.name + ".gz": gzip.compress(path.read_bytes()) for path in (tmp_path / "served").iterdir()}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.end_headers()

        def do_GET(self):
            name = self.path.strip("/")
            self.server.asked.append(name)
            body, problem = files[name], self.server.spoil.get(name)
            if problem == "silence":
                return
            self.send_response(200)
            if problem == "chunks cut short":
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"ff\r\n" + body[:10])
                return
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:10] if problem else body)
            if problem == "reset":
                self.wfile.flush()
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.spoil, server.asked = {}, []
        server.handle_error = lambda *_: None
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        for data_set in (datasets.MNIST, datasets.FashionMNIST):
            monkeypatch.setattr(data_set, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
            sums = [(name, hashlib.md5(body).hexdigest()) for name, body in sorted(files.items())]
            monkeypatch.setattr(data_set, "resources", sums)
        yield server
        server.shutdown()


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


def test_a_download_lands_in_the_root_and_is_not_repeated(server, tmp_path, capsys):
    root = tmp_path / "new" / "root"
    digits = ar.load_images("mnist", root)
    assert digits.name == "mnist"
    assert [len(part.images) for part in digits] == [5, 3, 2]
    assert digits.val.labels.tolist() == [5, 6, 7]
    assert [name for name in contents(root) if "download" in name] == []
    assert capsys.readouterr().out == "Downloading MNIST, giving up when nothing comes for 20 seconds ...\n"
    server.asked.clear()
    assert same(ar.load_images("mnist", root), digits)
    assert server.asked == []


def test_without_a_root_the_data_go_to_the_users_cache(server):
    ar.load_images()
    assert (Path(os.environ["XDG_CACHE_HOME"]) / "ar_helpers" / "MNIST" / "raw" / "train-images-idx3-ubyte").exists()


def test_a_missing_file_is_fetched_and_the_others_are_left_alone(server, tmp_path):
    digits = ar.load_images("mnist", tmp_path)
    raw = tmp_path / "MNIST" / "raw"
    (raw / "t10k-labels-idx1-ubyte").unlink()
    edited = raw / "train-images-idx3-ubyte"
    edited.write_bytes(edited.read_bytes()[:-1] + b"\x07")
    assert torch.equal(ar.load_images("mnist", tmp_path).test.labels, digits.test.labels)
    assert edited.read_bytes()[-1] == 7


PROBLEMS = ["cut short", "reset", "silence", "chunks cut short"]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"])
def test_mnist_cut_short_leaves_nothing_and_gives_the_digits(server, tmp_path, capsys, problem, name):
    server.spoil[name] = problem
    root = tmp_path / "root"
    digits = ar.load_images("mnist", root)
    assert same(digits, ar.load_images("digits"))
    assert contents(root) == []
    downloading, said = capsys.readouterr().out.splitlines()
    assert downloading.startswith("Downloading MNIST")
    assert said.startswith("MNIST could not be downloaded")
    assert f"{root / 'MNIST' / 'raw'} lacks train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k" in said
    assert said.endswith("using the built-in 8 x 8 digits in its place.")
    server.spoil.clear()
    assert not same(ar.load_images("mnist", root), digits)  # the next try is not hindered


@pytest.mark.parametrize("problem", PROBLEMS)
def test_another_data_set_cut_short_leaves_nothing_and_raises(server, tmp_path, problem):
    server.spoil["train-images-idx3-ubyte.gz"] = problem
    with pytest.raises(OSError, match="fashion_mnist could not be downloaded into root="):
        ar.load_images("fashion_mnist", tmp_path / "root")
    assert contents(tmp_path / "root") == []


@pytest.mark.usefixtures("no_network", "tiny")
def test_without_a_network_mnist_gives_the_digits_and_kmnist_raises(tmp_path, capsys):
    assert same(ar.load_images("mnist", tmp_path), ar.load_images("digits"))
    assert len([line for line in capsys.readouterr().out.splitlines() if "built-in" in line]) == 1
    with pytest.raises(OSError, match="kmnist could not be downloaded"):
        ar.load_images("kmnist", tmp_path)
    assert contents(tmp_path) == []


def test_a_network_that_swallows_what_is_sent_is_given_up(tmp_path, monkeypatch, capsys):
    with socket.socket() as silent:  # it takes connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(data, "PATIENCE", 0.2)
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://one.invalid/", "https://two.invalid/"])
        began = time.perf_counter()
        assert ar.load_images("mnist", tmp_path).name == "digits"
        assert time.perf_counter() - began < 20
    assert "MNIST could not be downloaded" in capsys.readouterr().out
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("place", ["MNIST/raw", "MNIST", "."])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("hyphen", ["-idx", ".idx"])
@pytest.mark.usefixtures("no_network", "tiny")
def test_mnist_brought_along_is_found_under_its_usual_names(tmp_path, place, compressed, hyphen):
    write_idx(tmp_path / "MNIST" / "raw", train=8, test=2)
    expected = ar.load_images("mnist", tmp_path)
    (tmp_path / "brought" / place).mkdir(parents=True)
    for path in (tmp_path / "MNIST" / "raw").iterdir():
        content = gzip.compress(path.read_bytes()) if compressed else path.read_bytes()
        name = path.name.replace("-idx", hyphen) + ".gz" * compressed
        (tmp_path / "brought" / place / name).write_bytes(content)
    digits = ar.load_images("mnist", tmp_path / "brought")
    assert digits.name == "mnist"
    assert same(digits, expected)


@pytest.mark.usefixtures("no_network", "tiny")
def test_a_file_of_another_set_is_told_by_what_it_holds_and_an_old_pickle_is_left_alone(tmp_path):
    write_idx(tmp_path / "MNIST" / "raw", train=8, test=4)
    (tmp_path / "MNIST" / "processed").mkdir()
    for name in ("training.pt", "test.pt"):
        (tmp_path / "MNIST" / "processed" / name).write_bytes(b"not to be opened")
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte must hold 2 x 28 x 28 .* mnist, not 4 x 28 x 28"):
        ar.load_images("mnist", tmp_path)


# --- load_images: a reader's own ----------------------------------------------------------------------------------


def write_pictures(folder, names, side=40):
    """Small pictures, the n-th of shade n."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (side, side + 6), number).save(path)


def test_a_folder_of_pictures_is_split_in_seven(tmp_path):
    write_pictures(tmp_path, [f"{n:02}.png" for n in range(14)])
    (tmp_path / "notes.txt").write_text("not a picture")
    digits = ar.load_images(tmp_path)
    assert [len(part.images) for part in digits] == [10, 2, 2]
    assert digits.train.images.shape[1:] == (28, 28)
    assert digits.train.images.dtype == torch.uint8
    found = torch.cat([part.images[:, 0, 0] for part in digits])
    assert sorted(found.tolist()) == list(range(14))  # none is lost, none is in two parts
    assert same(digits, ar.load_images(str(tmp_path)))  # and the same next time
    assert all((part.labels == 0).all() for part in digits)
    assert digits.name == str(tmp_path)


@pytest.mark.parametrize(
    ("names", "labels"),
    [(("9", "10", "2"), {9, 10, 2}), (("cat", "dog", "10"), {0, 1, 2}), (("2021", "2022", "99"), {0, 1, 2})],
)
def test_sub_folders_are_classes(tmp_path, names, labels):
    write_pictures(tmp_path, [f"{name}/{n}.png" for name in names for n in range(5)])
    digits = ar.load_images(tmp_path)
    assert {int(label) for part in digits for label in part.labels} == labels
    for part in digits:
        for image, label in zip(part.images, part.labels, strict=True):
            name = names[int(image[0, 0]) // 5]
            assert label == (int(name) if labels == {9, 10, 2} else sorted(names).index(name))


def test_folders_to_train_on_and_to_test_on_are_taken_for_what_they_are(tmp_path):
    write_pictures(
        tmp_path, [f"training/{n % 2}/{n}.png" for n in range(12)] + [f"testing/1/{n}.png" for n in range(3)]
    )
    digits = ar.load_images(tmp_path)
    assert [len(part.images) for part in digits] == [10, 2, 3]
    assert digits.test.labels.tolist() == [1, 1, 1]
    write_pictures(tmp_path, [f"valid/0/{n}.png" for n in range(4)])
    digits = ar.load_images(tmp_path)
    assert [len(part.images) for part in digits] == [12, 4, 3]
    assert digits.val.labels.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("quick", ["", "1"])
def test_a_folder_keeps_its_colours_when_asked(tmp_path, monkeypatch, quick):
    monkeypatch.setenv("AR_QUICK", quick)
    for n in range(14):
        path = tmp_path / ("wood", "lake")[n % 2] / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (90, 60), (n, 100 + n, 200)).save(path)
    digits = ar.load_images(tmp_path, colour_size=32)
    assert [tuple(part.images.shape) for part in digits] == [(10, 32, 32, 3), (2, 32, 32, 3), (2, 32, 32, 3)]
    for part in digits:
        for image, label in zip(part.images, part.labels, strict=True):
            red = int(image[0, 0, 0])
            assert (image == torch.tensor([red, 100 + red, 200])).all()
            assert label == (red + 1) % 2  # "lake" comes before "wood"


def test_grey_images_stay_grey_and_a_size_is_at_least_one(tmp_path):
    with pytest.raises(ValueError, match="colour_size must be at least 1, not 0"):
        ar.load_images(tmp_path, colour_size=0)
    write_idx(tmp_path, 6, 3)
    assert ar.load_images(tmp_path, colour_size=32).train.images.shape == (5, 28, 28)


def test_images_of_two_sizes_are_refused(tmp_path):
    for part, count, side in (("train", 6, 12), ("t10k", 3, 16)):
        pixels = bytes(count * side * side)
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, side, side) + pixels)
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + bytes(count))
    with pytest.raises(ValueError, match=r"must be of the same size, not .*12, 12.*16, 16"):
        ar.load_images(tmp_path)


def test_colour_becomes_grey_what_is_transparent_black_and_the_middle_is_kept(tmp_path):
    picture = Image.new("RGBA", (80, 40), (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (30, 0, 50, 40))  # red, in the middle third of the middle square
    for n in range(3):
        picture.save(tmp_path / f"{n}.png")
    image = ar.load_images(tmp_path).train.images[0]
    assert image[:, 14].unique().tolist() == [76]  # red's share of grey: 0.299
    assert image[:, :5].unique().tolist() == [0]


@pytest.mark.parametrize("single", [False, True])
def test_idx_files_of_any_count_and_size_are_read(tmp_path, single):
    images = np.random.default_rng(0).integers(0, 256, (21, 12, 12)).astype(np.uint8)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, 21, 12, 12) + images.tobytes())
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, 21) + bytes(range(21)))
    digits = ar.load_images(tmp_path / "train-images-idx3-ubyte" if single else tmp_path)
    assert [len(part.images) for part in digits] == [15, 3, 3]
    for part in digits:
        assert torch.equal(part.images, torch.from_numpy(images)[part.labels])


@pytest.mark.parametrize(("names", "words"), [
    (["notes.txt"], "must hold pictures, or idx files named train-images-idx3-ubyte and .*, not other files"),
    (["0/a.png", "b.png", "c.png"], "must all lie in sub-folders, or none"),
    (["a.png", "b.png"], "must be at least 3, not 2"),
])  # fmt: skip
def test_what_a_folder_lacks_is_named(tmp_path, names, words):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch() if name.endswith("txt") else write_pictures(tmp_path, [name])
    with pytest.raises(ValueError, match=words):
        ar.load_images(tmp_path)


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    write_pictures(tmp_path, [f"{n}.png" for n in range(5)])
    (tmp_path / "3.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"3\.png is no picture that can be read"):
        ar.load_images(tmp_path)


@pytest.mark.usefixtures("no_network")
def test_a_root_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=f"root='{root}' cannot be written"):
            ar.load_images("mnist", root)
