"""Sinusoids of positions."""

import math

import numpy as np

from phonolith.models.positions import absolute_sinusoids, relative_sinusoids, sinusoids


def test_sinusoids_are_the_definition():
    table = sinusoids(np.array([-3, 0, 5]), 6)
    for row, position in zip(table, (-3, 0, 5), strict=True):
        expected = [f(position / 10000 ** (2 * i / 6)) for i in range(3) for f in (math.sin, math.cos)]
        np.testing.assert_allclose(row, expected, atol=1e-7)


def test_rows_are_offsets():
    table = relative_sinusoids(5, 16)
    assert table.shape == (9, 16) and table.dtype == np.float32
    np.testing.assert_array_equal(table[4:], absolute_sinusoids(5, 16))
    np.testing.assert_array_equal(table[::-1, 1::2], table[:, 1::2])
    np.testing.assert_array_equal(table[::-1, ::2], -table[:, ::2])


def test_a_shorter_table_is_the_middle():
    np.testing.assert_array_equal(relative_sinusoids(9, 16)[4:-4], relative_sinusoids(5, 16))


def test_an_odd_width_ends_with_a_sine():
    assert absolute_sinusoids(3, 5).shape == (3, 5)
    np.testing.assert_allclose(absolute_sinusoids(3, 5)[2, 4], math.sin(2 / 10000 ** (4 / 5)), rtol=1e-6)
