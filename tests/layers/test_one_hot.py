"""One-hot vectors as a layer."""

import keras
import numpy as np
import pytest

from pipeline.layers.one_hot import OneHot


@pytest.mark.parametrize("policy, dtype", [("float32", "float32"), ("mixed_bfloat16", "bfloat16")])
def test_padding_is_a_row_of_zeros(policy, dtype):
    vectors = OneHot(4, dtype=policy)(np.array([[3, 1, 0]], "int32"))
    assert vectors.dtype == dtype
    np.testing.assert_array_equal(vectors, [[[0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]])


def test_masking_finds_the_padding():
    vectors = OneHot(4)(np.array([[3, 1, 0], [2, 0, 0]], "int32"))
    mask = keras.layers.Masking().compute_mask(vectors)
    np.testing.assert_array_equal(mask, [[True, True, False], [True, False, False]])
