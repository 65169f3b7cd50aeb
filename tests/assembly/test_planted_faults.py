"""Each planted fault is found with its code, and none ends in a traceback."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from engine.assembly import doctor
from engine.config import load_config
from engine.data.doctor import CODES
from engine.data.doctor.case import Cost
from tests.assembly import faults  # noqa: F401  registers them
from tests.assembly.planted import FAULTS, Fault, Toy, toy_in, write_base

DOCS = Path(__file__).resolve().parents[2] / "docs" / "doctor.md"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("planted") / "base")


@pytest.fixture
def toy(base: Path, tmp_path: Path) -> Toy:
    return toy_in(tmp_path / "toy", base)


@pytest.fixture(autouse=True)
def cost_is_known(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Except where it is what is tested: tracing the model takes seconds."""
    planted = getattr(getattr(request.node, "callspec", None), "params", {}).get("fault")
    if planted and not {"COST", "MEMORY_SHORT"} & set(planted.codes):
        monkeypatch.setattr(doctor, "estimate_cost", lambda *_: Cost(1, 1.0, 1, "given"))


def checked(toy: Toy, opens_images: bool = False) -> doctor.Checkup:
    toy.save()
    keys = ["DATASETS.ROOT", str(toy.root), "OUTPUT_DIR", str(toy.root / "out"), *map(str, toy.keys)]
    return doctor.check_data(load_config(toy.config, keys), quick=not opens_images)


def codes_of(checkup: doctor.Checkup) -> set[str]:
    return {each.code for each in checkup.findings}


@pytest.mark.parametrize("opens_images", [False, True])
def test_in_the_data_set_as_it_is_nothing_is_found(toy: Toy, opens_images: bool) -> None:
    found = checked(toy, opens_images)
    assert codes_of(found) <= {"COST", "SHM_SMALL"} and not found.has_errors
    assert [each.num_boxes for each in found.summaries] == [36, 18]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault, toy: Toy) -> None:
    fault.plant(toy)
    found = checked(toy, fault.opens_images)
    assert set(fault.codes) <= codes_of(found)
    for each in found.findings:
        assert each.message and "\n" not in each.message and each.remedy and each.count >= 1


def test_sixty_faults_and_more() -> None:
    assert len({each.name for each in FAULTS}) == len(FAULTS) >= 60


def test_every_code_has_a_planted_fault() -> None:
    """But for those of this machine, and the one for all else."""
    planted = {code for each in FAULTS for code in each.codes}
    assert set(CODES) - planted <= {"ANN_FAULTY", "ANN_READ_OTHERWISE", "WORKERS_NONE", "CLASS_SHARES_DIFFER"}


def test_the_page_lists_the_codes() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\w+) \| (.+) \| (.+) \|$", DOCS.read_text(encoding="utf-8"), re.M)
    assert rows == [(each.name, each.severity, each.meaning, each.remedy) for each in CODES.values()]


def test_other_data_sets_are_checked_although_one_cannot_be_read(toy: Toy) -> None:
    toy.val = None
    toy.boxes[0]["bbox"][2] = 0
    assert {"DATASET_MISSING", "BOX_NO_AREA"} <= codes_of(checked(toy))


def test_nothing_is_written(toy: Toy) -> None:
    checked(toy)
    before = sorted(path.name for path in toy.root.iterdir())
    shutil.rmtree(toy.root / "out", ignore_errors=True)
    assert before == sorted(path.name for path in toy.root.iterdir()) and "out" not in before
