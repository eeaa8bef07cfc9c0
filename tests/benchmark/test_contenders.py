"""Contenders do the same work: with the same weights the same loss, and the same likeliest text."""

import concurrent.futures
import math

import numpy as np
import pytest

from pipeline.benchmark import contenders
from pipeline.benchmark.environment import has_torch
from pipeline.benchmark.setups import Setup, random_batches
from pipeline.benchmark.torch_game import torch_game_step
from pipeline.data.tokenizer import SPECIAL_TOKENS
from pipeline.models.documents.config import Document000Config
from pipeline.models.vae.config import VAEConfig
from tests.benchmark.sizes import game_setup, setup_of

needs_torch = pytest.mark.skipif(not has_torch(), reason="PyTorch is not installed")


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_step_of_keras_layers_has_the_same_loss(cell):
    setup = setup_of(cell)
    batches = random_batches(setup)
    ours, theirs = contenders.pipeline_step("pipeline", setup, batches), contenders.keras_step(setup, batches)
    theirs.model.set_weights(ours.model.get_weights())
    assert float(ours.call()) == pytest.approx(float(theirs.call()), abs=1e-4)


@needs_torch
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_step_of_pytorch_has_the_same_loss(cell):
    setup = setup_of(cell)
    batches = random_batches(setup)
    ours, theirs = contenders.pipeline_step("pipeline", setup, batches), contenders.torch_step(setup, batches)
    copy_to_torch(ours.model, theirs.model)
    assert float(ours.call()) == pytest.approx(float(theirs.call()), abs=1e-4)


def test_the_last_step_of_the_language_model_has_the_loss_of_document_000():
    setup = setup_of()
    last = [(inputs, targets, weights * (np.arange(5) == 4)) for inputs, targets, weights in random_batches(setup)]
    ours = contenders.pipeline_step("language_model", setup, last)
    document = contenders.pipeline_step("document_000", setup, last, Document000Config(embedding_dim=4, units=6))
    document.model.set_weights(ours.model.get_weights())
    assert float(ours.call()) == pytest.approx(float(document.call()), abs=1e-4)


def test_mixed_precision_has_nearly_the_same_loss():
    setup = setup_of()
    batches = random_batches(setup)
    mixed, full = (
        contenders.pipeline_step(name, setup, batches, precision=name) for name in ("mixed_bfloat16", "float32")
    )
    mixed.model.set_weights(full.model.get_weights())
    assert float(mixed.call()) == pytest.approx(float(full.call()), abs=0.05)


def latent_setup() -> Setup:
    return Setup(VAEConfig(embedding_dim=4, units=6, latent_dim=2), 30, 3, 5)


def test_a_step_of_the_vae_without_fast_paths_has_the_same_loss():
    setup = latent_setup()
    batches = random_batches(setup)
    ours, plain = (
        contenders.pipeline_step("pipeline", setup, batches, network=setup.network),
        contenders.plain_step(setup, batches, network=setup.network),
    )
    for contender in (ours, plain):  # a code that is not drawn: its log-variance is tiny
        contender.model.set_weights(ours.model.get_weights())
        layer = contender.model.get_layer("encoder").get_layer("log_variance")
        layer.set_weights([np.zeros((6, 2)), np.full(2, -30.0)])
    assert float(ours.call()) == pytest.approx(float(plain.call()), abs=1e-4)


@needs_torch
def test_a_step_of_the_vae_in_pytorch_has_nearly_the_same_loss():
    setup = latent_setup()
    batches = random_batches(setup)
    ours = contenders.pipeline_step("pipeline", setup, batches, network=setup.network)
    theirs = contenders.torch_vae_step(setup, batches)
    assert float(ours.call()) == pytest.approx(math.log(30), abs=0.3)
    assert float(theirs.call()) == pytest.approx(math.log(30), abs=0.3)


@needs_torch
@pytest.mark.parametrize(("phase", "loss"), [("discriminator", 2 * math.log(2)), ("generator", 5 * math.log(30) / 2)])
def test_a_step_of_the_game_in_pytorch_has_nearly_the_same_loss(phase, loss):
    # An untrained discriminator holds every text for real with a probability of about 1/2: that is the reward, too.
    setup = game_setup()
    batches = random_batches(setup)
    ours = contenders.pipeline_step("pipeline", setup, batches, network=setup.network, phase=phase)
    theirs = torch_game_step(setup, batches, phase)
    assert float(ours.call()) == pytest.approx(loss, rel=0.3)
    assert float(theirs.call()) == pytest.approx(loss, rel=0.3)


