"""Print the rooms of `engine/` floor by floor with their imports, and all imports that run upward.

python tools/import_graph.py
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "engine"
BASE = "base"
"""The name for all modules directly in `engine/`; every room may import them."""

# From bottom to top. A room may only import from the rows below its own.
ROWS: tuple[tuple[str, ...], ...] = (
    (BASE,),
    ("structures",),
    ("layers",),
    ("config",),
    ("visualize", "solver"),
    ("data",),
    ("runtime",),
    ("modeling",),
    ("evaluation",),
    ("checkpoint",),
    ("inference",),
    ("reports", "export"),
    ("training",),
    ("analysis",),
    ("serve",),
    ("assembly",),
)
ROW_OF = {room: row for row, rooms in enumerate(ROWS) for room in rooms}


def module_name(path: Path) -> str:
    """engine/data/loader.py -> engine.data.loader; engine/data/__init__.py -> engine.data."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """engine.data.loader -> data; engine.errors -> base; engine itself -> base."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else BASE


def imported_modules(source: str, module: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """(line, name) of all imports of `engine` in `source`, including those in functions and under TYPE_CHECKING.

    `from engine.data import loader` gives engine.data.loader, since the imported name may be a module.
    """
    for node in ast.walk(ast.parse(source)):
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
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "engine")


def upward_imports(source: str, module: str, is_package: bool = False) -> list[str]:
    """One line for each import that the rules of the house forbid."""
    own = room_of(module)
    faults = []
    for line, target in imported_modules(source, module, is_package):
        other = room_of(target)
        if own not in ROW_OF or other not in ROW_OF:
            faults.append(f"{module}:{line} imports {target}: {own if own not in ROW_OF else other} has no row")
        elif own != other and ROW_OF[other] >= ROW_OF[own]:
            faults.append(f"{module}:{line} imports {target}: {other} is not below {own}")
        elif target == "engine" and module != "engine":
            faults.append(f"{module}:{line} imports the whole package; import the module")
    return faults


def read_graph() -> tuple[dict[str, set[str]], list[str]]:
    """The imported rooms by room, and the faults of all modules."""
    graph: dict[str, set[str]] = defaultdict(set)
    faults: list[str] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module, source = module_name(path), path.read_text(encoding="utf-8")
        if module == "engine":  # the public names, which are imported on first use
            continue
        faults += upward_imports(source, module, path.name == "__init__.py")
        targets = {room_of(target) for _, target in imported_modules(source, module, path.name == "__init__.py")}
        graph[room_of(module)] |= targets - {room_of(module)}
    return dict(graph), faults


def floors(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of each room, from 1: one above the highest room that it imports.

    Raises:
        ValueError: there is a cycle of imports.

    Example:
        >>> floors({"a": set(), "b": {"a"}, "c": {"a", "b"}})
        {'a': 1, 'b': 2, 'c': 3}
    """
    found: dict[str, int] = {}

    def floor(room: str, path: tuple[str, ...] = ()) -> int:
        if room in path:
            raise ValueError(f"rooms import each other: {' -> '.join((*path, room))}")
        if room not in found:
            found[room] = 1 + max((floor(other, (*path, room)) for other in graph.get(room, ())), default=0)
        return found[room]

    for room in graph:
        floor(room)
    return found


def picture(graph: Mapping[str, set[str]]) -> str:
    """The floors from top to bottom, one line per room with its imports except `base`."""
    floor_of = floors(graph)
    lines = []
    for floor in range(max(floor_of.values()), 0, -1):
        for room in sorted(room for room in graph if floor_of[room] == floor):
            imports = sorted(graph[room] - {BASE}, key=lambda other: (-floor_of[other], other))
            lines.append(f"{floor}  {room:<11} {' '.join(imports)}".rstrip())
    return "\n".join(lines)


def main() -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    graph, faults = read_graph()
    print(picture(graph))
    print(f"{max(floors(graph).values())} floors, {len(faults)} imports that do not run downward")
    print(*faults, sep="\n", end="\n" if faults else "")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
