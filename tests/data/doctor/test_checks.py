"""Pieces of the checks, by hand: hashes, similar boxes, codes, a check of the user's own."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.doctor import CHECKS, CODES, Case, declare, examine, run_checks
from engine.data.doctor.machine import SHARED
from engine.data.doctor.picture_facts import difference_hash, near_pairs
from engine.errors import InputError
from tests.conftest import WriteCoco
from tests.data.conftest import annotation, open_coco

DOCS = Path(__file__).resolve().parents[3] / "docs" / "doctor.md"


@given(st.lists(st.sampled_from([0, 1, 3, 7, 15, 2**16, 2**40 + 1, 2**63, 2**64 - 1, 2**64 - 8]), max_size=12))
def test_near_hashes_are_those_of_all_pairs(hashes: list[int]) -> None:
    pairs = [(a, b) for b in range(len(hashes)) for a in range(b) if (hashes[a] ^ hashes[b]).bit_count() <= 3]
    assert near_pairs(hashes) == sorted(pairs)


def test_the_work_grows_with_the_hashes_and_not_with_their_pairs() -> None:
    assert len(near_pairs(np.zeros(3000, np.uint64), most=4)) <= 4 * 4 * 3000


def test_a_hash_ignores_size_and_brightness() -> None:
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 200, (8, 9)), np.ones((16, 16))).astype(np.uint8)
    assert difference_hash(image) == difference_hash(image[::2, ::2] + 9)


def test_pairs_of_similar_boxes_are_found_among_many(write_coco: WriteCoco) -> None:
    boxes = [[k % 20, k % 11, 5, 5] for k in range(0, 200, 7)] + [[2, 2, 30, 15], [2.5, 2, 30, 15], [2, 2, 30, 15]]
    rows = [annotation(1, 7 if k == len(boxes) - 1 else 3, box) for k, box in enumerate(boxes)]
    found = run_checks(Case(tuple(examine(open_coco(write_coco([(1, 20, 40)], rows)), 20, 40))))
    counts = {each.code: each.count for each in found}
    assert counts["BOX_CONFLICT"] == 2 and counts["BOX_NEARLY_REPEATED"] == 1


@pytest.mark.parametrize("with_sizes", [True, False])
def test_any_numbers_are_checked_without_a_warning(write_coco: WriteCoco, tmp_path: Path, with_sizes: bool) -> None:
    odd = [1e308, -1e308, 1e-308, 0, 5, 20]
    boxes = [[a, b, c, d] for a in odd for b in odd[3:] for c in odd for d in odd[:5:2]]
    rows = [annotation(1 + k % 3, (3, 7)[k % 2], box, area=box[2]) for k, box in enumerate(boxes)]
    folder = write_coco([(number, 20, 40) for number in (1, 2, 3)], rows, with_sizes=with_sizes)
    for image in (folder / "images").iterdir() if not with_sizes else ():
        image.unlink()  # so that sizes are unknown
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = run_checks(Case(tuple(examine(open_coco(folder), 20, 40))))
    assert {"BOX_NO_AREA", "AREA_WRONG"} <= {each.code for each in found}


def test_codes_are_declared_once_and_have_a_known_severity() -> None:
    with pytest.raises(InputError, match="SHM_SMALL .* declared already"):
        declare(SHARED.name, "note", "", "")
    with pytest.raises(InputError, match="error, warning, note"):
        declare("NEW", "fatal", "", "")


def test_the_example_of_the_page_is_a_check(write_coco: WriteCoco, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.M | re.S)
    monkeypatch.setattr(CHECKS, "_obj_map", dict(CHECKS._obj_map))
    before = set(CODES)
    try:
        exec(compile(code, "docs/doctor.md", "exec"), {})  # what IMPORTS would import
        dataset = open_coco(write_coco([(1, 20, 40)], [annotation(1, 3, [1, 1, 38, 15])]))
        found = run_checks(Case(tuple(examine(dataset, 20, 40))))
        assert [each.message for each in found if each.code == "MY_HUGE_BOX"] == ["1 boxes are huge"]
    finally:
        for name in set(CODES) - before:
            del CODES[name]
