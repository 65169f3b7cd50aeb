"""Dense stage, body and neck by name, and the free arguments of the user's own ones."""

from __future__ import annotations

import pytest

from engine.config import get_cfg, load_config
from engine.config.parts import body_name, dense_name, neck_name
from engine.errors import InputError

DENSE = "MODEL:\n  RPN_ONLY: True\n  BACKBONE: {CONV_BODY: R-50-FPN-RETINANET}\n"
OWN = f"IMPORTS: [my.parts]\n{DENSE}"

BROKEN = {
    "two spellings": (
        "  FCOS_ON: True\n  DENSE: {NAME: ATSS}\n",
        "5: MODEL.DENSE.NAME is ATSS, but MODEL.FCOS_ON is on; keep one of them",
    ),
    "no dense stage": ("  DENSE: {NAME: ''}\n", "4: no detector is on; write MODEL.ATSS_ON: True"),
    "a slip": (
        "  DENSE: {NAME: RETINNET}\n",
        '4: MODEL.DENSE.NAME must be one of "", ATSS, RETINANET, FCOS, GFL, VFNET, TOOD, or registered by a module '
        "of IMPORTS, got 'RETINNET'; did you mean RETINANET?",
    ),
    "strides": (
        "  DENSE: {NAME: RETINANET}\n  RETINANET: {ANCHOR_STRIDES: [4, 8, 16, 32, 64]}\n",
        "5: MODEL.RETINANET.ANCHOR_STRIDES is (4, 8, 16, 32, 64), but the levels of R-50-FPN-RETINANET have the "
        "strides (8, 16, 32, 64, 128); write these",
    ),
    "strides of another neck": (
        "  DENSE: {NAME: ATSS}\n  NECK: {NAME: FPN}\n",
        "5: MODEL.ATSS.ANCHOR_STRIDES is (8, 16, 32, 64, 128), but the levels of R-50-FPN have the "
        "strides (4, 8, 16, 32, 64); write these",
    ),
    "arguments of a built-in stage": (
        "  DENSE:\n    NAME: ATSS\n    ARGS:\n      topk: 9\n",
        "7: MODEL.DENSE.ARGS is only for dense stages without keys of their own; the keys of ATSS are in MODEL.ATSS",
    ),
    "arguments of a flag's stage": (
        "  RETINANET_ON: True\n  DENSE:\n    ARGS:\n      topk: 9\n",
        "7: MODEL.DENSE.ARGS is only for dense stages without keys of their own; "
        "the keys of RETINANET are in MODEL.RETINANET",
    ),
    "no mapping": (
        "  ATSS_ON: True\n  DENSE: {ARGS: [1, 2]}\n",
        "5: MODEL.DENSE.ARGS must map names of arguments to values, got [1, 2]",
    ),
    "one class": (
        "  ATSS_ON: True\n  DENSE: {NUM_CLASSES: 1}\n",
        "5: MODEL.DENSE.NUM_CLASSES is 1; it counts the foreground classes + 1: 2 for one class, "
        "or 0 to take them from the data set",
    ),
}


