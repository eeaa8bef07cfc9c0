"""Docstrings of the standard library and of some packages, Python's help topics, and docstrings' summaries."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import itertools
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from pipeline.data.examples import is_blank
from pipeline.data.installed import package_file

DOCUMENTED_PACKAGES = ("keras", "nltk", "numpy", "tensorflow")  # pinned in requirements.txt
_FOLDERS_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages"}
_LONGEST_SUMMARY = 120  # characters; a longer first paragraph is no summary
_NO_PROSE = re.compile(r"[A-Z][\w ]*:$|>>>|```|\.\. |[-*:@|+#]", re.MULTILINE)  # headings, examples, lists, fields
# Words alone, whose spelling a model can learn: no code, no figures, no names such as `StringIO`.
_SENTENCE = re.compile(r"[A-Z][A-Za-z]*(?:(?:, |[ '-])[A-Za-z]+)*\.")
_NAME_OF_CODE = re.compile(r"[a-z][A-Z]")
_FEWEST_WORDS, _MOST_WORDS = 3, 15  # of a sentence
_RULE = re.compile(r"^ *[-=~^*]{3,} *$", re.MULTILINE)


def find_python_files() -> dict[str, Path]:
    """Returns the source files by their relative names, in the order of these."""
    library = Path(sysconfig.get_path("stdlib"))
    paths = {path.relative_to(library).as_posix(): path for path in library.rglob("*.py")}
    for package in DOCUMENTED_PACKAGES:
        package_file(package, f"{package}/__init__.py")
        for path in importlib.metadata.files(package) or ():
            if path.suffix == ".py" and path.parts[0] == package:
                paths[path.as_posix()] = Path(path.locate())
    return {name: paths[name] for name in sorted(paths) if not _FOLDERS_LEFT_OUT & set(name.split("/"))}


@functools.cache
def read_docstrings() -> dict[str, list[str]]:
    """Returns each file's docstrings; one that occurs again, anywhere, is left out.

    All files are parsed, once: which docstrings are new is only known when all before them are.
    """
    seen = set()
    found = {}
    for name, path in find_python_files().items():
        new = dict.fromkeys(text for text in _docstrings_in(path) if not is_blank(text) and text not in seen)
        seen.update(new)
        found[name] = list(new)
    return found


def _docstrings_in(path: Path) -> Iterator[str]:
    source = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's files do not concern our user
            tree = ast.parse(source)
    except SyntaxError:  # a template, or a file for another Python: it has no docstrings to read
        return
    is_topics = path.parts[-2:] == ("pydoc_data", "topics.py")
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node) or ""
        elif is_topics and isinstance(node, ast.Dict):
            yield from (ast.literal_eval(value) for value in node.values)


@functools.cache
def read_summaries() -> tuple[tuple[str, str], ...]:
    """Returns pairs: the paragraph after a docstring's summary → the summary. No source and no target occurs twice."""
    pairs, seen = [], set()
    for docstring in itertools.chain.from_iterable(read_docstrings().values()):
        pair = _summary_pair(docstring)
        if pair and not seen & set(pair):
            pairs.append(pair)
            seen.update(pair)
    return tuple(pairs)


def _summary_pair(docstring: str) -> tuple[str, str] | None:
    """Returns a docstring's second paragraph and its first, if the first can be the summary of the second.

    >>> _summary_pair("Return the root.\\n\\nThe root is the number whose square\\nthe argument is.\\n\\nMore.")[0]
    'The root is the number whose square the argument is.'
    """
    summary, *others = re.split(r"\n\s*\n", docstring.strip(), maxsplit=2)
    if not others or _NO_PROSE.match(others[0].strip()) or _RULE.search(others[0]):
        return None
    source, target = " ".join(others[0].split()), " ".join(summary.split())
    fits = 40 <= len(source) <= 600 and 10 <= len(target) <= _LONGEST_SUMMARY and target.endswith(".")
    return (source, target) if fits else None


@functools.cache
def read_sentences() -> tuple[str, ...]:
    """Returns the first sentences of docstrings: of 3 to 15 plain words, each once."""
    found = map(_first_sentence, itertools.chain.from_iterable(read_docstrings().values()))
    return tuple(dict.fromkeys(sentence for sentence in found if sentence))


def _first_sentence(docstring: str) -> str | None:
    """Returns the sentence that a docstring begins with, if it is short and consists of plain words.

    >>> _first_sentence("Return the\\n    root. It is positive.\\n\\nMore."), _first_sentence("Return `x`.")
    ('Return the root.', None)
    """
    paragraph = " ".join(re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0].split())
    sentence = re.match(r"[^.]*\.?(?=\s|$)", paragraph)
    if sentence is None or not _SENTENCE.fullmatch(sentence[0]) or _NAME_OF_CODE.search(sentence[0]):
        return None
    return sentence[0] if _FEWEST_WORDS <= len(sentence[0].split()) <= _MOST_WORDS else None
