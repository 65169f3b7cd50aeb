"""The command `engine`: each script of `tools/`, `demo/` and `datasets/` as a sub-command.

    engine train --config-file F        is        python tools/train_net.py --config-file F
    torchrun --nproc-per-node=2 -m engine train --config-file F

A script that is added to these folders is a command at once; the first line of its docstring explains it.
"""

from __future__ import annotations

import ast
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

from engine import __version__
from engine.errors import InputError, run_tool
from engine.shipped import shipped
from engine.spelling import nearest_words

FOLDERS = ("tools", "demo", "datasets")
# Commands that are not called like their script (publish_model.py: publish-model), in the order of their use.
SHORT_NAMES = {
    "new_config": "new",
    "check_dataset": "check",
    "train_net": "train",
    "test_net": "test",
    "atss_demo": "demo",
    "predict": "predict",
    "export_model": "export",
    "serve": "serve",
    "print_config": "config",
}
NOT_COMMANDS = {"import_graph"}  # for those who work on the engine
LAUNCHER_OPTIONS = ("--local_rank", "--local-rank")


def commands() -> dict[str, Path]:
    """The script of each command: those of `SHORT_NAMES` first, the others by name."""
    scripts = {path.stem: path for folder in FOLDERS for path in shipped(folder).glob("*.py")}
    stems = [*(stem for stem in SHORT_NAMES if stem in scripts), *sorted(scripts.keys() - SHORT_NAMES - NOT_COMMANDS)]
    return {SHORT_NAMES.get(stem, stem.replace("_", "-")): scripts[stem] for stem in stems}


def help_text() -> str:
    """All commands with what they do, read from the scripts without running them."""
    known = commands()
    width = max(map(len, known))
    lines = [f"  {name:<{width}}  {_summary(script)}" for name, script in known.items()]
    head = ["usage: engine COMMAND [OPTION ...]", "       engine --help | --version", "", "commands:"]
    return "\n".join([*head, *lines, "", "engine COMMAND --help explains a command."])


def _summary(script: Path) -> str:
    return (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def run(arguments: list[str]) -> int:
    """Do what the words after `engine` say."""
    if not arguments:
        print(help_text(), file=sys.stderr)
        return 2
    if arguments[0] in ("-h", "--help"):
        print(help_text())
    elif arguments[0] == "--version":
        print(f"engine {__version__}")
    else:
        from_launcher = []  # python -m torch.distributed.launch puts its option before the command
        while len(arguments) > 1 and arguments[0].startswith(LAUNCHER_OPTIONS):
            from_launcher.append(arguments.pop(0))
        name, *options = arguments
        _run_script(_script_of(name), name, [*from_launcher, *options])
    return 0


def _script_of(name: str) -> Path:
    known = commands()
    if name in known:
        return known[name]
    spellings = {**{each.stem: command for command, each in known.items()}, **{each: each for each in known}}
    nearest = [] if name.startswith("-") else nearest_words(name, spellings)
    hint = f"did you mean {spellings[nearest[0]]}?" if nearest else "engine --help lists them"
    raise InputError(f"there is no command {name!r}; {hint}")


def _run_script(script: Path, name: str, options: list[str]) -> None:
    """Run a script as `python script options...` does, except that it is called `engine NAME` in its own messages.

    It becomes the module `__main__`, as processes that it starts expect of the program that they belong to.
    """
    sys.argv = [f"engine {name}", *options]
    module = ModuleType("__main__")
    module.__file__ = str(script)
    sys.modules["__main__"] = module
    exec(compile(script.read_bytes(), str(script), "exec"), module.__dict__)


def main() -> None:
    run_tool(partial(run, sys.argv[1:]))


if __name__ == "__main__":
    main()
