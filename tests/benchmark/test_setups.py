"""Setups: the arithmetic that is counted, and batches like those of a text."""

import dataclasses
import math

import numpy as np
import pytest

from pipeline.benchmark import contenders, setups
from pipeline.benchmark.setups import random_batches
from pipeline.data.tokenizer import SPECIAL_TOKENS
from tests.benchmark.sizes import setup_of


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_arithmetic_of_a_step_is_that_of_its_matrices(cell):
    setup = setup_of(cell)
    model = contenders.keras_model(setup.network, setup.vocabulary_size)
    matrices = [weight for weight in model.trainable_variables if weight.path.endswith("kernel")]
    operations = 6 * setup.batch_size * setup.steps * sum(math.prod(matrix.shape) for matrix in matrices)
    assert setup.training_amounts == {"tokens_per_second": 15, "gflops": pytest.approx(operations / 1e9)}


def test_repeated_tokens_of_a_micro_batch_are_skipped():
    setup = dataclasses.replace(setup_of(), batch_size=64)  # computed in two halves
    ids = np.zeros((64, 5), np.int32)
    ids[0, :3], ids[40, 1] = [1, 2, 3], 1
    repeated = (32 * 5 - 4) + (32 * 5 - 2)
    skipped = 6 * setup.network.embedding_dim * 4 * setup.network.units * repeated / 1e9
    assert setup.skipped_gflops([(ids, ids, None)] * 2) == pytest.approx(skipped)
    with_dropout = dataclasses.replace(setup, network=dataclasses.replace(setup.network, dropout=0.1))
    assert with_dropout.skipped_gflops([(ids, ids, None)] * 2) == 0


def test_batches_hold_no_special_token_and_next_tokens_as_targets():
    (inputs, targets, weights), *others = random_batches(setup_of())
    assert inputs.shape == targets.shape == weights.shape == (3, 5) and len(others) == setups.BATCHES - 1
    assert inputs.min() >= len(SPECIAL_TOKENS) and (inputs[:, 1:] == targets[:, :-1]).all()
    assert not (inputs == others[0][0]).all()
