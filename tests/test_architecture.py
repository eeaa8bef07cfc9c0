"""Tests of the shape of the code: which module may import which, and what no module may do."""

import ast
import graphlib
from pathlib import Path

import pytest

import pipeline

PACKAGE = Path(pipeline.__file__).parent
# Each group may import only from the groups before it.
GROUPS = [
    ["config", "blocks"],
    ["checkpoints"],
    ["files"],
    ["corpus"],
    ["pair_sources"],
    ["pairs"],
    ["tokenizer", "layers", "samplers", "gates"],
    ["softmax"],
    ["decoding", "token_files"],
    ["dataset", "models", "inspection"],
    ["run", "memory"],
    ["text_model", "metrics", "plots"],
    ["generation"],
    ["evaluation", "monitoring", "devices"],
    ["optimization"],
    ["footprint"],
    ["training", "serving", "sides"],
    ["demo", "benchmark"],
    ["presets"],
    ["cli"],
]
LEVEL = {name: level for level, group in enumerate(GROUPS) for name in group}
FACES = ("__init__.py", "__main__.py")  # the package's front doors, which lead everywhere
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).as_posix() not in FACES)
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())


def module_of(path: Path) -> str:
    """Returns the name by which the groups know a file; the files of `models` are one module."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(tree: ast.AST) -> set[str]:
    """Returns the modules of this package that a syntax tree imports, at any depth."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("pipeline.")}


def has_effect(statement: ast.stmt) -> bool:
    """Whether a module's statement does more than define: a bare call, a loop, a `with`."""
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, ast.Constant)  # a docstring
    if isinstance(statement, ast.If):
        test = ast.unparse(statement.test)
        return test not in ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'")
    definitions = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    return not isinstance(statement, definitions)


@each_file
def test_every_module_has_its_group(path):
    assert module_of(path) in LEVEL


@each_file
def test_imports_point_one_way(path):
    own = module_of(path)
    later = {name for name in imported_modules(ast.parse(path.read_text("utf-8"))) if LEVEL[name] >= LEVEL[own]}
    assert later <= {own}


def test_presets_import_only_the_configuration():
    assert imported_modules(ast.parse((PACKAGE / "presets.py").read_text("utf-8"))) == {"config"}


def test_the_files_of_models_do_not_import_in_a_circle():
    files = {path.stem: path.read_text("utf-8") for path in (PACKAGE / "models").glob("*.py")}
    uses = {name: {other for other in files if f"import {other}" in text} for name, text in files.items()}
    graphlib.TopologicalSorter(uses).prepare()  # raises on a circle


@each_file
def test_importing_a_module_has_no_effect(path):
    effects = [ast.unparse(node) for node in ast.parse(path.read_text("utf-8")).body if has_effect(node)]
    assert effects == []


@pytest.mark.parametrize("text", ["keras.utils.set_random_seed(1)", "for i in x: pass", "with a: pass", "if x: y = 1"])
def test_an_effect_is_recognised(text):
    assert has_effect(ast.parse(text).body[0])


@each_file
def test_no_module_runs_text_or_reads_pickles(path):
    tree = ast.parse(path.read_text("utf-8"))
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"eval", "exec", "compile"}
    named = {
        alias.name for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names
    }
    froms = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not (named | froms) & {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve"}
    assert "allow_pickle" not in path.read_text("utf-8")


@each_file
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


@each_file
def test_no_check_is_a_bare_assert(path):
    # `python -O` leaves them out.
    assert not [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Assert)]
