"""Surroundings that commands must cope with: a user that the machine does not know, a port that is taken."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.end_to_end.conftest import REPOSITORY, World, run

# As in a container started with the number of an unknown user: no entry in /etc/passwd, no HOME, USER or LOGNAME.
UNKNOWN_USER = """
import os, pwd, runpy, sys
def getpwuid(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = getpwuid
for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
    os.environ.pop(name, None)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no /etc/passwd")
def test_an_unknown_user_without_a_home(world: World, tmp_path: Path) -> None:
    script = tmp_path / "unknown_user.py"
    script.write_text(UNKNOWN_USER)
    folder = tmp_path / "run"
    keys = ["SOLVER.MAX_ITER", "2", "DATALOADER.NUM_WORKERS", "1", "OUTPUT_DIR"]
    done = run([script, *world.command("tools/train_net.py", *keys, folder)])
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert (folder / "inference" / "fabric_val" / "metrics.json").exists()

    for weight, told in (
        ("~/w.pth", "command line: MODEL.WEIGHT ~/w.pth: this user has no home folder (HOME is not set); "),
        ("torchvision://resnet18", "no folder for downloaded weights: ~/.cache/engine/weights: this user has no home "),
    ):
        command = ["MODEL.WEIGHT", weight, *keys, tmp_path / "none"]
        refused = run([script, *world.command("tools/train_net.py", *command)])
        (line,) = refused.stderr.splitlines()
        assert refused.returncode == 2 and line.startswith(f"error: {told}"), line


def test_a_port_that_is_taken(world: World, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        env = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        done = run(world.command("tools/train_net.py", "OUTPUT_DIR", tmp_path / "run"), REPOSITORY, env)
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("error: ")]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert line.startswith("error: the processes cannot connect to each other: ") and str(port) in line
    assert not (tmp_path / "run").exists()


def test_paths_with_a_home_folder_and_variables(world: World, tmp_path: Path) -> None:
    """Run and resumed from a folder in which nothing may appear, least of all one named ~ or $PLACE."""
    here = tmp_path / "here"
    here.mkdir()
    env = {"HOME": str(tmp_path / "home"), "PLACE": str(world.root.parent)}
    keys = ["DATASETS.ROOT", "${PLACE}/fabric", "OUTPUT_DIR", "~/runs/$USER_RUN", "SOLVER.MAX_ITER"]
    command = [REPOSITORY / "tools/train_net.py", "--config-file", "$PLACE/tiny.yaml", "--skip-test"]
    for options, count in (([], "1"), (["--resume"], "2")):
        done = run([*command, *options, *keys, count], here, env | {"USER_RUN": "mine"})
        assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stdout and list(here.iterdir()) == []
    assert (tmp_path / "home" / "runs" / "mine" / "model_final.pth").exists()
    refused = run([*command, *keys, "1"], here, env)
    told = (
        "command line: OUTPUT_DIR ~/runs/$USER_RUN: the variable USER_RUN is not set; set it, or write the path itself"
    )
    assert refused.returncode == 2 and refused.stderr == f"error: {told}\n" and list(here.iterdir()) == []
