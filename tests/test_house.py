"""The house of DESIGN section 2, proved from the source: who imports whom, who names `cfg`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = sorted((REPOSITORY / "engine").rglob("*.py"))

# From the bottom up. A module imports from its own room and from the rows below it.
ROWS = [
    {"errors", "log", "distributed", "registry", "environment", "spelling"},
    {"structures"},
    {"layers"},
    {"modeling"},
    {"data"},
    {"solver"},
    {"checkpoint"},
    {"visualize"},
    {"evaluation"},
    {"export"},
    {"inference"},
    {"training"},
]
ROW_OF = {room: row for row, rooms in enumerate(ROWS) for room in rooms}

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
}


def module_name(path: Path) -> str:
    """engine/data/coco.py -> engine.data.coco; engine/data/__init__.py -> engine.data."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_build(module: str) -> bool:
    return module.split(".")[-1] == "build"


def room(module: str) -> str:
    """engine.data.coco -> data; engine.errors -> errors; engine -> ''."""
    return (module.split(".") + [""])[1]


def imported_modules(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, name) of everything of `engine` that is imported, in functions and TYPE_CHECKING too.

    `from engine.data import coco` gives engine.data.coco: the name may be a module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join(package[: len(package) - node.level + 1] + base.split(".") * bool(base))
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
        else:
            continue
        yield from ((node.lineno, n) for n in names if n.split(".")[0] == "engine")


def layering_faults(source: str, module: str, is_package: bool = False) -> list[str]:
    """One line for each import that the house does not allow."""
    faults = []
    for line, target in imported_modules(ast.parse(source), module, is_package):
        reason = _fault(module, target)
        if reason:
            faults.append(f"{module}:{line} imports {target}: {reason}")
    return faults


def _fault(module: str, target: str) -> str | None:
    own, other = room(module), room(target)
    names_build = "build" in target.split(".")[1:]
    if own == "config":
        return (
            None
            if other in ("config", "errors", "spelling")
            else "engine.config imports engine.errors and spelling only"
        )
    if is_build(module):
        return None if other in ROW_OF or other in ("config", "build") else "is no room"
    if names_build:
        return "only build files and tools import a build file"
    if other == "config":
        return "only build files and tools import engine.config"
    if other not in ROW_OF:
        return "is no room of the house"
    if own not in ROW_OF:
        return f"{own} is no room of the house"
    if own != other and ROW_OF[other] > ROW_OF[own]:
        return f"{other} is above {own}"
    return None


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
        ("engine.data.coco", "from engine.structures import Targets", True),
        ("engine.data.coco", "from engine.data.reader import read_image", True),
        ("engine.data.coco", "from .reader import read_image", True),
        ("engine.data.coco", "from ..structures import Targets", True),
        ("engine.data.coco", "import torch, numpy", True),
        ("engine.data.coco", "from engine.errors import InputError", True),
        ("engine.log", "from engine import distributed", True),
        ("engine.data.coco", "from engine.training import loop", False),
        ("engine.data.coco", "from engine import training", False),
        ("engine.data.coco", "from ..training import loop", False),
        ("engine.data.coco", "import engine.solver.schedule", False),
        ("engine.data.coco", "import engine", False),
        ("engine.data.coco", "def f():\n    from engine.solver import schedule", False),
        ("engine.data.coco", "if TYPE_CHECKING:\n    from engine.solver import schedule", False),
        ("engine.data.coco", "importlib.import_module('engine.solver')", False),
        ("engine.data.coco", "from engine.config import get_cfg", False),
        ("engine.data.coco", "from engine.data.build import build_dataset", False),
        ("engine.data.coco", "from engine.data import build", False),
        ("engine.structures.boxes", "from engine.layers import nms", False),
        ("engine.data.build", "from engine.config import CfgNode", True),
        ("engine.data.build", "from engine.training import loop", True),
        ("engine.config.tree", "from engine.errors import InputError", True),
        ("engine.config.tree", "from engine.config.keys import KEYS", True),
        ("engine.config.tree", "from engine.log import get_logger", False),
    ],
)
def test_layering_faults(module: str, source: str, allowed: bool) -> None:
    assert (not layering_faults(source, module)) == allowed


def test_relative_import_in_a_package() -> None:
    assert not layering_faults("from .coco import x", "engine.data", is_package=True)
    assert layering_faults("from .build import x", "engine.data", is_package=True)


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


def test_each_module_imports_from_below() -> None:
    faults = []
    for path in SOURCES:
        module = module_name(path)
        if module != "engine":  # the lazy public names: test_public_names_are_lazy
            faults += layering_faults(path.read_text(), module, path.name == "__init__.py")
    assert not faults, "\n".join(faults)


def test_config_does_not_import_torch() -> None:
    code = "import sys, engine.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


def test_only_build_files_name_cfg() -> None:
    faults = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in SOURCES
        if path.name != "build.py"
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
    assert folders <= set(ROW_OF) | {"config"}


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
