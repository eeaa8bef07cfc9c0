"""Tests of the shape of the code: which module may import which, how long things are, and what no module may do."""

import ast
import graphlib
import statistics
from pathlib import Path

import pytest

import pipeline

PACKAGE = Path(pipeline.__file__).parent
# Folders, and modules that stand beside them: each may import only from those before it.
ORDER = (
    ("settings", "notices", "atomic_files", "config", "data", "layers", "decoding", "evaluation", "models")
    + ("run_config", "run", "serving", "training", "benchmark", "lessons", "presets", "cli")
)  # fmt: skip
FACES = ("__init__.py", "__main__.py")  # the package's front doors, which lead everywhere
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).as_posix() not in FACES)
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
LONGEST_FILE, USUAL_FILE = 450, 300  # lines
LONGEST_FUNCTION, USUAL_FUNCTION = 60, 25


def module_of(path: Path) -> str:
    """Returns a file's module, `pipeline` left aside."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imported_modules(text: str) -> set[str]:
    """Returns the modules of this package that a module's text imports, at any depth but not for type checkers."""
    tree, names = ast.parse(text), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    own = {name.removeprefix("pipeline.") for name in names if name.startswith("pipeline.")}
    return {name if name in MODULES else name.rpartition(".")[0] for name in own}


IMPORTS = {name: imported_modules(path.read_text("utf-8")) for name, path in MODULES.items()}


def has_effect(statement: ast.stmt) -> bool:
    """Whether a module's statement does more than define: a bare call, a loop, a `with`."""
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, ast.Constant)  # a docstring
    if isinstance(statement, ast.If):
        test = ast.unparse(statement.test)
        return test not in ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'")
    definitions = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    return not isinstance(statement, definitions)


@pytest.mark.parametrize("name", MODULES)
def test_folders_import_only_from_those_before_them(name):
    own = name.split(".")[0]
    later = {other for other in IMPORTS[name] if ORDER.index(other.split(".")[0]) > ORDER.index(own)}
    assert later == set()


def test_no_module_imports_itself_in_a_circle():
    graphlib.TopologicalSorter(IMPORTS).prepare()  # raises on a circle


def test_a_folder_s_own_file_only_says_what_is_in_it():
    for name, path in MODULES.items():
        if path.name == "__init__.py" and name != "presets":
            body = ast.parse(path.read_text("utf-8")).body
            assert len(body) == 1 and isinstance(body[0], ast.Expr), name


def test_settings_need_no_tensorflow():
    """A wrong argument is answered at once: what it is checked with imports neither TensorFlow nor Keras."""
    light, reached = ["run_config", "presets", *(name for name in MODULES if name.endswith(".config"))], set()
    while light:
        name = light.pop()
        if name not in reached:
            reached.add(name)
            light += IMPORTS[name]
    for name in reached:
        tree = ast.parse(MODULES[name].read_text("utf-8"))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not names & {"tensorflow", "keras", "numpy"}, name


def functions_of(path: Path) -> dict[str, int]:
    """Returns a file's functions with their lines, docstrings included."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)]
    return {f"{path.name}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1 for node in nodes}


def test_files_and_functions_are_short():
    sizes = {module_of(path): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert {name: size for name, size in sizes.items() if size > LONGEST_FILE} == {}
    assert sum(size > USUAL_FILE for size in sizes.values()) < len(sizes) / 10
    lengths = {name: length for path in FILES for name, length in functions_of(path).items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}
    assert statistics.quantiles(lengths.values(), n=10)[-1] <= USUAL_FUNCTION


@each_file
def test_importing_a_module_has_no_effect(path):
    effects = [ast.unparse(node) for node in ast.parse(path.read_text("utf-8")).body if has_effect(node)]
    assert effects == []


@pytest.mark.parametrize("text", ["keras.utils.set_random_seed(1)", "for i in x: pass", "with a: pass", "if x: y = 1"])
def test_an_effect_is_recognised(text):
    assert has_effect(ast.parse(text).body[0])


# === What could run somebody else's code ===

# Names that are computed, out of a literal table in the same file.
COMPUTED_MODULES = {"f'pipeline.models.{module}'"}
FORBIDDEN_MODULES = {
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
        name = node.args[0]
        return [name.value if isinstance(name, ast.Constant) else f"?{ast.unparse(name)}"]
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
    forbidden += [name for name in modules if name.startswith("?") and name[1:] not in COMPUTED_MODULES]
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
        "importlib.import_module('pickle')", "importlib.import_module(name)", "import_module(f'pipeline.{x}')",
        "import_module('marshal')",
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
