"""Every input that a user may give, at the command line: it works, or one clear line says why not.

The tables in `tests/inputs` are the ones in docs/RELIABILITY.md, row by row.
"""

import io
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SMALL, one_line
from tests.inputs.encodings import ENCODINGS
from tests.inputs.known import FILES, GENERATION, NAMES, RUNS, SETTINGS, TEXTS
from tests.inputs.prompts import PROMPTS
from tests.inputs.rows import REFUSED, WORKS
from tests.inputs.tables import TABLES

ROWS = FILES + ENCODINGS + TABLES + TEXTS + SETTINGS + NAMES + GENERATION + PROMPTS + RUNS


PARAMETERS = [pytest.param(row, id=row.name, marks=pytest.mark.nightly if row.nightly else ()) for row in ROWS]


@pytest.mark.parametrize("row", PARAMETERS)
def test_every_input(row, command, tiny_run, request, tmp_path, monkeypatch):
    for name, content in row.files.items():
        content = content() if callable(content) else content
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    if "runs" in row.command:
        shutil.copytree(tiny_run.folder, tmp_path / "runs" / "tiny")
    if row.prepare:
        row.prepare(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(row.stdin)))
    values = {"small": " ".join(SMALL), "small_pairs": "corpus.pairs=40", "run": tiny_run.folder}
    if "{pairs}" in row.command:
        values["pairs"] = request.getfixturevalue("pair_run").folder
    typed = row.command.format(**values)
    words = shlex.split(typed)
    status, out, err = without_rights(tmp_path, row.locked, words) if row.locked else command(*words)
    assert status == row.status, err
    if row.outcome == REFUSED:
        said = one_line(err)
        assert out == "" and err.rstrip().splitlines()[-1] == said
    else:
        said = out
        assert [word for word in row.notices if word not in err] == [], err[:2000]
    assert [word for word in row.words if word not in said] == [], said[:2000]


def without_rights(folder: Path, locked: str, words: list[str]) -> tuple[int, str, str]:
    """Runs a command in a process to which a file's rights mean something, as they do not to root's."""
    typed = [sys.executable, "-m", "pipeline", *words]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may read everything, and setpriv is not there to take that away")
        rights = "-dac_override,-dac_read_search"
        typed = ["setpriv", f"--inh-caps={rights}", f"--bounding-set={rights}", *typed]
    mode = (folder / locked).stat().st_mode
    os.chmod(folder / locked, 0)
    try:
        finished = subprocess.run(typed, cwd=folder, capture_output=True, text=True)
    finally:
        os.chmod(folder / locked, mode)
    return finished.returncode, finished.stdout, finished.stderr


def test_the_document_has_the_same_rows():
    text = (Path(__file__).parent.parent / "docs" / "RELIABILITY.md").read_text("utf-8")
    section = text.split("## Every input")[1].split("\n## ")[0]
    cells = [
        [cell.strip() for cell in line.strip("| \n").split(" | ")] for line in section.splitlines() if line[:1] == "|"
    ]
    documented = [tuple(row[:2]) for row in cells if row[1:2] in ([WORKS], [REFUSED])]
    assert documented == [(row.name, row.outcome) for row in ROWS]
    assert len({row.name for row in ROWS}) == len(ROWS)
