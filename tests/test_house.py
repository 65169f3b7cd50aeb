"""The house of DESIGN section 2, proved from the source: who imports whom, who names `cfg`."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = sorted((REPOSITORY / "engine").rglob("*.py"))

_spec = importlib.util.spec_from_file_location("import_graph", REPOSITORY / "tools" / "import_graph.py")
import_graph = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(import_graph)

MAX_FLOORS = 8
MAPPINGS = (".CATALOG", ".CLASS_MAP", ".PARAM_GROUPS", ".ARGS")  # whose names are the user's
MAX_CONSTRUCTOR_ARGUMENTS = 10
MAX_FILE_LINES = 420
MAX_FUNCTION_LINES = 70

PUBLIC_NAMES = {
    "get_cfg",
    "build_model",
    "build_train_loader",
    "build_test_loader",
    "train",
    "evaluate",
    "load_weights",
    "Predictor",
    "Targets",
    "Detections",
    "export",
}


def names_of_cfg(source: str) -> list[int]:
    """Lines on which `cfg` is a variable, an argument, an attribute, a keyword or an import."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            name = node.id
        elif isinstance(node, ast.arg | ast.keyword):
            name = node.arg
        elif isinstance(node, ast.Attribute):
            name = node.attr
        elif isinstance(node, ast.alias):
            name = node.asname or node.name
        else:
            continue
        if name == "cfg":
            lines.append(node.lineno)
    return lines


# ---------------------------------------------------------------- the checks themselves


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("engine.data.loader", "from engine.structures import Targets", True),
        ("engine.data.loader", "from engine.data.image_file import read_image", True),
        ("engine.data.loader", "from .image_file import read_image", True),
        ("engine.data.loader", "from ..structures import Targets", True),
        ("engine.data.loader", "import torch, numpy", True),
        ("engine.data.loader", "from engine.errors import InputError", True),
        ("engine.log", "from engine import distributed", True),
        ("engine.data.loader", "from engine.training import loop", False),
        ("engine.data.loader", "from engine import training", False),
        ("engine.data.loader", "from ..training import loop", False),
        ("engine.data.loader", "import engine.checkpoint.io", False),
        ("engine.data.loader", "import engine", False),
        ("engine.data.loader", "def f():\n    from engine.checkpoint import io", False),
        ("engine.data.loader", "if TYPE_CHECKING:\n    from engine.checkpoint import io", False),
        ("engine.data.loader", "importlib.import_module('engine.checkpoint')", False),
        ("engine.data.loader", "from engine.assembly.data import build_dataset", False),
        ("engine.data.loader", "from engine.assembly import data", False),
        ("engine.structures.boxes", "from engine.layers import nms", False),
        ("engine.solver.schedule", "from engine.visualize import plots", False),
        ("engine.assembly.data", "from engine.config import CfgNode", True),
        ("engine.assembly.data", "from engine.training import loop", True),
        ("engine.config.node", "from engine.errors import InputError", True),
        ("engine.config.node", "from engine.config.coerce import coerce", True),
        ("engine.config.node", "from engine.data import loader", False),
        ("engine.errors", "from engine.structures import Targets", False),
    ],
)
def test_upward_imports(module: str, source: str, allowed: bool) -> None:
    assert (not import_graph.upward_imports(source, module)) == allowed


def test_relative_import_in_a_package() -> None:
    assert not import_graph.upward_imports("from .loader import x", "engine.data", is_package=True)
    assert import_graph.upward_imports("from ..training import x", "engine.data", is_package=True)


def test_floors_refuse_a_circle() -> None:
    with pytest.raises(ValueError, match="a -> b -> a"):
        import_graph.floors({"a": {"b"}, "b": {"a"}})


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("cfg = 1", 1),
        ("def f(cfg): pass", 1),
        ("f(cfg=1)", 1),
        ("self.cfg", 1),
        ("from x import y as cfg", 1),
        ("config = get_cfg()", 0),
        ("'cfg'", 0),
    ],
)
def test_names_of_cfg(source: str, count: int) -> None:
    assert len(names_of_cfg(source)) == count


# ---------------------------------------------------------------- the house


def test_every_import_runs_downward() -> None:
    graph, faults = import_graph.read_graph()
    assert not faults, "\n".join(faults)
    assert max(import_graph.floors(graph).values()) <= MAX_FLOORS


