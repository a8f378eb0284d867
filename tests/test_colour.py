"""Colour images as tokens."""

import itertools

import pytest
import torch

import ar_helpers as ar
from ar_helpers.tokens import pack_colours, unpack_colours


@pytest.mark.parametrize("num_levels", [2, 3, 16, 31, 32, 33])
def test_packing_makes_the_round_trip_over_all_colours(num_levels):
    colours = torch.tensor(list(itertools.product(range(num_levels), repeat=3)))
    packed = pack_colours(colours, num_levels)
    assert packed.tolist() == list(range(num_levels**3))
    assert torch.equal(unpack_colours(packed, num_levels), colours.to(torch.uint8))


def test_a_start_token_fits_into_the_type_of_packed_colours():
    for num_levels in (2, 16, 31, 32, 256):
        packed = pack_colours(torch.full((1, 3), num_levels - 1), num_levels)
        assert packed.item() == num_levels**3 - 1
        assert torch.iinfo(packed.dtype).max >= num_levels**3


def test_hexadecimal_digits_are_the_top_bits_of_the_channels():
    image = torch.tensor([[[0xF0, 0xE7, 0xCF]]], dtype=torch.uint8)
    assert pack_colours(ar.quantize(image, 16)).tolist() == [[0xFEC]]
    assert unpack_colours(torch.tensor(0xFEC)).tolist() == [15, 14, 12]


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 4, 4, 3)])
def test_packing_keeps_the_other_axes(shape):
    packed = pack_colours(torch.zeros(shape, dtype=torch.uint8))
    assert packed.shape == shape[:-1]
    assert unpack_colours(packed).shape == shape


def test_what_cannot_be_packed_is_named():
    with pytest.raises(ValueError, match=r"three channels in the last axis, not \(2, 4\)"):
        pack_colours(torch.zeros(2, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="tokens must be from 0 to 15, not 16"):
        pack_colours(torch.tensor([1, 16, 2]))
    with pytest.raises(ValueError, match="tokens must be from 0 to 4095, not 4096"):
        unpack_colours(torch.tensor(4096))
    with pytest.raises(TypeError, match="integers"):
        pack_colours(torch.zeros(3))
