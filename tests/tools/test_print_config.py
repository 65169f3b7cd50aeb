from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from engine.config import get_cfg, load_config
from engine.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/cascade/cascade_dcn_R_50_FPN_20e.yaml"


def main(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    runpy.run_path(str(ROOT / "tools/print_config.py"))["main"](list(map(str, arguments)))
    return capsys.readouterr().out


@pytest.mark.parametrize("flags", [(), ("--diff",)])
def test_what_is_printed_loads_again(flags: tuple[str, ...], capsys, tmp_path: Path) -> None:
    told = main(capsys, "--config-file", CONFIG, *flags, "SOLVER.BASE_LR", "0.5", "TEST.BBOX_AUG.SCALES", "(600, 700)")
    (tmp_path / "told.yaml").write_text(told, encoding="utf-8")
    cfg = load_config(tmp_path / "told.yaml")
    assert cfg == load_config(CONFIG, ["SOLVER.BASE_LR", "0.5", "TEST.BBOX_AUG.SCALES", "(600, 700)"])
    assert ("GAMMA" in told) == (not flags)


def test_keys(capsys: pytest.CaptureFixture[str]) -> None:
    told = main(capsys, "--config-file", CONFIG, "--keys", "solver.base_lr", "SOLVER.BASE_LR", "0.5")
    assert yaml.safe_load(told) == {"SOLVER": {"BASE_LR": 0.5}}
    with pytest.raises(InputError, match="no key matches nothing.at.all"):
        main(capsys, "--config-file", CONFIG, "--keys", "nothing.at.all")


def test_doc_needs_no_configuration_and_no_torch() -> None:
    code = (
        "import runpy, sys; sys.argv = ['print_config.py', '--doc', 'SOLVER.EMA']\n"
        "try: runpy.run_path('tools/print_config.py', run_name='__main__')\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "."}
    )
    assert done.stderr == ""
    assert done.stdout.startswith(f"SOLVER.EMA_DECAY: {get_cfg().SOLVER.EMA_DECAY}\n    (ours)")
    assert done.stdout.endswith("\n0 False\n")


def test_doc_with_a_configuration_tells_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert "SOLVER.MAX_ITER: 150000  (default 40000)" in main(
        capsys, "--config-file", CONFIG, "--doc", "MAX_ITER", "SOLVER.MAX_ITER", "150000"
    )


def test_a_mistake_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/print_config.py", "--config-file", CONFIG, "SOLVER.BASE_RL", "1"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["error: command line: unknown key SOLVER.BASE_RL; did you mean SOLVER.BASE_LR?"]


@pytest.mark.parametrize("arguments", [(), ("--diff",), ("--doc", "X", "SEED", "1"), ("--diff", "--keys", "X")])
def test_a_command_without_its_configuration(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(capsys, *arguments)
    assert stop.value.code == 2
