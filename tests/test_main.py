"""The command `engine` (`engine/__main__.py`): the same scripts, the same answers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine import __main__ as command
from engine.errors import InputError
from tests.end_to_end.conftest import several_processes
from tests.prepared import clean_environment

REPOSITORY = Path(__file__).resolve().parents[1]
# Each answers before torch is imported.
MISTAKES = [
    ["--config-file", "nowhere.yaml"],
    ["--config-file", "my.yaml", "SOLVER.BASE_LT", "1"],
    ["--config-file", "my.yaml", "SOLVER.BASE_LR", "much"],
    ["--config-files", "my.yaml"],
    [],
]


def engine(*words: str, cwd: Path = REPOSITORY, front: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """What `engine words...` does, which `python -m engine` stands for where it is not installed."""
    process = [sys.executable, *front, "-m", "engine", *words]
    env = {**clean_environment(), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(process, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def test_the_help_lists_every_script_with_a_line() -> None:
    scripts = {path.stem for folder in command.FOLDERS for path in (REPOSITORY / folder).glob("*.py")}
    known = command.commands()
    assert {path.stem for path in known.values()} == scripts - command.NOT_COMMANDS
    lines = dict(re.findall(r"^  ([a-z-]+) +(\S.*\.)$", command.help_text(), re.M))
    assert list(lines) == list(known)
    assert lines["train"] == "Train a model from a YAML file, then test it."
    assert list(known)[:3] == ["new", "check", "train"]


def test_the_help_needs_nothing_heavy() -> None:
    code = (
        "import sys\nfrom engine.__main__ import run\nrun(['--help'])\n"
        "sys.exit(any(each in sys.modules for each in ('torch', 'numpy', 'cv2', 'yacs')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "  train " in done.stdout


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("trian", "did you mean train?"),
        ("TEST", "did you mean test?"),
        ("train_net", "did you mean train?"),
        ("atss_demo", "did you mean demo?"),
        ("convert_dataset", "did you mean convert-dataset?"),
        ("average-checkpoint", "did you mean average-checkpoints?"),
        ("import_graph", "engine --help lists them"),
        ("tools/train_net.py", "did you mean train?"),
        ("qqq", "engine --help lists them"),
        ("--config-file", "engine --help lists them"),
    ],
)
def test_a_misspelt_command_gets_the_nearest(word: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        command.run([word, "--config-file", "x"])
    assert str(caught.value) == f"there is no command {word!r}; {hint}"


def test_exit_codes_and_streams(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["--version"]) == 0
    assert re.fullmatch(r"engine \d+\.\d+\.\d+\n", capsys.readouterr().out)
    assert command.run([]) == 2
    out, err = capsys.readouterr()
    assert not out and "usage: engine" in err


def test_a_misspelt_command_ends_with_2() -> None:
    done = engine("trian")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: there is no command 'trian'; did you mean train?\n"


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_mistakes_are_answered_as_by_the_script(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("_BASE_: quickstart/atss_R_18_fabric.yaml\n")
    script = [sys.executable, str(REPOSITORY / "tools/train_net.py"), *words]
    expected = subprocess.run(script, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True)
    done = engine("train", *words, cwd=tmp_path)
    assert done.returncode == expected.returncode == 2
    assert done.stderr.replace("engine train", "train_net.py") == expected.stderr


def test_a_command_does_what_the_script_does(tmp_path: Path) -> None:
    """On what it prints, with a packaged configuration."""
    words = ["--config-file", "atss/atss_R_50_FPN_1x.yaml", "SOLVER.MAX_ITER", "7"]
    script = [sys.executable, str(REPOSITORY / "tools/print_config.py"), *words]
    expected = subprocess.run(script, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True)
    done = engine("config", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, expected.stdout) and "MAX_ITER: 7" in done.stdout
    assert engine("config", "--help").stdout.startswith("usage: engine config ")


def test_new_processes_know_the_program_they_belong_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As loader workers where the system starts them with spawn: what they unpickle is found in the script."""
    script = tmp_path / "tools" / "count_words.py"
    script.parent.mkdir()
    script.write_text(
        '"""Count."""\n'
        "import json, multiprocessing, sys\n"
        "def count(word):\n    return [len(word), __name__]\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:\n"
        "        print(json.dumps([sys.argv[0], pool.map(count, sys.argv[2:])]))\n"
    )
    program = tmp_path / "engine"  # as the one that an installation writes
    program.write_text(
        "import engine.__main__ as command, engine.shipped, pathlib, sys\n"
        f"engine.shipped._INSTALLED = pathlib.Path({str(tmp_path)!r})\n"
        "if __name__ == '__main__':\n    command.main()\n"
    )
    env = {**clean_environment(), "PYTHONPATH": str(REPOSITORY)}
    for method, name in (("fork", "__main__"), ("spawn", "__mp_main__")):
        words = [sys.executable, str(program), "count-words", method, "a", "bcd"]
        done = subprocess.run(words, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == ["engine count-words", [[1, name], [3, name]]]


def test_a_launcher_starts_the_command() -> None:
    """The answer to a mistake shows that its process got the words after the command.

    This launcher puts an option before them, torchrun does not.
    """
    front = [*several_processes("launch", 1), "-m"]
    words = [sys.executable, *front, "engine", "train", "--config-file", "nowhere.yaml"]
    env = {**clean_environment(), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(words, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode
    assert "error: nowhere.yaml: no such file" in done.stderr
