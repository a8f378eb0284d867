"""Chapter 11's parts, each against a slow and obvious version: kernels, convolutions, what a stack sees, the cache."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from chapter_models import FOUR_ROWS, MaskedPixelCNN, NeighbourhoodMLP

import ar_helpers as ar
from ar_helpers.models.convolutions import Convolution, TwoStackLayer, masked_kernel, places_at
from ar_helpers.models.transformer import CausalStem, neighbour_places

both_masks = pytest.mark.parametrize("mask", ["A", "B"])


@both_masks
@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_a_masked_kernel_is_what_a_loop_over_the_square_keeps(size, mask):
    kept = []
    for row, col in itertools.product(range(size), repeat=2):
        number, middle = row * size + col, size * size // 2  # in raster order
        if number < middle or (mask == "B" and number == middle):
            kept.append((row - size // 2, col - size // 2))
    assert masked_kernel(size, mask) == kept


def test_places_are_pixel_numbers_from_1_and_0_outside():
    steps = [(0, -1), (-1, 2), (-2, -2), (0, 0)]
    found = places_at(steps, 5)
    for pixel, (number, (down, right)) in itertools.product(range(25), enumerate(steps)):
        row, col = pixel // 5 + down, pixel % 5 + right
        expected = row * 5 + col + 1 if 0 <= row < 5 and 0 <= col < 5 else 0
        assert found[pixel, number] == expected


@both_masks
@pytest.mark.parametrize(("size", "dilation"), [(3, 1), (3, 2), (5, 1), (7, 1)])
def test_a_convolution_is_the_library_s_with_a_masked_kernel(size, dilation, mask):
    steps = masked_kernel(size, mask)
    torch.manual_seed(0)
    longer = [(dilation * down, dilation * right) for down, right in steps]
    ours, x = Convolution(longer, 9, 4, 6).double(), torch.randn(2, 81, 4).double()
    kernel = torch.zeros(6, 4, size, size).double()
    for (down, right), matrix in zip(steps, ours.weight.split(4, dim=1), strict=True):
        kernel[:, :, size // 2 + down, size // 2 + right] = matrix
    image, padding = x.mT.unflatten(2, (9, 9)), dilation * (size // 2)
    expected = F.conv2d(image, kernel, ours.bias, padding=padding, dilation=dilation).flatten(2).mT
    torch.testing.assert_close(ours(x), expected)
    torch.testing.assert_close(ours(x[:, :50], 40), expected[:, 40:50])  # reads earlier pixels only
    assert ours(x[:, :50], 50).shape == (2, 0, 6)


def test_chapter_5_s_stem_is_a_convolution_of_the_one_hot_image_but_in_column_0():
    torch.manual_seed(0)
    stem, tokens = CausalStem(neighbour_places(6), 3, 8), torch.randint(3, (2, 36))
    steps = [(0, -3), (0, -2), (0, -1), *[(row, col) for row in (-2, -1) for col in (-2, -1, 0, 1, 2)]]
    convolution = Convolution(steps, 6, 3, 8)
    tables = stem.token_embedding.weight.data.view(13, 4, 8)  # the last of the four is the start token's
    convolution.weight.data = (tables[:, :3] - tables[:, 3:]).transpose(1, 2).transpose(0, 1).flatten(1)
    convolution.bias.data = tables[:, 3].sum(0)
    found = convolution(F.one_hot(tokens, 3).float())
    expected = stem(F.pad(tokens, (1, 0), value=3), 0, 36)
    inside = torch.arange(36) % 6 > 0
    torch.testing.assert_close(found[:, inside], expected[:, inside])


# --- The window of four rows --------------------------------------------------------------------------------------


def test_the_window_of_four_rows_holds_28_earlier_pixels():
    assert len(set(FOUR_ROWS)) == 28
    assert all(step < (0, 0) for step in FOUR_ROWS)
    assert NeighbourhoodMLP().context_length == 87
    count = sum(parameter.numel() for parameter in NeighbourhoodMLP().parameters())
    assert count == sum(parameter.numel() for parameter in ar.ConditionalMLP().parameters())


def test_the_neighbourhood_mlp_feeds_the_mlp_the_pixels_at_its_steps():
    torch.manual_seed(0)
    model = NeighbourhoodMLP(num_levels=3, image_size=9, hidden_size=8).eval()
    tokens, labels = torch.randint(3, (2, 81)), torch.tensor([4, 7])
    around = F.pad(tokens.view(2, 9, 9), (7, 3, 3, 0), value=3)
    near = torch.stack([around[:, 3 + d : 12 + d, 7 + r : 16 + r] for d, r in FOUR_ROWS], -1)
    position, label = torch.arange(81).expand(2, -1), labels.unsqueeze(1).expand(-1, 81)
    expected = ar.ConditionalMLP.forward(model, near.flatten(1, 2), position, label)
    torch.testing.assert_close(model.image_logits(tokens, labels), expected)


# --- What a stack sees --------------------------------------------------------------------------------------------


def sights(layers, num_pixels):
    """Which pixels reach each pixel through layers of width 1, by gradients."""
    x = torch.ones(num_pixels, num_pixels, 1, requires_grad=True)
    y = x
    for layer in layers:
        y = layer(y)
    y[torch.arange(num_pixels), torch.arange(num_pixels)].sum().backward()
    return x.grad.squeeze(2) != 0


def stack(size, depth, image_size):
    layers = [Convolution(masked_kernel(size, mask), image_size, 1, 1) for mask in "A" + "B" * (depth - 1)]
    for layer in layers:
        layer.weight.data.fill_(1 / layer.in_features)
    return layers


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_gradients_find_what_following_the_steps_finds(size, depth):
    found = sights(stack(size, depth, 8), 64)
    for pixel in range(64):
        reached = {(pixel // 8, pixel % 8)}
        for mask in ["A"] + ["B"] * (depth - 1):
            steps = masked_kernel(size, mask)
            reached = {(row + down, col + right) for row, col in reached for down, right in steps}
        inside = {8 * row + col for row, col in reached if 0 <= row < 8 and 0 <= col < 8}
        assert set(found[pixel].nonzero().flatten().tolist()) == inside


@pytest.mark.parametrize(("size", "depth", "blind"), [(3, 27, 0.2215), (5, 14, 0.1219), (7, 9, 0.0802)])
def test_the_blind_spot_is_as_large_as_the_book_says(size, depth, blind):
    seen, earlier = sights(stack(size, depth, 28), 784), torch.ones(784, 784).tril(-1).bool()
    assert not (seen & ~earlier).any()
    assert 1 - seen.sum().item() / earlier.sum().item() == pytest.approx(blind, abs=5e-5)


@torch.no_grad()
def heeded(model, position):
    """Which pixels the logits of a pixel depend on: each is changed in turn."""
    num_pixels = model.image_size**2
    tokens = torch.zeros(num_pixels, num_pixels, dtype=torch.long)
    labels = torch.zeros(num_pixels, dtype=torch.long)
    plain, changed = (
        model.image_logits(each, labels)[:, position] for each in (tokens, tokens + torch.eye(num_pixels).long())
    )
    return (plain != changed).any(1)


@pytest.mark.parametrize("gates", [False, True])
@pytest.mark.parametrize(("dilations", "depth"), [(1, 11), (3, 5)])
def test_two_stacks_see_every_earlier_pixel_and_nothing_else(gates, dilations, depth):
    torch.manual_seed(0)
    model = ar.PixelCNN(2, 14, width=8, depth=depth, dilations=dilations, gates=gates).double().eval()
    for position in (0, 13, 14, 100, 195):
        assert heeded(model, position).tolist() == [pixel < position for pixel in range(196)]


def test_one_stack_has_a_hole_at_the_upper_right():
    torch.manual_seed(0)
    model = MaskedPixelCNN(2, 14, width=8, depth=12).double().eval()
    row, col = 9, 4
    seen = heeded(model, 14 * row + col).view(14, 14)
    for up, right in itertools.product(range(1, 10), range(1, 10)):
        # the stem goes 3 pixels to the right for up to 3 rows up; each row further up, one pixel more
        assert seen[row - up, col + right] == (right <= 3 + max(0, up - 1))


@pytest.mark.parametrize("gates", [False, True])
def test_a_layer_of_two_stacks_is_the_published_formula(gates):
    """Each stack: x + W activate(convolution + class); the horizontal stack also hears the vertical convolution."""
    torch.manual_seed(0)
    layer = TwoStackLayer(4, 3, 6, 1, gates, 0.0).double()
    v, h = torch.randn(2, 2, 16, 6).double()
    above, left = layer.vertical(layer.norms[0](v)), layer.horizontal(layer.norms[1](h))
    for image, label in enumerate([2, 0]):
        told = layer.class_embedding.weight[label]
        expected = []
        for stack, x, seen in ((0, v, above[image]), (1, h, left[image] + layer.link(above[image]))):
            inner = seen + told
            active = inner[:, :6].tanh() / (1 + (-inner[:, 6:]).exp()) if gates else inner.clamp(min=0)
            expected.append(x[image] + layer.outputs[stack](active))
        found = layer(v[[image]], h[[image]], torch.tensor([label]))
        torch.testing.assert_close([each[0] for each in found], expected)


# --- The cache ----------------------------------------------------------------------------------------------------


def test_a_pixel_costs_one_vector_of_the_horizontal_stack_and_a_row_one_row_of_the_vertical():
    torch.manual_seed(0)
    model = ar.PixelCNN(3, 6, width=8, depth=2).eval()
    computed = {"vertical": [], "horizontal": []}
    for name, found in computed.items():
        layer = getattr(model.layers[1], name)
        layer.register_forward_hook(lambda _, inputs, output, found=found: found.append(output.shape[1]))
    ar.generate(model, [0, 1], seed=0)
    assert computed["horizontal"] == [1] * 36
    assert computed["vertical"] == [6 if pixel % 6 == 0 else 0 for pixel in range(36)]


def test_one_may_go_back_in_a_cache():
    torch.manual_seed(0)
    model, cache = ar.PixelCNN(3, 6, width=8, depth=3).double().eval(), ar.Cache()
    tokens, labels = torch.randint(3, (2, 36)), torch.tensor([0, 1])
    model.next_logits(tokens[:, :30], labels, cache)
    for length in (15, 12, 1):  # within a row, at its beginning, near the start
        cache.length = length
        other = tokens.clone()
        other[:, length - 1 :] = (other[:, length - 1 :] + 1) % 3
        whole = model.image_logits(other, labels)
        for t in range(length, 30):
            torch.testing.assert_close(model.next_logits(other[:, :t], labels, cache), whole[:, t])
        cache.length = length
        model.next_logits(tokens[:, :30], labels, cache)
