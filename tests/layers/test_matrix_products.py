"""The layout and the dtypes that the loops choose: results do not depend on them, so other tests would not notice."""

from typing import NamedTuple

import pytest
import tensorflow as tf

from pipeline.layers.matrix_products import accumulation_dtype, layout_for, mixed_matmul


class State(NamedTuple):
    """What a layout is chosen by."""

    shape: tf.TensorShape
    dtype: tf.DType


@pytest.mark.parametrize(
    "rows, dtype, is_transposed",
    [
        (31, "float32", False),
        (32, "float32", True),
        (32, "float64", True),
        (3, "bfloat16", False),
        (4, "bfloat16", True),
        (4, "float16", True),
        (None, "float32", False),
        (None, "bfloat16", False),
    ],
)
def test_large_batches_are_transposed(rows, dtype, is_transposed):
    assert layout_for(State(tf.TensorShape((rows, 5)), tf.as_dtype(dtype))).is_transposed is is_transposed


def test_only_half_precision_is_accumulated_in_another_dtype():
    dtypes = (tf.float16, tf.bfloat16, tf.float32, tf.float64)
    assert [accumulation_dtype(dtype) for dtype in dtypes] == [tf.float32, tf.float32, tf.float32, tf.float64]


def test_a_product_has_the_narrower_dtype_and_its_result_the_wider():
    """256 + 1 is 256 in bfloat16."""
    product = mixed_matmul(tf.constant([[257.0]]), tf.ones((1, 1), tf.bfloat16))
    assert product.dtype == tf.float32 and float(product[0, 0]) == 256.0
