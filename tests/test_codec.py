"""Lossless compression: every image comes back to the pixel, and no damaged file gives a picture."""

import contextlib
import io
import json
import math
import random

import numpy as np
import pytest
import torch
from PIL import Image

import ar_helpers as ar
from ar_helpers import cards, codec

MODELS = {
    "one-hot": lambda: ar.OneHotMLP(image_size=6, hidden_size=8, context_length=5),
    "positional": lambda: ar.PositionalMLP(image_size=6, hidden_size=8, context_length=5, num_levels=3),
    "conditional": lambda: ar.ConditionalMLP(image_size=6, hidden_size=8, context_length=5, num_levels=256),
    "transformer": lambda: ar.PixelTransformer(image_size=6, width=16, depth=2, heads=2),
    "unconditional": lambda: ar.PixelTransformer(image_size=6, width=16, depth=1, heads=2, num_classes=0, stem=False),
    "patches": lambda: patches(ar.PatchTransformer),
    "independent": lambda: patches(ar.PatchTransformer, independent=True),
    "nested": lambda: patches(ar.NestedTransformer),
}


def patches(kind, **options):
    return kind(image_size=6, width=16, depth=1, heads=2, patch_height=2, patch_width=3, **options)


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param]()


def images(model, count, seed=0):
    """Random images, one black and one white."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(model.num_levels, (count, model.image_size**2), generator=generator)
    tokens[0] = 0
    tokens[-1] = model.num_levels - 1
    return tokens


@pytest.mark.parametrize("count", [1, 2, codec.BATCH + 1])
def test_images_come_back_to_the_pixel_at_the_price_of_the_score(model, count):
    tokens = images(model, count)
    code = codec.encode(model, tokens)
    assert torch.equal(codec.decode(model, code, count), tokens)
    labels = codec.cheapest_labels(model, tokens)
    bits = ar.pixel_bits(model, tokens, labels).double().sum().item()
    bits += count * math.log2(max(model.num_classes, 1))
    assert 0.99 * bits - 8 < 8 * len(code) < 1.01 * bits + 40


def test_the_model_and_the_threads_are_left_as_they_were(model):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    codec.encode(model, images(model, 2))
    assert model.training
    assert all(tensor.dtype == before[name].dtype for name, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = codec.encode(model, images(model, 3))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert codec.encode(model, images(model, 3)) == two, "the number of threads makes no difference"


def test_the_cheapest_label_is_sent(model):
    tokens = images(model, 3)
    labels = codec.cheapest_labels(model, tokens)
    if not model.num_classes:
        assert labels is None
        return
    costs = [ar.pixel_bits(model, tokens, torch.full((3,), label)).sum(1) for label in range(model.num_classes)]
    for i in range(3):
        assert costs[labels[i]][i] == min(cost[i] for cost in costs)


def test_frequencies_are_whole_leave_nothing_out_and_sum_to_the_total():
    logits = torch.tensor([[0.0, 0, 0], [1000, 0, -1000], [0, math.log(2), 0]], dtype=torch.double)
    counts = codec.frequencies(logits)
    assert counts.sum(1).tolist() == [codec.TOTAL] * 3
    assert counts.min() == 1
    assert counts[1].tolist() == [codec.TOTAL - 2, 1, 1]
    assert counts[2] / codec.TOTAL == pytest.approx([0.25, 0.5, 0.25], abs=1e-5)
    generator = torch.Generator().manual_seed(0)
    many = torch.randn(500, 256, generator=generator, dtype=torch.double) * 5
    counts = codec.frequencies(many)
    assert (counts.sum(1) == codec.TOTAL).all()
    assert np.abs(counts / codec.TOTAL - many.softmax(1).numpy()).max() < 4e-4
    nudged = codec.frequencies(many + 1e-13 * torch.randn(many.shape, generator=generator, dtype=torch.double))
    assert (counts == nudged).mean() > 0.9999, "another processor's rounding seldom shows"


# --- Files --------------------------------------------------------------------------------------------------------


@pytest.fixture
def packed():
    torch.manual_seed(0)
    model = MODELS["transformer"]()
    tokens = images(model, 3)
    return model, tokens, codec.pack("tiny", 1234, tokens, codec.encode(model, tokens))


def test_a_file_says_what_it_holds(packed):
    model, tokens, content = packed
    found = codec.unpack(content)
    assert (found.name, found.checkpoint, found.count) == ("tiny", 1234, 3)
    assert found.pixels == codec.checksum(tokens)
    assert torch.equal(codec.decode(model, found.code, found.count), tokens)


def test_no_damaged_file_gives_a_picture(packed):
    _, _, content = packed
    dice, seen = random.Random(0), 0
    for bit in range(8 * len(content)):  # each single bit
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(OSError, match=r"is damaged or cut short|was not written by"):
            codec.unpack(bytes(damaged))
        seen += 1
    for length in range(len(content)):  # each truncation
        with pytest.raises(OSError, match=r"is damaged or cut short|was not written by"):
            codec.unpack(content[:length])
        seen += 1
    for _ in range(200):  # several bytes
        damaged = bytearray(content)
        for _ in range(dice.randint(2, 9)):
            damaged[dice.randrange(len(content))] ^= dice.randint(1, 255)
        with pytest.raises(OSError, match=r"is damaged or cut short|was not written by"):
            codec.unpack(bytes(damaged))
        seen += 1
    assert seen > 500


def test_a_code_of_any_length_ends_in_pixels_or_in_an_error(packed):
    model, tokens, content = packed
    code, generator = codec.unpack(content).code, np.random.default_rng(0)
    foreign = [code[:length] for length in range(0, len(code), 4)]
    foreign += [generator.bytes(4 * length) for length in range(12)] + [b"\xff" * 40, b"\0" * 40]
    for other in foreign:
        with contextlib.suppress(OSError):
            found = codec.decode(model, other, 3)
            assert found.shape == tokens.shape
            assert int(found.min()) >= 0
            assert int(found.max()) < model.num_levels
            assert codec.checksum(found) != codec.checksum(tokens), "the checksum of the pixels tells"


# --- The commands -------------------------------------------------------------------------------------------------


@pytest.fixture
def command(command, monkeypatch, tmp_path):
    """Run the command line in an empty folder, with a tiny model as if it shipped, and two pictures."""
    monkeypatch.setattr(cards, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    ar.save_checkpoint(cards.CHECKPOINTS / "tiny.safetensors", ar.ConditionalMLP(hidden_size=4, context_length=3), {})
    values = np.random.default_rng(0).integers(0, 256, (2, 28, 28), dtype=np.uint8)
    for name, picture in zip(("a", "b"), values, strict=True):
        Image.fromarray(picture).save(f"{name}.png")

    return command


def grey(path):
    return torch.from_numpy(np.asarray(Image.open(path)).copy())


def test_pictures_come_back_from_a_file(command, tmp_path):
    code, out, _ = command("compress", "a.png", "b.png", "--model", "tiny", "--out", "two.arz")
    assert code == 0
    assert "2 pictures at 16 grey levels; finer differences are not kept" in out
    assert f"two.arz | {(tmp_path / 'two.arz').stat().st_size:,}".replace(" | ", "") in out.replace(" ", "").replace(
        "|", ""
    )
    assert all(name in out for name in ("PNG", "WebP", "lzma"))
    assert command("decompress", "two.arz") == (0, "2 pictures in two\n", "")
    for before, after in (("a.png", "two/001.png"), ("b.png", "two/002.png")):
        assert torch.equal(ar.quantize(grey(after), 16), ar.quantize(grey(before), 16))
    code, out, _ = command("compress", "two/001.png", "--model", "tiny", "--json")
    assert json.loads(out)["bytes"]["digits.arz"] == (tmp_path / "digits.arz").stat().st_size
    assert json.loads(command("decompress", "digits.arz", "--out", "one", "--json")[1]) == {
        "folder": "one",
        "images": 1,
    }
    assert torch.equal(grey("one/001.png"), grey("two/001.png")), "what has 16 levels already is kept as it is"


def test_other_pictures_get_a_clear_line(command, tmp_path):
    Image.new("L", (28, 27)).save("small.png")
    Image.new("RGB", (28, 28), (9, 9, 8)).save("coloured.png")
    Image.new("RGBA", (28, 28), (9, 9, 9, 128)).save("clear.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, message in (
        ("small.png", "small.png must be a picture of 28 x 28 pixels, as the model's images are, not 28 x 27"),
        ("coloured.png", "coloured.png must be grey and opaque, not coloured"),
        ("clear.png", "clear.png must be grey and opaque, not transparent"),
        ("none.png", "there is no picture none.png"),
    ):
        assert command("compress", "a.png", name, "--model", "tiny") == (2, "", f"error: {message}\n")
    code, _, err = command("compress", "text.png", "--model", "tiny")
    assert (code, len(err.splitlines())) == (2, 1)
    assert command("compress", "a.png", "--model", "x")[2] == "error: the model must be one of tiny, not 'x'\n"
    assert not (tmp_path / "digits.arz").exists()


def test_other_files_get_a_clear_line_and_leave_nothing(command, tmp_path):
    assert command("compress", "a.png", "--model", "tiny", "--out", "one.arz")[0] == 0
    content = (tmp_path / "one.arz").read_bytes()
    found, tokens = codec.unpack(content), ar.quantize(grey("a.png"), 16).flatten()[None]
    later = bytearray(content)
    later[3] = 2
    later[-4:] = codec.seal(bytes(later[:-4]))[-4:]
    pack, code, crc = codec.pack, found.code, found.checkpoint
    for name, other, message in (
        ("cut.arz", content[:-1], "cut.arz is damaged or cut short"),
        ("empty.arz", b"", "empty.arz was not written by `compress`: it does not begin with ARZ"),
        ("a.png", None, "a.png was not written by `compress`: it does not begin with ARZ"),
        ("later.arz", bytes(later), "later.arz is of version 2 of the format, and this package reads version 1"),
        (
            "name.arz",
            codec.pack("huge", found.checkpoint, tokens, found.code),
            "the model of name.arz must be one of tiny, not 'huge'",
        ),
        (
            "weights.arz",
            codec.pack("tiny", 5, tokens, found.code),
            "weights.arz was made with other weights of tiny than this package has",
        ),
        ("pixels.arz", pack("tiny", crc, 1 - tokens.clamp(max=1), code), None),
        ("code.arz", pack("tiny", crc, tokens, b"\xff" * 8), None),
    ):
        if other is not None:
            (tmp_path / name).write_bytes(other)
        code, out, err = command("decompress", name, "--out", "out")
        assert (code, out, len(err.splitlines())) == (2, "", 1), name
        if message is not None:
            assert err == f"error: {message}\n"
        assert not (tmp_path / "out").exists()
    assert command("decompress", "none.arz")[0] == 2


def test_rivals_are_measured_on_the_same_pictures():
    pictures = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    sizes = codec.rivals(pictures)
    content = io.BytesIO()
    total = 0
    for picture in pictures:
        content = io.BytesIO()
        Image.fromarray(picture).save(content, "PNG", optimize=True)
        total += len(content.getvalue())
    assert sizes["PNG, a file for each"] == total > pictures.size  # noise cannot be compressed
    assert all(size > 0.98 * pictures.size for size in sizes.values())
    assert max(codec.rivals(np.zeros_like(pictures)).values()) < 300