# === A process of its own ===


@pytest.mark.slow
def test_a_contender_in_a_process_of_its_own():
    setup = setup_of(batch_size=32)
    elsewhere = contenders.in_process(contenders.pipeline_step, "elsewhere", setup, random_batches(setup))
    assert (elsewhere.name, elsewhere.units) == ("elsewhere", 1)
    assert float(elsewhere.call()) == pytest.approx(math.log(30), rel=0.1)  # untrained: 30 equal chances
    elsewhere.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        elsewhere.call()


def test_a_process_ends_if_its_contender_cannot_be_built(monkeypatch):
    ended = []

    class Executor:
        def __init__(self, *arguments):
            pass

        def submit(self, function, build):
            future = concurrent.futures.Future()
            future.set_exception(ValueError("cannot be built"))
            return future

        def shutdown(self):
            ended.append(True)

    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", Executor)
    with pytest.raises(ValueError, match="cannot be built"):
        contenders.in_process(contenders.tensorflow_product)
    assert ended == [True]


# === Texts ===


def test_texts_have_all_their_tokens():
    texts = contenders.pipeline_texts(setup_of(batch_size=2, steps=40)).call().numpy()
    assert [len(text) for text in texts] == [40, 40]


def test_predict_runs_the_same_network():
    setup = setup_of(batch_size=1)
    ours, theirs = contenders.pipeline_texts(setup), contenders.keras_texts(setup, tokens=2)
    theirs.model.set_weights(ours.model.get_weights())
    window = np.arange(4, 10)[None]
    np.testing.assert_allclose(theirs.model(window), ours.model(window)[:, -1], atol=1e-4)
    assert theirs.call().shape == (1, contenders.WINDOW)


@needs_torch
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_pytorch_writes_the_same_likeliest_text(temperature):
    setup = setup_of(batch_size=2, steps=12)
    ours, theirs = contenders.pipeline_texts(setup, temperature), contenders.torch_texts(setup, temperature)
    for weight in ours.model.trainable_variables:  # far from uniform: no two tokens are nearly alike
        weight.assign(10 * weight)
    copy_to_torch(ours.model, theirs.model)
    token_ids = np.asarray(theirs.call())
    assert token_ids.shape == (2, 12) and token_ids.min() >= len(SPECIAL_TOKENS)
    if not temperature:
        texts = ["".join(chr(ord("A") + token_id - len(SPECIAL_TOKENS)) for token_id in row) for row in token_ids]
        assert texts == [text.decode() for text in ours.call().numpy()]


def copy_to_torch(model, layers) -> None:
    """Copies the weights of a Keras language model into PyTorch's embedding, recurrent and output layer."""
    import torch

    embedding, recurrent, output = layers
    matrix, *weights, kernel, bias = (torch.from_numpy(weight) for weight in model.get_weights())
    with torch.no_grad():
        embedding.weight.copy_(matrix)
        output.weight.copy_(kernel.T)
        output.bias.copy_(bias)
        for i in range(len(weights) // 3):
            kernel, recurrent_kernel, bias = weights[3 * i : 3 * i + 3]
            if bias.ndim == 1:  # LSTM: one bias, where PyTorch has two
                bias = torch.stack([bias, torch.zeros_like(bias)])
            else:  # GRU: z, r, n in Keras, r, z, n in PyTorch
                kernel, recurrent_kernel, bias = map(_swap_gates, (kernel, recurrent_kernel, bias))
            getattr(recurrent, f"weight_ih_l{i}").copy_(kernel.T)
            getattr(recurrent, f"weight_hh_l{i}").copy_(recurrent_kernel.T)
            getattr(recurrent, f"bias_ih_l{i}").copy_(bias[0])
            getattr(recurrent, f"bias_hh_l{i}").copy_(bias[1])


def _swap_gates(weight):
    first, second, third = weight.chunk(3, dim=-1)
    return second.new_tensor(np.concatenate([second, first, third], axis=-1))