@pytest.mark.parametrize(("text", "expected"), BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_is_answered_in_one_line(answer, text: str, expected: str) -> None:
    assert answer(text, head=DENSE) == f"my.yaml:{expected}"


def test_own_stages_may_propose(write_config) -> None:
    text = OWN.replace("RPN_ONLY: True", "RPN_ONLY: False") + (
        "  DENSE: {NAME: Corners}\n  ROI_HEADS: {USE_FPN: True}\n"
        "  ROI_BOX_HEAD: {FEATURE_EXTRACTOR: FPN2MLPFeatureExtractor, PREDICTOR: FPNPredictor}\n"
    )
    assert dense_name(load_config(write_config(head=text))) == "Corners"


def test_built_in_bodies_and_necks_take_arguments_too(write_config) -> None:
    text = "  NECK: {ARGS: {out_channels: 64}}\n  DENSE: {NAME: ATSS}\n"
    cfg = load_config(write_config(text, head=DENSE), ["MODEL.BACKBONE.ARGS.stem_channels", "32"])
    assert cfg.MODEL.BACKBONE.ARGS == {"stem_channels": 32} and cfg.MODEL.NECK.ARGS == {"out_channels": 64}


@pytest.mark.parametrize("name", ["RETINANET", "FCOS"])
def test_a_stage_that_cannot_propose(answer, name: str) -> None:
    told = answer(f"  DENSE: {{NAME: {name}}}\n", head=OWN.replace("RPN_ONLY: True", "RPN_ONLY: False"))
    assert (
        told == f"my.yaml:5: MODEL.DENSE.NAME {name} cannot propose boxes to a second stage; write MODEL.RPN_ONLY: True"
    )


@pytest.mark.parametrize("flag", ["ATSS", "RETINANET", "FCOS"])
def test_a_name_is_the_same_as_its_flag(write_config, flag: str) -> None:
    by_name = load_config(write_config(f"  DENSE: {{NAME: {flag}}}\n", head=DENSE))
    by_flag = load_config(write_config(f"  {flag}_ON: True\n", head=DENSE))
    both = load_config(write_config(f"  {flag}_ON: True\n  DENSE: {{NAME: {flag}}}\n", head=DENSE))
    assert dense_name(by_name) == dense_name(by_flag) == dense_name(both) == flag


@pytest.mark.parametrize(
    ("opts", "body", "neck"),
    [
        ([], "R-50", ""),  # the default, R-50-C4
        (["MODEL.BACKBONE.CONV_BODY", "R-101-FPN"], "R-101", "FPN"),
        (["MODEL.BACKBONE.CONV_BODY", "R-50-FPN-RETINANET"], "R-50", "FPN-RETINANET"),
        (["MODEL.BACKBONE.CONV_BODY", "R-50-FPN-RETINANET", "MODEL.NECK.NAME", "FPN"], "R-50", "FPN"),
        (["MODEL.BACKBONE.CONV_BODY", "R-50-FPN", "MODEL.BACKBONE.NAME", "tiny"], "tiny", "FPN"),
        (["MODEL.NECK.NAME", "FPN", "MODEL.BACKBONE.NAME", "R-18"], "R-18", "FPN"),
        (["MODEL.BACKBONE.CONV_BODY", "my-net-FPN-RETINANET"], "my-net", "FPN-RETINANET"),
    ],
)
def test_body_and_neck_in_both_spellings(opts: list[str], body: str, neck: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(opts)
    assert (body_name(cfg), neck_name(cfg)) == (body, neck)


def test_conv_body_does_not_matter_beside_both_names(write_config) -> None:
    text = "MODEL:\n  ATSS_ON: True\n  RPN_ONLY: True\n  BACKBONE: {NAME: R-18}\n  NECK: {NAME: FPN-RETINANET}\n"
    assert load_config(write_config(head=text)).MODEL.BACKBONE.CONV_BODY == "R-50-C4"


def test_strides_of_own_parts_are_their_own_affair(write_config) -> None:
    text = (
        "  DENSE: {NAME: ATSS}\n  NECK: {NAME: BiFPN, ARGS: {channels: 48}}\n"
        "  ATSS: {ANCHOR_STRIDES: [4, 4, 4, 4, 4]}\n"
    )
    cfg = load_config(write_config(text, head=OWN))
    assert cfg.MODEL.NECK.ARGS == {"channels": 48}


# ---------------------------------------------------------------- free arguments

ARGS = """\
  DENSE:
    NAME: Corners
    ARGS:
      num_convs: 3
      lr: 1e-4
      offsets: (1, 2)
      layers: [{kernel: 3}, {kernel: 5}]
      word: "3"
      flag: False
      nothing:
      tower: {norm: GN, sizes: [1, 2], inner: {deep: True}}
      empty: {}
"""


def test_arguments_are_plain_values_of_any_depth(write_config) -> None:
    cfg = load_config(write_config(ARGS, head=OWN))
    expected = {
        "num_convs": 3,
        "lr": 1e-4,
        "offsets": (1, 2),
        "layers": ({"kernel": 3}, {"kernel": 5}),
        "word": "3",
        "flag": False,
        "nothing": None,
        "tower": {"norm": "GN", "sizes": (1, 2), "inner": {"deep": True}},
        "empty": {},
    }
    assert expected == cfg.MODEL.DENSE.ARGS
    again = load_config(write_config(cfg.dump(), head="", name="dumped.yaml"))
    assert again == cfg and again.dump() == cfg.dump()
    assert expected == again.MODEL.DENSE.ARGS
    with pytest.raises(AttributeError):  # frozen to the bottom
        cfg.MODEL.DENSE.ARGS.tower.inner.deep = False


def test_arguments_on_the_command_line_are_literals_and_join_those_of_the_file(write_config) -> None:
    below = "MODEL.DENSE.ARGS"
    pairs = [
        f"{below}.num_convs",
        "4",
        f"{below}.name",
        "abc",
        f"{below}.tower.norm",
        "BN",
        f"{below}.scales",
        "(1, 2.5)",
    ]
    pairs += [f"{below}.tower.act", "None", f"{below}.flag", "True", f"{below}.new.deep", "1e-3", f"{below}.num", "'7'"]
    pairs += [below, "{'whole': [1, 2], 'lr': 0.5}"]
    cfg = load_config(write_config(ARGS, head=OWN), pairs)
    args = cfg.MODEL.DENSE.ARGS
    assert (args.num_convs, args.name, args.scales, args.flag, args.num) == (4, "abc", (1, 2.5), True, "7")
    assert args.tower == {"norm": "BN", "sizes": (1, 2), "inner": {"deep": True}, "act": None}
    assert (args.new.deep, args.whole, args.lr, args.offsets) == (1e-3, (1, 2), 0.5, (1, 2))
    assert load_config(write_config(cfg.dump(), head="", name="dumped.yaml")) == cfg


def test_a_mapping_and_a_value_replace_each_other(write_config) -> None:
    cfg = load_config(
        write_config(ARGS, head=OWN), ["MODEL.DENSE.ARGS.tower", "3", "MODEL.DENSE.ARGS.num_convs.first", "1"]
    )
    assert cfg.MODEL.DENSE.ARGS.tower == 3 and cfg.MODEL.DENSE.ARGS.num_convs == {"first": 1}


def test_arguments_in_code() -> None:
    cfg = get_cfg()
    cfg.IMPORTS = ("my.parts",)
    cfg.merge_from_list(
        ["MODEL.RPN_ONLY", "True", "MODEL.BACKBONE.CONV_BODY", "R-50-FPN", "MODEL.DENSE.NAME", "Corners"]
    )
    cfg.MODEL.DENSE.ARGS = {"tower": {"sizes": [1, 2]}}
    cfg.MODEL.DENSE.ARGS.num_convs = 3
    cfg.MODEL.DENSE.ARGS.tower.norm = "GN"
    cfg.freeze()
    assert cfg.MODEL.DENSE.ARGS == {"tower": {"sizes": (1, 2), "norm": "GN"}, "num_convs": 3}
    cfg.defrost()
    cfg.MODEL.DENSE.NAME = "ATSS"
    with pytest.raises(InputError, match="^in code: MODEL.DENSE.ARGS is only for dense stages without keys"):
        cfg.freeze()
    cfg.MODEL.DENSE.NAME = "Corners"
    cfg.MODEL.DENSE.ARGS["rule"] = print
    with pytest.raises(InputError, match="^in code: MODEL.DENSE.ARGS.rule must be a plain value .*, got <built-in"):
        cfg.freeze()
    cfg.MODEL.DENSE.ARGS = "few"
    with pytest.raises(
        InputError, match="^in code: MODEL.DENSE.ARGS must map names of arguments to values, got 'few'$"
    ):
        cfg.freeze()


def test_what_is_not_a_mapping_on_the_command_line(answer) -> None:
    assert answer(head=OWN, opts=("MODEL.NECK.ARGS", "few")) == (
        "command line: MODEL.NECK.ARGS must map names of arguments to values, got 'few'"
    )
