"""Pictures from outside: a digit in a photograph comes out as MNIST would have it, or the reader is told to crop."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

import ar_helpers as ar
from ar_helpers import metrics

pytestmark = pytest.mark.usefixtures("clean_environment")

# The strokes of digits in a square from 0 to 1.
STROKES = {
    0: [[(0.5, 0), (0.25, 0.1), (0.15, 0.5), (0.25, 0.9), (0.5, 1), (0.75, 0.9), (0.85, 0.5), (0.75, 0.1), (0.5, 0)]],
    2: [[(0.2, 0.2), (0.4, 0.02), (0.7, 0.05), (0.8, 0.3), (0.55, 0.65), (0.15, 0.97), (0.45, 0.93), (0.85, 1.0)]],
    4: [[(0.3, 0.0), (0.12, 0.6), (0.85, 0.55)], [(0.7, 0.1), (0.68, 1.0)]],
    7: [[(0.12, 0.06), (0.88, 0.0), (0.45, 1.0)]],
}  # fmt: skip
SIZE = 900, 1200


def written(digit, ink=(50, 50, 60), paper=(215, 213, 205), box=(300, 400, 620, 830), pen=26, size=SIZE, twice=()):
    """A sheet (RGB) with a digit in a box, and others in other boxes."""
    sheet = Image.new("RGB", size, paper)
    draw = ImageDraw.Draw(sheet)
    for number, (left, top, right, bottom) in [(digit, box), *twice]:
        for stroke in STROKES[number]:
            points = [(left + x * (right - left), top + y * (bottom - top)) for x, y in stroke]
            draw.line(points, fill=ink, width=pen, joint="curve")
            for x, y in points:  # round ends and corners
                draw.ellipse([x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2], fill=ink)
    return sheet


def lit(sheet, light):
    """A sheet under a light (H, W), 1 being full."""
    return Image.fromarray((np.asarray(sheet) * light[..., None]).clip(0, 255).astype(np.uint8))


def grain(sheet, sigma):
    noise = np.random.default_rng(0).normal(0, sigma, (sheet.height, sheet.width, 1))
    return Image.fromarray((np.asarray(sheet) + noise).clip(0, 255).astype(np.uint8))


def specks(sheet):
    draw, rng = ImageDraw.Draw(sheet), np.random.default_rng(1)
    for x, y, r in zip(rng.integers(0, 900, 12), rng.integers(0, 1200, 12), rng.integers(2, 7, 12), strict=True):
        draw.ellipse([int(x - r), int(y - r), int(x + r), int(y + r)], fill=(40, 40, 40))
    return sheet


def lines(sheet, step, colour, across=False):
    draw = ImageDraw.Draw(sheet)
    for y in range(step // 2, sheet.height, step):
        draw.line([(0, y), (sheet.width, y)], fill=colour, width=2)
    for x in range(step // 2, sheet.width if across else 0, step):
        draw.line([(x, 0), (x, sheet.height)], fill=colour, width=2)
    return sheet


def on_table(sheet, colour=(60, 45, 35), angle=7, scale=0.7):
    """A sheet that lies on a table, a little turned."""
    table = Image.new("RGB", SIZE, colour)
    small = sheet.resize((round(SIZE[0] * scale), round(SIZE[1] * scale)))
    mask = Image.new("L", small.size, 255).rotate(angle, expand=True)
    table.paste(small.rotate(angle, expand=True), (60, 60), mask)
    return grain(table.filter(ImageFilter.GaussianBlur(1)), 3)


def onto(sheet, box, colour):
    ImageDraw.Draw(sheet).ellipse(box, fill=colour)
    return sheet.filter(ImageFilter.GaussianBlur(2))


def ring(sheet):
    ImageDraw.Draw(sheet).arc([500, 700, 1100, 1300], 0, 360, fill=(190, 175, 150), width=14)
    return sheet


rows, cols = np.mgrid[0 : SIZE[1], 0 : SIZE[0]] / max(SIZE)
PHOTOGRAPHS = {
    "clean": lambda d: written(d),
    "grain": lambda d: grain(written(d), 4),
    "night": lambda d: grain(lit(written(d), 0.4 + 0 * rows), 9),
    "specks": lambda d: specks(written(d)),
    "light from a side": lambda d: grain(lit(written(d), 1 - 0.7 * cols), 2),
    "vignette": lambda d: grain(lit(written(d), 1 - 0.9 * ((rows - 0.5) ** 2 + (cols - 0.37) ** 2)), 2),
    "the shadow of a hand": lambda d: grain(lit(written(d), 1 - 0.45 / (1 + np.exp(-40 * (rows + cols - 1.1)))), 2),
    "the hard shadow of a phone": lambda d: grain(lit(written(d), np.where(cols > 0.45, 0.6, 1)), 2),
    "a sheet on a dark table": lambda d: on_table(written(d)),
    "a sheet on a table, cut off": lambda d: on_table(written(d), angle=0, scale=1.0),
    "a black frame": lambda d: Image.fromarray(np.pad(np.asarray(written(d)), ((40, 40), (25, 25), (0, 0)))),
    "ruled paper": lambda d: grain(lines(written(d), 60, (150, 165, 200)), 2),
    "squared paper": lambda d: grain(lines(written(d), 40, (165, 180, 205), across=True), 2),
    "pencil": lambda d: grain(written(d, ink=(150, 150, 150), pen=18), 3),
    "a blue pen, thin": lambda d: grain(written(d, ink=(60, 80, 190), pen=12), 2),
    "a yellow marker": lambda d: grain(written(d, ink=(235, 215, 60), paper=(240, 240, 238), pen=40), 2),
    "chalk on a blackboard": lambda d: grain(written(d, ink=(205, 205, 195), paper=(45, 60, 52), pen=22), 6),
    "small on a page": lambda d: grain(written(d, box=(600, 800, 665, 890), pen=8), 2),
    "a thumb at the edge": lambda d: onto(written(d), (-150, 900, 200, 1300), (170, 120, 100)),
    "blurred": lambda d: written(d).filter(ImageFilter.GaussianBlur(9)),
    "a coffee ring's arc": lambda d: ring(written(d)),
}  # fmt: skip


@pytest.fixture(scope="module")
def classifier():
    return metrics.load_classifier()


def saved(picture, folder, name="photo.jpg", **options):
    path = folder / name
    picture.save(path, **({"quality": 85} if name.endswith("jpg") else {}) | options)
    return path


def length(digit):
    inked = (digit > 100).nonzero()
    return int((inked.amax(0) - inked.amin(0)).max()) + 1


def read_as(digit, classifier):
    return classifier(ar.dequantize(ar.quantize(digit, 16), 16).unsqueeze(0)).argmax().item()


@pytest.mark.parametrize("condition", PHOTOGRAPHS)
def test_a_photographed_digit_is_twenty_pixels_long_and_can_be_read(condition, classifier, tmp_path):
    for number in STROKES:
        digit, words = ar.read_picture(saved(PHOTOGRAPHS[condition](number), tmp_path))
        assert 18 <= length(digit) <= 22, number
        assert read_as(digit, classifier) == number
        assert words == ("light on dark" if condition == "chalk on a blackboard" else "dark on light")
        assert (digit > 128).float().mean() < 0.4


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_photograph_taken_on_its_side_is_turned(turn, classifier, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = turn
    back = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}.get(turn, [])  # what undoes each
    picture = written(7)
    for method in back:
        picture = picture.transpose(Image.Transpose(method))
    digit, _ = ar.read_picture(saved(picture, tmp_path, exif=exif))
    assert read_as(digit, classifier) == 7


def test_two_digits_are_one_too_many(tmp_path):
    picture = written(4, box=(200, 300, 400, 600), twice=[(2, (500, 300, 700, 600))])
    with pytest.raises(ValueError, match=r"shows more than one thing: crop the picture"):
        ar.read_picture(saved(picture, tmp_path))


@pytest.mark.parametrize("picture", [
    Image.new("RGB", (300, 300), (200, 200, 200)),
    grain(Image.new("RGB", (900, 1200), (200, 200, 200)), 3),
    lit(Image.new("RGB", SIZE, (220, 220, 220)), 1 - 0.6 * cols),
    *(grain(Image.new("RGB", size, (shade,) * 3), 10) for size in ((300, 300), (600, 800)) for shade in (60, 200)),
    written(7, box=(400, 400, 415, 425), pen=2),
], ids=["one shade", "bare paper", "lit from a side", *["grain"] * 4, "a digit too small to see"])  # fmt: skip
def test_where_no_digit_is_the_reader_is_told(picture, tmp_path):
    with pytest.raises(ValueError, match=r"crop the picture|nearly all of one shade"):
        ar.read_picture(saved(picture, tmp_path))


# --- Kinds of files -----------------------------------------------------------------------------------------------


def shades(digit=7):
    return np.asarray(written(digit, size=(200, 200), box=(60, 30, 140, 170), pen=14).convert("L"))


def on_nothing(shade):
    """Strokes of one shade on a transparent ground, as drawing programs export them."""
    picture = Image.new("RGBA", (200, 200), (shade,) * 3 + (0,))
    picture.putalpha(Image.fromarray(255 - (shades() > 128) * np.uint8(255)))
    return picture


def sticker():
    """An opaque sheet with transparent corners."""
    picture, corners = Image.fromarray(shades()).convert("RGBA"), Image.new("L", (200, 200), 0)
    ImageDraw.Draw(corners).rounded_rectangle([0, 0, 199, 199], 60, fill=255)
    picture.putalpha(corners)
    return picture


ARRAYS = {
    "16 bits": shades().astype(np.uint16) * 257,
    "16 bits, light on dark": (255 - shades()).astype(np.uint16) * 257,
    "32 bits": shades().astype(np.int32) * 70_000,
    "floats from 0 to 1": shades().astype(np.float32) / 255,
    "floats from 0 to 255": shades().astype(np.float32),
    "black and white": shades() > 128,
}
PICTURES = {name: Image.fromarray(array) for name, array in ARRAYS.items()} | {
    mode: Image.fromarray(shades()).convert("RGB").convert(mode) for mode in ("RGB", "CMYK", "YCbCr", "P")
} | {
    "white on nothing": on_nothing(255),
    "black on nothing": on_nothing(0),
    "grey on nothing": on_nothing(120),
    "grey and opacity": on_nothing(255).convert("LA"),
    "a sticker": sticker(),
}  # fmt: skip


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_of_every_kind_are_read(kind, classifier, tmp_path):
    ending = {"YCbCr": "jpg", "CMYK": "jpg"}.get(kind, "tiff" if kind.startswith(("floats", "32")) else "png")
    digit, words = ar.read_picture(saved(PICTURES[kind], tmp_path, f"digit.{ending}"))
    assert 18 <= length(digit) <= 22
    assert read_as(digit, classifier) == 7
    light = kind in ("16 bits, light on dark", "white on nothing", "grey and opacity")
    assert words == ("light on dark" if light else "dark on light")


def test_a_digit_of_mnists_own_size_is_taken_as_it_is(tmp_path):
    digit = ar.load_images("digits").test.images[0]
    found, words = ar.read_picture(saved(Image.fromarray(digit.numpy()), tmp_path, "digit.png"))
    assert torch.equal(found, digit)
    assert words == "light on dark"


def test_a_large_photograph_takes_little_memory(tmp_path):
    picture = Image.new("RGB", (6000, 4000), (225, 225, 225))
    ImageDraw.Draw(picture).line([(2000, 900), (3600, 900), (2600, 3300)], fill=(40, 40, 40), width=300)
    for name in ("photo.jpg", "photo.png"):
        saved(picture, tmp_path, name)
        code = "import resource, sys, ar_helpers as ar; before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        code += "ar.read_picture(sys.argv[1]); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
        run = subprocess.run([sys.executable, "-c", code, tmp_path / name], capture_output=True, text=True, check=True)
        unit = 2**20 if sys.platform == "darwin" else 2**10
        assert int(run.stdout) / unit < 300, f"{name}: {int(run.stdout) / unit} MiB"
