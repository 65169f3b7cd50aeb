from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from engine.config import get_cfg, load_config
from engine.config.describe import difference, documentation, plain, select, to_yaml
from engine.config.keys import KEYS
from engine.config.tree import leaves
from engine.errors import InputError

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").rglob("*_R_*.yaml"))


def merged(text: str, folder: Path):
    (folder / "dump.yaml").write_text(text, encoding="utf-8")
    cfg = get_cfg()
    cfg.merge_from_file(folder / "dump.yaml")
    return cfg


@pytest.mark.parametrize("path", CONFIGS[::5], ids=lambda path: path.stem)
def test_both_texts_load_again(path: Path, tmp_path: Path) -> None:
    cfg = load_config(path)
    tree = plain(cfg)
    assert merged(to_yaml(tree), tmp_path) == cfg
    differing = difference(tree, plain(get_cfg()))
    assert merged(to_yaml(differing), tmp_path) == cfg
    assert len(dict(leaves(differing))) < 60


def test_data_sets_and_names_in_chinese_load_again(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "MODEL: {RPN_ONLY: True, ATSS_ON: True, BACKBONE: {CONV_BODY: R-18-FPN-RETINANET}}\n"
        "DATASETS: {ROOT: 数据, CATALOG: {布_1: {img_dir: 图, ann_file: a.json}}}\n",
        encoding="utf-8",
    )
    cfg = load_config(tmp_path / "c.yaml")
    tree = difference(plain(cfg), plain(get_cfg()))
    assert tree["DATASETS"] == {"ROOT": "数据", "CATALOG": {"布_1": {"img_dir": "图", "ann_file": "a.json"}}}
    for allow_unicode in (False, True):
        text = to_yaml(tree, allow_unicode)
        assert text.isascii() == (not allow_unicode)
        assert merged(text, tmp_path) == cfg


def test_parameter_groups_keep_their_order(tmp_path: Path) -> None:
    """Of the patterns that fit, the last counts."""
    pairs = ("rpn.head.*.lr_factor", "2.0", "*.bias.weight_decay", "0.0")
    cfg = get_cfg()
    cfg.merge_from_list([f"SOLVER.PARAM_GROUPS.{pair}" if i % 2 == 0 else pair for i, pair in enumerate(pairs)])
    for tree in (plain(cfg), difference(plain(cfg), plain(get_cfg()))):
        again = merged(to_yaml(tree), tmp_path)
        assert again == cfg and list(again.SOLVER.PARAM_GROUPS) == ["rpn.head.*", "*.bias"]
    told = documentation(cfg, "PARAM_GROUPS").splitlines()[0]
    assert told == (
        "SOLVER.PARAM_GROUPS: {'rpn.head.*': {'lr_factor': 2.0}, '*.bias': {'weight_decay': 0.0}}  (default {})"
    )


def test_difference_is_empty_for_the_defaults() -> None:
    assert difference(plain(get_cfg()), plain(get_cfg())) == {}


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("B.C", {"B": {"C": 1, "CD": 2}}),
        ("b.c?", {"B": {"CD": 2}}),
        ("B", {"B": {"C": 1, "CD": 2, "E": 3}}),
        ("a*e", {}),
        ("b*e", {"B": {"E": 3}}),
    ],
)
def test_select(pattern: str, found: dict) -> None:
    assert select({"A": 0, "B": {"C": 1, "CD": 2, "E": 3}}, pattern) == found


def test_every_key_shows_its_own_meaning() -> None:
    paragraphs = [" ".join(each.split()) for each in documentation(get_cfg(), "").split("\n\n")]
    told = {each.partition(":")[0]: each for each in paragraphs}
    for name, key in KEYS.items():
        assert key.doc in told[name], name
    assert "(ours) Your own data sets" in documentation(get_cfg(), "DATASETS.CATALOG")
    assert documentation(get_cfg(), "MODEL.ATSS_ON") == "MODEL.ATSS_ON: False\n    The dense stage is ATSS."


def test_documentation() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.EMA_DECAY", "0.999"])
    text = documentation(cfg, "solver.ema")
    assert text.startswith("SOLVER.EMA_DECAY: 0.999  (default 0.0)\n    (ours) Exponential moving average")
    assert "From 0 to 1." in text and "\n\n" not in text
    text = documentation(get_cfg(), "SOLVER.VALIDATION.P")
    assert text.startswith("SOLVER.VALIDATION:\n    (ours) Evaluation on DATASETS.VAL during training.\n\n")
    assert [line.split(":")[0] for line in text.splitlines() if not line.startswith(" ") and line] == [
        "SOLVER.VALIDATION",
        "SOLVER.VALIDATION.PERIOD",
        "SOLVER.VALIDATION.PERIOD_EPOCH",
        "SOLVER.VALIDATION.PATIENCE",
    ]
    words = (
        "One of constant, linear, exponential, or what a module of IMPORTS registers in engine.solver.warmup.WARMUPS."
    )
    assert words in " ".join(documentation(get_cfg(), "SOLVER.WARMUP_METHOD").split())
    assert "ann_file: Its annotations: a COCO JSON file" in documentation(get_cfg(), "DATASETS.CATALOG")
    assert max(len(line) for line in documentation(get_cfg(), "").splitlines() if line.startswith("    ")) <= 110


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [("SOLVER.BASE_RL", "did you mean SOLVER.BASE_LR"), ("EMA_DECY", "did you mean SOLVER.EMA_DECAY"), ("QQQQ", "")],
)
def test_a_pattern_without_keys(pattern: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"no key matches {pattern}.*{hint}") as caught:
        documentation(get_cfg(), pattern)
    assert ("did you mean" in str(caught.value)) == bool(hint)


def test_to_yaml_keeps_the_order() -> None:
    assert list(yaml.safe_load(to_yaml({"B": 1, "A": (2, 3)})).items()) == [("B", 1), ("A", [2, 3])]
