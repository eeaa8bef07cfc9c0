"""The documentation is true: docstring examples run, commands can be typed, and what it names exists."""

import dataclasses
import doctest
import functools
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import pipeline
from pipeline import presets
from pipeline.cli import arguments, main
from pipeline.models.families import FAMILIES
from pipeline.run_config import RunConfig, override
from pipeline.settings import RequestError, parse
from tests.conftest import small, some_lines

ROOT = Path(__file__).parent.parent
DOCUMENTS = {path.name: path.read_text("utf-8") for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]}
README = DOCUMENTS["README.md"]
MODULES = [module.name for module in pkgutil.walk_packages(pipeline.__path__, "pipeline.")]

each_document = pytest.mark.parametrize("document", DOCUMENTS)


def blocks(text: str, language: str = "") -> list[str]:
    """The fenced blocks of a document that are marked with a language, or not marked at all."""
    return [code for name, code in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.M) if name == language]


@pytest.mark.parametrize("name", [name for name in MODULES if name != "pipeline.__main__"])
def test_docstring_examples(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


# === The README's commands and Python blocks ===


@pytest.fixture
def small_presets(monkeypatch):
    """The presets by their names, each made small: the commands stay what they are."""
    for name, function in dict(presets.PRESETS).items():
        config = small(function())
        monkeypatch.setitem(presets.PRESETS, name, lambda config=config: config)
        monkeypatch.setattr(presets, name.replace("-", "_"), lambda config=config: config)


@pytest.mark.slow
def test_the_readme_commands_run_in_their_order(tmp_path, monkeypatch, capsys, small_presets):
    monkeypatch.chdir(tmp_path)
    lines = some_lines(80)
    Path("book.txt").write_text("\n".join(lines), "utf-8")
    for name in ("sentences", "statements", "questions"):
        Path(f"{name}.txt").write_text("\n".join(lines), "utf-8")
    Path("pairs.tsv").write_text("".join(f"{i} the\t{i} le\n" for i in range(80)), "utf-8")
    Path("labelled.tsv").write_text("text\tlabel\n" + "".join(f"{i} the\t{'ab'[i % 2]}\n" for i in range(80)), "utf-8")
    Path("sources.txt").write_text("a source\nanother\n", "utf-8")
    commands = [line for block in blocks(README, "bash") for line in block.splitlines() if line]
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


@pytest.mark.slow
def test_the_readme_python_blocks_run(tmp_path, monkeypatch, small_presets):
    monkeypatch.chdir(tmp_path)
    small = on_a_small_text(tmp_path)
    monkeypatch.setattr(presets, "kjv_words", lambda: small)
    names: dict = {}
    for block in blocks(README, "python"):
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


# === Commands in all documents ===


def commands_in(text: str) -> list[str]:
    """What follows `python -m pipeline` in the blocks of a document, up to the end of each command."""
    found = []
    for block in blocks(text, "bash") + blocks(text):
        block = block.replace("\\\n", " ")
        for variable, value in re.findall(r"^for (\w+) in (\w+)", block, re.M):
            block = block.replace(f"${variable}", value)
        for line in re.findall(r"python -m pipeline\b([^\n<>&|#`]*)", block):
            found.append(line[:-1] if line.count('"') % 2 else line)  # the quote that a variable's value ends with
    return found


@each_document
def test_every_command_can_be_typed(document, capsys):
    for command in commands_in(DOCUMENTS[document]):
        if PLACEHOLDERS.search(command):
            continue
        try:
            options = main.parse(shlex.split(command))
            if hasattr(options, "settings"):
                arguments.run_config(options)
        except (RequestError, SystemExit) as error:
            pytest.fail(f"python -m pipeline{command}: {error} {capsys.readouterr().err}")


# === Names in all documents ===

# Names that are not ours: other libraries, the listings of the documents, variables of the examples.
FOREIGN = {"ast", "keras", "nltk", "nn", "os", "tensorflow", "tf", "torch", "yaml"}
FOREIGN_NAMES = {
    "cell.detach",
    "hidden.detach",
    "loss.backward",
    "model.predict",
    "optimizer.apply",
    "output.argmax",
    "run.model",
    "section.field",
    "tokenizer.sequences_to_texts",
    "wikipedia.raw_words",
}
DATA_FILES = ("csv", "gz", "h5", "ipynb", "json", "jsonl", "model", "tsv", "txt")
PLANNED = {"models/pretrained/"}  # families that "come later"
PLACEHOLDERS = re.compile(r"\bNAME\b|skip_gru|kjv-skip")  # the family of docs/ADDING_A_FAMILY.md


def spans(text: str) -> list[str]:
    """What stands in backticks outside of blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.M))


def problem(span: str) -> str | None:
    """Says what is wrong with a span of code if it names a file, a module, a function or a setting of ours."""
    if PLACEHOLDERS.search(span) or span in PLANNED:
        return None
    if re.fullmatch(r"[\w./-]+", span) and ("/" in span or re.fullmatch(r"\w+\.(py|md)", span)):
        return None if not looks_like_a_path(span) or exists(span) else "there is no such file or folder"
    name, value = re.fullmatch(r"(\w+(?:\.\w+)+)(?:\(.*\)|=(.*))?|.*", span, re.DOTALL).groups()
    if name is None or name in FOREIGN_NAMES or name.split(".")[0] in FOREIGN or name.split(".")[-1] in DATA_FILES:
        return None
    if is_setting(name, value) or (value is None and resolves(name)):
        return None
    return "there is no such setting, module or function"


def looks_like_a_path(span: str) -> bool:
    first = span.split("/")[0]
    tops = {"pipeline", "tests", "docs", "notebooks", *(path.name for path in (ROOT / "pipeline").iterdir())}
    return first in tops or span.endswith((".py", ".md"))


def exists(path: str) -> bool:
    """Whether a path is one of the repository or of the package; a bare name may be that of any file."""
    folders = [ROOT, ROOT / "pipeline"]
    if "/" not in path:
        return any(next(folder.rglob(path), None) for folder in (ROOT / "pipeline", ROOT / "docs", ROOT / "tests"))
    if path.endswith("/"):
        return any((folder / path).is_dir() for folder in folders)
    return any((folder / path).exists() or list(folder.glob(f"{path}.*")) for folder in folders)


def is_setting(name: str, value: str | None) -> bool:
    """Whether a name is a setting of some family's configuration, and the value one that it may have."""
    section, _, field_name = name.partition(".")
    kinds = [kind for kind, _ in FAMILIES.values()] if section == "model" else sections().get(section, [])
    fields = [field for kind in kinds for field in dataclasses.fields(kind) if field.name == field_name]
    return any(value is None or allows(field, value) for field in fields)


def sections() -> dict[str, list[type]]:
    return {field.name: [field.default_factory] for field in dataclasses.fields(RunConfig) if field.name != "name"}


def allows(field: dataclasses.Field, value: str) -> bool:
    if choices := field.metadata.get("choices"):
        return value in choices
    try:
        parse(field.name, value, str if isinstance(field.default, tuple) else type(field.default))
        return True
    except RequestError:
        return False


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something in a module or a class, of the package."""
    owner, *rest = name.split(".")
    if owner in classes():
        return all(hasattr(classes()[owner], part) or part in classes()[owner].__annotations__ for part in rest[:1])
    try:
        pkgutil.resolve_name(name if owner == "pipeline" else f"pipeline.{name}")
        return True
    except (AttributeError, ImportError):
        return owner[0].isupper()  # a class that is not ours


@functools.cache
def classes() -> dict[str, type]:
    """Every class of the package by its name."""
    modules = [importlib.import_module(name) for name in MODULES if name != "pipeline.__main__"]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    }


@each_document
def test_every_name_exists(document):
    named = dict.fromkeys(spans(DOCUMENTS[document]))
    assert {span: trouble for span in named if (trouble := problem(span))} == {}


@pytest.mark.parametrize(
    "span",
    [
        "layers.py",
        "models/seq2seq.py",
        "pipeline/models/documents.py",
        "tests/test_training.py",
        "layers.LSTM",
        "optimization.make_step",
        "pipeline.parts.share_cores()",
        "documents.generate_text(seed_text, model)",
        "Tokenizer.end",
        "training.patients",
        "dataset.batches=strands",
        "model.units=many",
        "model.layers=2",
    ],
)
def test_a_name_that_does_not_exist_is_recognised(span):
    assert problem(span)


@each_document
def test_every_link_leads_somewhere(document):
    text, folder = DOCUMENTS[document], ROOT if document == "README.md" else ROOT / "docs"
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        assert not path or (folder / path).exists(), target
        if anchor:
            assert anchor in anchors(DOCUMENTS[Path(path).name] if path else text), target


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
