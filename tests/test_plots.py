"""Figures: closed and returned, on fixed scales; GIFs: whole, small and looping."""

import io
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import ar_helpers as ar


def tokens_of(count, num_levels=16, size=28):
    return torch.randint(num_levels, (count, size * size), generator=torch.Generator().manual_seed(0))


def maps_of(count, num_levels=16):
    tokens = tokens_of(count, num_levels)
    generator = torch.Generator().manual_seed(0)
    return tokens, *ar.prediction_maps(torch.randn(count, 784, num_levels, generator=generator), tokens)


HISTORY = ar.History([1, 2, 3], [3.0, 2.0, 1.5], [3], [1.4], 12.0)
DRAWN = {
    "images": lambda: ar.show_images(tokens_of(3), num_levels=16),
    "maps": lambda: ar.show_maps(*maps_of(2), num_levels=16),
    "history": lambda: ar.plot_history({"a": HISTORY, "b": HISTORY}, {"uniform": 4.0}),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN.keys())
def test_a_figure_is_closed_and_returned_and_can_be_drawn(draw):
    open_before = plt.get_fignums()
    figure = draw()
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == open_before
    figure.savefig(png := io.BytesIO(), format="png")
    assert png.getvalue().startswith(b"\x89PNG")


# --- show_images --------------------------------------------------------------------------------------------------


def pictures(figure):
    return [axis.images[0] for axis in figure.axes if axis.images]


@pytest.mark.parametrize(("count", "columns", "axes"), [(1, 10, 1), (10, 10, 10), (11, 10, 20), (7, 3, 9)])
def test_every_image_has_its_place_in_the_grid(count, columns, axes):
    figure = ar.show_images(tokens_of(count), num_levels=16, columns=columns)
    assert len(figure.axes) == axes
    assert len(pictures(figure)) == count


def test_images_are_on_one_scale_from_black_to_white_without_smoothing():
    for images, num_levels in (
        (torch.full((2, 5, 4), 7, dtype=torch.uint8), None),
        (torch.full((2, 5, 4), 0.5), None),
        (torch.ones(2, 9, dtype=torch.long), 16),
    ):
        for picture in pictures(ar.show_images(images, num_levels)):
            assert picture.get_clim() == (0, 1)
            assert picture.get_interpolation() == "nearest"
            assert picture.get_cmap().name == "gray"


def test_the_same_picture_looks_the_same_in_every_form():
    tokens = tokens_of(2, 256)
    grey = ar.dequantize(tokens, 256)
    for images, num_levels in ((tokens, 256), (tokens.reshape(2, 28, 28), 256), (grey, None), (grey.numpy(), None)):
        drawn = pictures(ar.show_images(images, num_levels))
        np.testing.assert_allclose(drawn[1].get_array(), grey[1].reshape(28, 28), atol=1e-6)
    pixels = tokens.to(torch.uint8)
    np.testing.assert_allclose(pictures(ar.show_images(pixels))[0].get_array(), pixels[0].reshape(28, 28) / 255)


def test_titles_stand_above_their_images():
    figure = ar.show_images(tokens_of(3), num_levels=16, titles=["a", "b", "c"])
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "c"]


def test_show_images_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"images must have shape \(M, H, W\), \(M, H, W, 3\) or \(M, N\), not \(4,\)"):
        ar.show_images(torch.zeros(4))
    with pytest.raises(
        ValueError, match=r"images must have shape \(M, H, W\), \(M, H, W, 3\) or \(M, N\), not \(1, 2, 3, 4\)"
    ):
        ar.show_images(torch.zeros(1, 2, 3, 4))
    with pytest.raises(ValueError, match="must be square, not of 8 pixels"):
        ar.show_images(torch.zeros(4, 8))
    with pytest.raises(ValueError, match="images must hold at least one"):
        ar.show_images(torch.zeros(0, 28, 28))
    with pytest.raises(ValueError, match="titles must be 2, one for each image, not 1"):
        ar.show_images(torch.zeros(2, 28, 28), titles=["a"])
    with pytest.raises(ValueError, match="columns must be at least 1, not 0"):
        ar.show_images(torch.zeros(2, 28, 28), columns=0)


