"""Tests of the shape of the code: which module may import which, and what no module may do."""

import ast
import graphlib
from pathlib import Path

import pytest

import pipeline

PACKAGE = Path(pipeline.__file__).parent
# Each group may import only from the groups before it.
GROUPS = [
    ["config", "blocks", "storage"],
    ["parts"],
    ["checkpoints"],
    ["files", "downloads"],
    ["corpus"],
    ["pair_sources"],
    ["pairs"],
    ["tokenizer", "layers", "samplers", "gates"],
    ["softmax", "stepping"],
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


# === What could run somebody else's code ===

ANY_MODULE = "?"  # a name that is computed
FORBIDDEN_MODULES = {
    ANY_MODULE,
    "pickle",
    "_pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "shelve",
    "jsonpickle",
}
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {
    "extractall", "extract", "unpack_archive",  # an entry may lie outside of the folder: see `downloads`
    "enable_unsafe_deserialization", "system", "popen", "read_pickle", "to_pickle", "load_module", "exec_module",
}  # fmt: skip
SAFE_YAML = {"safe_load", "safe_load_all", "safe_dump", "YAMLError"}
# What an argument may be where it is given; anything else, a variable too, is refused.
ARGUMENTS = {"safe_mode": True, "shell": False}


def named_modules(node: ast.AST) -> list[str]:
    """Returns the modules that an import names, and for `from module import name` also `module.name`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        return [node.args[0].value if isinstance(node.args[0], ast.Constant) else ANY_MODULE]
    return []


def is_unsafe(node: ast.AST) -> bool:
    """Whether a node of a syntax tree could run code that is loaded, or write outside of a folder."""
    match node:
        case ast.Name(id=name):
            return name in FORBIDDEN_NAMES
        case ast.Attribute(value=ast.Name(id="yaml"), attr=name):
            return name not in SAFE_YAML
        case ast.Attribute(value=ast.Name(id="builtins"), attr=name):
            return name in FORBIDDEN_NAMES
        case ast.Attribute(attr=name):
            return name in FORBIDDEN_ATTRIBUTES
        case ast.keyword(arg="allow_pickle"):
            return True
        case ast.keyword(arg=name, value=value) if name in ARGUMENTS:
            return not (isinstance(value, ast.Constant) and value.value is ARGUMENTS[name])
    return False


def unsafe(text: str) -> list[str]:
    """Returns the places of a module's text that are unsafe."""
    nodes = list(ast.walk(ast.parse(text)))
    modules = [name for node in nodes for name in named_modules(node)]
    of_yaml = [name for name in modules if name.startswith("yaml.") and name.split(".")[1] not in SAFE_YAML]
    forbidden = [name for name in modules if FORBIDDEN_MODULES & set(name.split("."))]
    return [*forbidden, *of_yaml, *(ast.unparse(node) for node in nodes if is_unsafe(node))]


@each_file
def test_no_module_runs_what_it_loads(path):
    assert unsafe(path.read_text("utf-8")) == []
    assert "allow_pickle" not in path.read_text("utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "import os, marshal as m", "from pickle import load", "from six.moves import cPickle",
        "def f():\n    import dill", "import joblib.numpy_pickle", "import shelve", "from pandas import pickle",
        "importlib.import_module('pickle')", "importlib.import_module(name)", "import_module('marshal')",
        "__import__('os')", "eval(x)", "exec(x)",
        "compile(x, '', 'exec')", "run = eval", "map(eval, x)", "builtins.exec(x)",
        "yaml.load(x)", "yaml.load(x, Loader=yaml.Loader)", "yaml.unsafe_load(x)", "yaml.full_load(x)",
        "from yaml import load", "from yaml import UnsafeLoader", "y = yaml.load",
        "np.load(x, allow_pickle=True)", "np.load(x, allow_pickle=y)", "np.save(x, y, allow_pickle=True)",
        "keras.models.load_model(x, safe_mode=False)", "load_model(x, safe_mode=mode)",
        "keras.config.enable_unsafe_deserialization()",
        "subprocess.run(x, shell=True)", "subprocess.Popen(x, shell=y)", "os.system(x)", "os.popen(x)",
        "tarfile.open(x).extractall()", "zipfile.ZipFile(x).extractall(y)", "archive.extract(x)",
        "shutil.unpack_archive(x)", "pandas.read_pickle(x)", "spec.loader.exec_module(x)",
    ],
)  # fmt: skip
def test_what_could_run_code_is_recognised(text):
    assert unsafe(text)


@pytest.mark.parametrize(
    "text",
    [
        "import re, json", "re.compile(x)", "model.compile(loss=x)", "ast.literal_eval(x)", "model.eval_shape(x)",
        "yaml.safe_load(x)", "import yaml", "from yaml import safe_load", "np.load(x)", "importlib.import_module('re')",
        "load_model(x, safe_mode=True)", "subprocess.run([x], shell=False)", "zipfile.ZipFile(x).infolist()",
    ],
)  # fmt: skip
def test_what_cannot_is_let_through(text):
    assert not unsafe(text)


@each_file
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


@each_file
def test_no_check_is_a_bare_assert(path):
    # `python -O` leaves them out.
    assert not [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Assert)]