def test_the_import_graph_is_printed() -> None:
    done = subprocess.run([sys.executable, "tools/import_graph.py"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("floors, 0 imports that do not run downward")


def test_config_does_not_import_torch() -> None:
    code = "import sys, engine.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


def test_only_assembly_names_cfg() -> None:
    faults = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in SOURCES
        if import_graph.room_of(import_graph.module_name(path)) != "assembly"
        for line in names_of_cfg(path.read_text())
    ]
    assert not faults, "\n".join(faults)


def test_files_and_functions_are_short() -> None:
    faults = []
    for path in SOURCES:
        text = path.read_text()
        lines = len(text.splitlines())
        if lines > MAX_FILE_LINES:
            faults.append(f"{path.relative_to(REPOSITORY)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    faults.append(f"{path.relative_to(REPOSITORY)}: {node.name} has {length} lines")
    assert not faults, "\n".join(faults)


def test_constructors_say_what_they_take() -> None:
    """No tunnels of hidden arguments, and no more arguments than a reader can hold in mind."""
    faults = []
    for path in SOURCES:
        for cls in ast.walk(ast.parse(path.read_text())):
            if not isinstance(cls, ast.ClassDef) or cls.name.startswith("_"):
                continue
            is_dataclass = any("dataclass" in ast.unparse(each) for each in cls.decorator_list)
            fields = [each for each in cls.body if isinstance(each, ast.AnnAssign)] if is_dataclass else []
            count = len(fields)
            for init in (each for each in cls.body if getattr(each, "name", "") == "__init__"):
                count = len(init.args.posonlyargs + init.args.args + init.args.kwonlyargs) - 1
                if init.args.vararg or init.args.kwarg:
                    faults.append(f"{path.relative_to(REPOSITORY)}:{init.lineno} {cls.name} tunnels arguments")
            if count > MAX_CONSTRUCTOR_ARGUMENTS:
                faults.append(f"{path.relative_to(REPOSITORY)}:{cls.lineno} {cls.name} takes {count} arguments")
    assert not faults, "\n".join(faults)


def test_a_key_is_read_by_its_full_name() -> None:
    """`grep -rn ATSS.TOPK engine` finds every use: no aliases of groups of keys, no computed groups."""
    from engine.config import get_cfg

    cfg, faults = get_cfg(), []
    for path in sorted((REPOSITORY / "engine" / "assembly").glob("*.py")):
        tree = ast.parse(path.read_text())
        extended = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for node in ast.walk(tree):
            dotted = ast.unparse(node) if isinstance(node, ast.Attribute) and id(node) not in extended else ""
            if dotted.startswith("cfg.") and not dotted.endswith(MAPPINGS) and isinstance(_value(cfg, dotted), dict):
                faults.append(f"{path.relative_to(REPOSITORY)}:{node.lineno} takes the whole group {dotted}")
    assert not faults, "\n".join(faults)


def _value(cfg: object, dotted: str) -> object:
    """The value of `cfg.A.B`, None where `dotted` is another expression."""
    for name in dotted.split(".")[1:]:
        cfg = cfg.get(name) if isinstance(cfg, dict) else None
    return cfg


def test_names_say_what_things_do() -> None:
    faults = [str(path) for path in SOURCES if path.stem in ("utils", "util", "helpers", "misc")]
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "name", None) or ""
            is_class = isinstance(node, ast.ClassDef)
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if (is_class and name.endswith(("Manager", "Helper", "Utils"))) or (
                is_function and name.lstrip("_").startswith("make_")
            ):
                faults.append(f"{path.relative_to(REPOSITORY)}:{node.lineno} {name}")
    assert not faults, "\n".join(faults)


def test_every_room_stands_in_the_table() -> None:
    folders = {p.name for p in (REPOSITORY / "engine").iterdir() if (p / "__init__.py").is_file()}
    assert folders <= set(import_graph.ROW_OF)


# ---------------------------------------------------------------- what CONTRIBUTING says of it

CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_a_step_is_read_in_seven_files() -> None:
    section = CONTRIBUTING.split("### One ATSS training step")[1].split("###")[0]
    files = re.findall(r"^\d\. `(engine/\S+\.py)`", section, re.M)
    assert 0 < len(files) <= 7 and all((REPOSITORY / file).is_file() for file in files)


def test_keys_are_used_two_hops_from_the_file() -> None:
    section = CONTRIBUTING.split("### From a key")[1].split("## Add a part")[0]
    rows = re.findall(r"^\| `([A-Z_.]+)` \| `(\w+\.py)`, `(\w+)` \| .*`(\w+)[.\w]*`.* in `(\S+)` \|$", section, re.M)
    rows += re.findall(r"^\| `([A-Z_.]+)` \| `(\w+\.py)`, `(\w+)` \| `(\w+)[.\w]*` in `(\S+)` \|$", section, re.M)
    assert len({row[0] for row in rows}) == 5
    for key, file, function, use, used_in in rows:
        source = (REPOSITORY / "engine" / "assembly" / file).read_text()
        (definition,) = (each for each in ast.parse(source).body if getattr(each, "name", "") == function)
        assert f"cfg.{key}" in ast.get_source_segment(source, definition), key
        assert use in (REPOSITORY / used_in).read_text(), key


def test_public_names() -> None:
    import engine

    assert set(engine.__all__) == PUBLIC_NAMES
    missing = [name for name in PUBLIC_NAMES if not hasattr(engine, name)]
    assert not missing
    with pytest.raises(AttributeError, match="nonsense"):
        engine.nonsense  # noqa: B018


def test_public_names_are_lazy() -> None:
    code = "import sys, engine; sys.exit(any(m in sys.modules for m in ('torch', 'cv2', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0