# --- show_maps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("num_levels", [2, 16, 256])
def test_maps_are_on_fixed_scales_with_labelled_bars(count, num_levels):
    tokens, probabilities, entropies = maps_of(count, num_levels)
    figure = ar.show_maps(tokens, probabilities / 50, entropies / 50, num_levels)  # small values stretch no scale
    maps = [axis for axis in figure.axes if axis.images]
    bars = [axis for axis in figure.axes if not axis.images]
    assert (len(maps), len(bars)) == (3 * count, 3)
    for axis, highest in zip(maps, [1, 1, math.log2(num_levels)] * count, strict=True):
        assert axis.images[0].get_clim() == (0, highest)
    assert [axis.get_ylabel() for axis in bars] == ["grey value", "probability", "bits"]
    np.testing.assert_allclose(maps[1].images[0].get_array(), probabilities[0].reshape(28, 28) / 50)


def test_maps_carry_their_titles():
    figure = ar.show_maps(*maps_of(2), num_levels=16, titles=["a real 7", "a sampled 7"])
    assert {"a real 7", "a sampled 7"} <= {axis.get_ylabel() for axis in figure.axes}


def test_show_maps_names_what_is_wrong():
    tokens, probabilities, entropies = maps_of(2)
    for bad in ((tokens[:1], probabilities, entropies), (tokens, probabilities[:1], entropies)):
        with pytest.raises(ValueError, match="must be of one shape"):
            ar.show_maps(*bad, num_levels=16)
    with pytest.raises(ValueError, match="titles must be 2, one for each image, not 3"):
        ar.show_maps(tokens, probabilities, entropies, num_levels=16, titles="abc")
    with pytest.raises(ValueError, match="must be square"):
        ar.show_maps(tokens[:, :8], probabilities[:, :8], entropies[:, :8], num_levels=16)


# --- plot_history -------------------------------------------------------------------------------------------------


def test_a_history_is_drawn_with_its_units_and_baselines():
    figure = ar.plot_history(HISTORY, {"uniform": 2.0})
    axis = figure.axes[0]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("training steps", "bits per pixel")
    assert [line.get_label() for line in axis.lines] == ["training", "validation", "uniform (2.000)"]
    assert axis.lines[0].get_ydata().tolist() == HISTORY.train_bits
    (legend,) = figure.legends
    figure.draw_without_rendering()
    assert not legend.get_window_extent().overlaps(axis.get_window_extent())  # no line runs through it


def test_a_history_without_validation_or_with_nothing_can_be_drawn():
    assert len(ar.plot_history(ar.History([1], [4.0])).axes[0].lines) == 1
    ar.plot_history(ar.History())


# --- animate ------------------------------------------------------------------------------------------------------


def read_gif(data):
    """The frames (T, H, W) of a GIF, how long each lasts in milliseconds, and its loop count."""
    gif = Image.open(io.BytesIO(data))
    frames, times = [], []
    for i in range(gif.n_frames):
        gif.seek(i)
        frames.append(np.asarray(gif.convert("L")))
        times.append(gif.info["duration"])
    return np.stack(frames), times, gif.info.get("loop")


@pytest.mark.parametrize(("frames", "seconds"), [(49, 4), (100, 4), (30, 1), (7, 1.23), (150, 3), (2, 0.5), (51, 1)])
def test_an_animation_lasts_as_long_as_it_is_asked_to(frames, seconds):
    _, times, _ = read_gif(ar.animate(tokens_of(1), 16, frames=frames, seconds=seconds, scale=1))
    assert sum(times) == 2000 + 1000 * seconds
    assert min(times) >= 20  # what is shorter is shown for a tenth of a second


