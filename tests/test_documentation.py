"""The documentation runs: every docstring example, every command and every Python block of the README."""

import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import pipeline
from pipeline import presets
from pipeline.cli import main
from pipeline.run_config import RunConfig, override
from tests.conftest import small, some_lines

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
MODULES = [module.name for module in pkgutil.walk_packages(pipeline.__path__, "pipeline.")]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "pipeline.__main__"])
def test_docstring_examples(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


@pytest.fixture
def small_presets(monkeypatch):
    """The presets by their names, each made small: the commands stay what they are."""
    for name, function in dict(presets.PRESETS).items():
        config = small(function())
        monkeypatch.setitem(presets.PRESETS, name, lambda config=config: config)
        monkeypatch.setattr(presets, name.replace("-", "_"), lambda config=config: config)


def test_the_readme_commands_run_in_their_order(tmp_path, monkeypatch, capsys, small_presets):
    monkeypatch.chdir(tmp_path)
    lines = some_lines(80)
    Path("book.txt").write_text("\n".join(lines), "utf-8")
    Path("pairs.tsv").write_text("".join(f"{i} the\t{i} le\n" for i in range(80)), "utf-8")
    Path("sources.txt").write_text("a source\nanother\n", "utf-8")
    commands = [line for block in blocks("bash") for line in block.splitlines() if line]
    assert len(commands) >= 6
    for command in commands:
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "pipeline"], command
        if "<" in words:
            words, (file,) = words[: words.index("<")], words[words.index("<") + 1 :]
            monkeypatch.setattr("sys.stdin", open(file, encoding="utf-8"))
        # What the README changes is changed; what it leaves alone is small.
        assert main.main([word for word in words[3:] if not word.startswith("training.epochs")]) == 0, command
    assert capsys.readouterr().out.count("The ") >= 3


def test_the_readme_python_blocks_run(tmp_path, monkeypatch, small_presets):
    monkeypatch.chdir(tmp_path)
    small = on_a_small_text(tmp_path)
    monkeypatch.setattr(presets, "kjv_words", lambda: small)
    names: dict = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["run"].config.name == "kjv-words" and "serving_default" in names["served"].signatures


def on_a_small_text(folder: Path) -> RunConfig:
    """The default preset on a small text, for the whole book takes minutes."""
    path = folder / "small.txt"
    path.write_text("\n".join(some_lines(60)), "utf-8")
    return override(presets.PRESETS["kjv-words"](), ["corpus.source=files", f"corpus.files={path}"])


def test_every_command_and_preset_is_documented():
    for command in main.COMMANDS:
        assert f"pipeline {command}" in README or f"`{command}`" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    for preset in presets.PRESETS:
        assert f"`{preset}`" in README


def test_every_module_is_in_the_reading_order():
    for name in MODULES:
        short = name.split(".")[1]
        assert f"`{short}`" in README or short == "__main__", name
