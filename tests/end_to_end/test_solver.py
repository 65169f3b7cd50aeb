"""Length in epochs, a schedule of the user's own, groups and the reference batch, through the real command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.conftest import REPOSITORY, World, read_metrics, run

OWN_SCHEDULE = """
from engine.solver.curves import SCHEDULES, Curves, ScheduleSettings

@SCHEDULES.register("inverse_sqrt")
def inverse_sqrt(settings: ScheduleSettings) -> Curves:
    return Curves(lambda progress: (1 + progress * settings.max_iter) ** -0.5)
"""

KEYS = {
    "IMPORTS": "('my_schedule',)",
    "SOLVER.SCHEDULE": "inverse_sqrt",
    "SOLVER.REFERENCE_BATCH": "16",
    "SOLVER.IMS_PER_BATCH": "8",
    "SOLVER.MAX_EPOCH": "2",
    "SOLVER.PARAM_GROUPS.backbone.*.lr_factor": "0.1",
    "SOLVER.LOG_PERIOD": "1",
    "OUTPUT_DIR": "run",
}


def test_two_epochs_of_twelve_images(world: World, tmp_path: Path) -> None:
    (tmp_path / "my_schedule.py").write_text(OWN_SCHEDULE)
    keys = [word for pair in KEYS.items() for word in pair]
    done = run(world.command(REPOSITORY / "tools/train_net.py", "--skip-test", *keys), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "SOLVER.BASE_LR 0.002 for 16 images: 0.001 for 8" in done.stdout
    rates = [line["lr"] for line in read_metrics(tmp_path / "run")]
    assert rates == pytest.approx([0.001, 0.001 * 2**-0.5, 0.001 * 3**-0.5])  # of the heads


def test_a_pattern_that_fits_nothing_is_one_line(world: World, tmp_path: Path) -> None:
    done = world.train("SOLVER.PARAM_GROUPS.backbone.bdy.*.lr_factor", "0.1", "OUTPUT_DIR", tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "error: SOLVER.PARAM_GROUPS: backbone.bdy.* matches no parameter of the model; their names run from"
    )
