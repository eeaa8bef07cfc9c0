"""Runs notebooks: the .py beside each is its source, the .ipynb holds what a full run printed and drew.

python notebooks/run.py notebooks/01_language_model.py
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parent.parent
SECONDS_A_CELL = 1200
START_UP = re.compile(r"WARNING: All log messages before absl|[IWE]\d{4} |\d{4}-\d\d-\d\d .*tensorflow")


def run(source: Path, parameters: str | None = None) -> NotebookNode:
    """Runs a notebook in a process of its own and returns it with its outputs.

    Args:
        source: the .py file.
        parameters: what to put in the place of the cell tagged "parameters"; None: nothing.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = jupytext.read(source)
    for cell in notebook.cells:
        if parameters is not None and "parameters" in cell.metadata.get("tags", []):
            cell.source = parameters
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    client = NotebookClient(
        notebook, timeout=SECONDS_A_CELL, kernel_name="python3", coalesce_streams=True, record_timing=False
    )
    client.execute(cwd=str(source.parent))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_without_start_up, cell.outputs) if output is not None]
    return notebook


def _without_start_up(output: NotebookNode) -> NotebookNode | None:
    """Takes TensorFlow's start-up messages, which nothing turns off, out of what a cell printed."""
    if output.get("name") != "stderr":
        return output
    lines = [line for line in output.text.splitlines(keepends=True) if not START_UP.match(line)]
    output.text = "".join(lines)
    return output if output.text.strip() else None


def main(sources: list[str]) -> None:
    """Runs each source with its full settings and writes the .ipynb beside it."""
    for source in map(Path, sources):
        jupytext.write(run(source), source.with_suffix(".ipynb"))
        print(source.with_suffix(".ipynb"))


if __name__ == "__main__":
    main(sys.argv[1:])
