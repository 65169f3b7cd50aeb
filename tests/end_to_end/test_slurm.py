"""`docs/slurm.sh` with stand-ins for Slurm's own commands: two machines that are both this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.checkpoint import io
from tests.end_to_end.conftest import REPOSITORY, TIMEOUT, World, free_port

SRUN = """#!/bin/sh
# Starts its command on "both" machines.
"$@" &
other=$!
"$@" && wait $other
"""
SCONTROL = "#!/bin/sh\necho localhost\n"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_job_of_two_machines(world: World, tmp_path: Path) -> None:
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "localhost"}
    keys = ["DATASETS.ROOT", world.root, "OUTPUT_DIR", tmp_path / "run", "SOLVER.MAX_ITER", "2"]
    done = subprocess.run(
        ["bash", "docs/slurm.sh", world.config, *keys, "TEST.IMS_PER_BATCH", "2"],
        cwd=REPOSITORY,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("SLURM")},
            **slurm,
            "PATH": os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "MASTER_PORT": str(free_port()),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    assert "processes: 2 on 2 machines, started by torchrun, in Slurm job 7" in done.stdout
    assert io.load(tmp_path / "run" / "model_final.pth")["iteration"] == 2