def test_an_animation_of_more_pictures_than_its_time_can_show_is_refused():
    with pytest.raises(ValueError, match=r"seconds must be at least 9\.98, not 4"):
        ar.animate(tokens_of(1), 16, frames=500, seconds=4)


def test_an_animation_rests_on_the_finished_image_and_draws_it_for_ever():
    tokens = tokens_of(1)
    frames, times, loop = read_gif(ar.animate(tokens, 16, frames=8, seconds=3.5, scale=1))
    assert loop == 0  # for ever
    assert times == [2000] + [500] * 7
    assert frames.shape == (8, 30, 30)
    finished = (ar.dequantize(tokens, 16) * 255).round().reshape(28, 28).numpy()
    drawn = [784, *range(0, 784, 112)]
    for frame, pixels in zip(frames[:, 1:-1, 1:-1], drawn, strict=True):
        np.testing.assert_allclose(frame.ravel()[:pixels], finished.ravel()[:pixels], atol=1)
        assert (frame.ravel()[pixels:] == 48).all()


def test_by_default_a_digit_takes_six_seconds_and_less_than_300_kilobytes():
    for tokens in (tokens_of(1), tokens_of(1, 2) * 15, torch.zeros(1, 784, dtype=torch.long)):
        data = ar.animate(tokens, 16)
        assert len(data) < 300_000
        _, times, _ = read_gif(data)
        assert sum(times) == pytest.approx(6000, abs=200)


@pytest.mark.parametrize(("count", "columns", "size"), [(1, 5, (30, 30)), (5, 5, (30, 146)), (7, 3, (88, 88))])
def test_images_are_drawn_together_as_a_grid(count, columns, size):
    frames, _, _ = read_gif(ar.animate(tokens_of(count), 16, columns=columns, frames=2, scale=1))
    assert frames.shape[1:] == size
    frames, _, _ = read_gif(ar.animate(tokens_of(count), 16, columns=columns, frames=2, scale=3))
    assert frames.shape[1:] == (3 * size[0], 3 * size[1])


def test_the_file_is_what_is_returned_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "seven.gif"
    data = ar.animate(tokens_of(1), 16, path, frames=3)
    assert path.read_bytes() == data
    assert ar.animate(tokens_of(1), 16, str(path), frames=3) == data  # it may be written again
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failing", ["write_bytes", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_half_written(tmp_path, monkeypatch, failing):
    path = tmp_path / "seven.gif"
    path.write_bytes(b"old")

    def half(self, *_):
        self.open("wb").write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(type(path), failing, half)
    with pytest.raises(OSError, match="disk full"):
        ar.animate(tokens_of(1), 16, path, frames=3)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_animate_names_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="frames must be at least 2, not 1"):
        ar.animate(tokens_of(1), 16, frames=1)
    with pytest.raises(ValueError, match=r"path must end in \.gif, not .*seven\.png"):
        ar.animate(tokens_of(1), 16, tmp_path / "seven.png")
    with pytest.raises(ValueError, match="must be square"):
        ar.animate(torch.zeros(1, 8), 16)
    with pytest.raises(ValueError, match="images must hold at least one"):
        ar.animate(torch.zeros(0, 784), 16)
    with pytest.raises(FileNotFoundError):
        ar.animate(tokens_of(1), 16, tmp_path / "no" / "such.gif", frames=2)
    assert list(tmp_path.iterdir()) == []


def test_a_table_has_its_caption_above_it_with_the_number_bold():
    plain = ar.table(["a", "b"], [[1, 2]])
    assert plain.splitlines() == ["| a | b |", "|:--|--:|", "| 1 | 2 |"]
    assert (
        ar.table(["a", "b"], [[1, 2]], "Table 1.2. A sum, as in Table 1.1.")
        == f"**Table 1.2.** A sum, as in Table 1.1.\n\n{plain}"
    )
    assert ar.table(["a", "b"], [[1, 2]], "A sum.") == f"A sum.\n\n{plain}"
