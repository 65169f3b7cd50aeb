from __future__ import annotations

import argparse
import runpy
from pathlib import Path

import pytest

RECIPES = runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks/recipes.py"))


def test_a_variant_is_a_name_and_pairs() -> None:
    variant = RECIPES["parse_variant"]("flips off: INPUT.HUE 0.1 DATASETS.TRAIN \"('a', 'b')\"")
    assert (variant.name, variant.pairs) == ("flips off", ("INPUT.HUE", "0.1", "DATASETS.TRAIN", "('a', 'b')"))


@pytest.mark.parametrize("text", ["INPUT.HUE 0.1", "hue:", "hue: INPUT.HUE", ": INPUT.HUE 0.1"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="name: KEY VALUE"):
        RECIPES["parse_variant"](text)


def test_a_row_is_mean_and_deviation_of_the_runs_that_finished() -> None:
    variant = RECIPES["Variant"]("x", ("A", "1"))
    runs = [{"AP": ap, "AP50": 2 * ap, "seconds per iteration": 1.0} for ap in (0.2, 0.4)]
    row = RECIPES["row_of"](variant, [*runs, None])
    assert row["runs"] == 2 and row["AP"] == pytest.approx(0.3) and row["AP50 +-"] == pytest.approx(0.2828, abs=1e-4)
    assert RECIPES["row_of"](variant, [None])["AP"] is None
