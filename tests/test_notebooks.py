"""Notebooks: the same form, outputs of full runs, and each runs from top to bottom."""

import ast
import sys
from pathlib import Path

import jupytext
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "notebooks"))
from run import run  # noqa: E402

FOLDER = Path(__file__).parent.parent / "notebooks"
HEADINGS = [
    "What you will build",
    "Data",
    "From text to ids",
    "The model, as the document writes it",
    "Train",
    "Watch",
    "Generate",
    "Measure",
    "Export",
    "Exercises",
]
# In the place of each notebook's full settings.
SMALL = {
    "01_language_model": """
SETTINGS = ["corpus.source=hsk", "corpus.documents=line", "dataset.windows=128", "training.epochs=2", "model.units=8"]
LAGS, MEMORY_STEPS, SECONDS = [4, 8], 5, 0.2
""",
    "02_sequence_to_sequence": """
DATES = ["corpus.pairs=256", "training.epochs=1", "dataset.batch_size=1000"]
REVERSE = [*DATES, "model.units=8"]
TRANSLATION = [*REVERSE, "model.embedding_dim=8", "dataset.batch_size=256"]
ARRAY_PAIRS, LATENT_DIM, FIT_EPOCHS = 64, 8, 1
SEARCHED, DRAWS = 8, 8
""",
    "03_lstm_step_by_step": """
SETTINGS = ["corpus.source=hsk", "model.embedding_dim=8", "model.units=8", "dataset.batch_size=64"]
NEW_TOKENS, GRADIENT_BATCHES = 12, 3
""",
    "04_deep_generative_models": """
SETTINGS = ["corpus.source=hsk", "model.embedding_dim=8", "model.units=8", "training.epochs=1", "model.latent_dim=3"]
DRAWS = 3
MOVED = ("Return", "Set")
""",
    "05_adversarial_text": """
GAME = ["model.pretraining_epochs=1", "training.epochs=4", "dataset.batch_size=1000", "model.discriminator_steps=4"]
GAME += ["model.roll_outs=1", "model.filters=8"]
LIKELIHOOD = ["training.epochs=1", "training.patience=0", "dataset.batch_size=1000"]
TEMPERATURES, SAMPLES = (1.0,), 50
SHOWN = 2
""",
}
LONGEST_FUNCTION = 8  # lines

each_notebook = pytest.mark.parametrize("name", SMALL)


def source_of(name):
    return FOLDER / f"{name}.py"


def test_every_notebook_is_tested():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(SMALL)


@each_notebook
def test_headings_are_those_of_all_notebooks(name):
    cells = [cell.source for cell in jupytext.read(source_of(name)).cells if cell.cell_type == "markdown"]
    lines = "\n".join(cells).splitlines()
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == HEADINGS
    assert lines[0].startswith("# ")


@each_notebook
def test_functions_are_short(name):
    for node in ast.walk(ast.parse(source_of(name).read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, node.name
        assert not isinstance(node, ast.ClassDef)


@each_notebook
def test_the_outputs_are_those_of_the_source(name):
    source, whole = jupytext.read(source_of(name)), jupytext.read(source_of(name).with_suffix(".ipynb"))
    assert [(cell.cell_type, cell.source) for cell in whole.cells] == [
        (cell.cell_type, cell.source) for cell in source.cells
    ]
    code = [cell for cell in whole.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)


@each_notebook
def test_the_outputs_name_no_place_of_the_machine_that_ran_them(name):
    text = source_of(name).with_suffix(".ipynb").read_text("utf-8")
    assert "/root" not in text and "/home" not in text and "site-packages" not in text


@pytest.mark.slow
@each_notebook
def test_it_runs_from_top_to_bottom(name):
    assert any("parameters" in cell.metadata.get("tags", []) for cell in jupytext.read(source_of(name)).cells)
    run(source_of(name), SMALL[name])
