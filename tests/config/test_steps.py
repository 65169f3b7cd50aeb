"""INPUT.AUGMENTATIONS: a list of named steps in a file, on the command line and in code."""

from __future__ import annotations

import pytest
import yaml

from engine.config import get_cfg, load_config
from engine.config.describe import changes, documentation, plain, to_yaml
from engine.config.keys.augmentations import STEPS
from engine.errors import InputError

TWO = """\
INPUT:
  AUGMENTATIONS:
    - {name: IoUCrop, min_ious: [0.3, 5e-1]}
    - name: Mosaic
      prob: 0.3
    - HorizontalFlip
"""
EXPECTED = ({"name": "IoUCrop", "min_ious": (0.3, 0.5)}, {"name": "Mosaic", "prob": 0.3}, {"name": "HorizontalFlip"})


def test_a_list_of_a_file(write_config):
    cfg = load_config(write_config(TWO))
    assert cfg.INPUT.AUGMENTATIONS == EXPECTED
    assert all(type(step) is dict for step in cfg.INPUT.AUGMENTATIONS)


def test_a_dump_reloads_equal(write_config):
    cfg = load_config(write_config(TWO))
    text = cfg.dump()
    again = load_config(write_config("", head=text, name="again.yaml"))
    assert again.INPUT.AUGMENTATIONS == EXPECTED and again.dump() == text
    assert changes(text, cfg) == [] and plain(again) == plain(cfg)
    assert yaml.safe_load(to_yaml(plain(cfg)))["INPUT"]["AUGMENTATIONS"][1] == {"name": "Mosaic", "prob": 0.3}


def test_yaml_on_the_command_line(write_config):
    cfg = load_config(write_config(TWO), ["INPUT.AUGMENTATIONS", "[{name: Mosaic, prob: .3}, VerticalFlip]"])
    assert cfg.INPUT.AUGMENTATIONS == ({"name": "Mosaic", "prob": 0.3}, {"name": "VerticalFlip"})
    catalog = "{few: {img_dir: a, ann_file: b.json}}"
    cfg = load_config(write_config(TWO), ["DATASETS.CATALOG", catalog, "MODEL.BACKBONE.ARGS", "{n: 8, sizes: [1, 2]}"])
    assert dict(cfg.DATASETS.CATALOG.few) == {"img_dir": "a", "ann_file": "b.json"}
    assert dict(cfg.MODEL.BACKBONE.ARGS) == {"n": 8, "sizes": (1, 2)}
    for text in ("{a: !!python/object/apply:os.getcwd []}", "{a", "{a: &x [*x]}", "[1]"):
        with pytest.raises(InputError, match="^command line: MODEL.BACKBONE.ARGS must map names"):
            load_config(write_config(TWO), ["MODEL.BACKBONE.ARGS", text])


def test_a_literal_of_the_command_line(write_config):
    opts = ["INPUT.AUGMENTATIONS", "[{'name': 'Mosaic', 'prob': .3}, 'VerticalFlip']"]
    cfg = load_config(write_config(TWO), opts)
    assert cfg.INPUT.AUGMENTATIONS == ({"name": "Mosaic", "prob": 0.3}, {"name": "VerticalFlip"})
    assert load_config(write_config(TWO), ["INPUT.AUGMENTATIONS", "()"]).INPUT.AUGMENTATIONS == ()


def test_a_list_set_in_code():
    cfg = get_cfg()
    cfg.INPUT.AUGMENTATIONS = [{"name": "Mosaic", "scale": [0.5, 1]}]
    cfg.freeze()
    assert cfg.INPUT.AUGMENTATIONS == ({"name": "Mosaic", "scale": (0.5, 1.0)},)
    cfg = get_cfg()
    cfg.INPUT.AUGMENTATIONS = [{"name": "Mosaic", "prob": 2}]
    with pytest.raises(InputError, match=r"^in code: INPUT.AUGMENTATIONS, step 1 \(Mosaic\): prob must be between"):
        cfg.freeze()


def test_a_base_is_replaced_and_emptied(write_config):
    write_config(TWO, name="base.yaml")
    assert load_config(write_config("", head="_BASE_: base.yaml\n")).INPUT.AUGMENTATIONS == EXPECTED
    text = "_BASE_: base.yaml\nINPUT: {AUGMENTATIONS: [%s]}\n"
    assert load_config(write_config("", head=text % "")).INPUT.AUGMENTATIONS == ()
    assert load_config(write_config("", head=text % "Blur")).INPUT.AUGMENTATIONS == ({"name": "Blur"},)
    assert load_config(write_config("INPUT:\n  AUGMENTATIONS:\n")).INPUT.AUGMENTATIONS == ()


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("{name: Blur, prob: 1.5}", " (Blur): prob must be between 0 and 1, got 1.5"),
        ("{name: Blur, prob: often}", " (Blur): prob must be a float, got 'often'"),
        ("{name: Blur, sigma: 3}", " (Blur): sigma must be (low, high), got 3; write (3, 3)"),
        ("{name: Blur, sigma: [3.0]}", " (Blur): sigma must have 2 entries (low and high), got (3.0,)"),
        ("{name: Blur, sigma: [3, 2]}", " (Blur): sigma must be (low, high) with low <= high, got (3.0, 2.0)"),
        ("{name: Blur, strength: 1}", " (Blur): strength is no argument of it; it takes prob, sigma"),
        (
            "{name: IoUCrop, min_iou: 0.3}",
            " (IoUCrop): min_iou is no argument of it; it takes prob, min_ious, scale, num_tries, min_visibility; "
            "did you mean min_ious?",
        ),
        ("{name: IoUCrop, min_ious: []}", " (IoUCrop): min_ious must have at least one entry, got ()"),
        ("{name: LargeScaleJitter}", " (LargeScaleJitter) needs size: (height, width) of the window, pixels."),
        (
            "{name: LargeScaleJitter, size: 640}",
            " (LargeScaleJitter): size must be a pair of int, got 640",
        ),
        ("{prob: 0.5}", ": name must be that of a step, got nothing"),
        ("{name: 7}", ": name must be that of a step, got 7"),
        ("{name: Blur, 7: 7}", " (Blur): 7 is not the name of an argument; quote it"),
    ],
)
def test_mistakes_name_the_line_of_the_step(answer, step, told):
    text = f"INPUT:\n  AUGMENTATIONS:\n    - {{name: Mosaic}}\n    - {step}\n    - {{name: Noise}}\n"
    assert answer(text) == f"my.yaml:9: INPUT.AUGMENTATIONS, step 2{told}"
    command_line = answer("", ("INPUT.AUGMENTATIONS", str(yaml.safe_load(f"[Mosaic, {step}]"))))
    assert command_line == f"command line: INPUT.AUGMENTATIONS, step 2{told}"


def test_a_bare_name_has_its_own_line(answer):
    for first, line in (("Blur", 9), ("{name: Blur, sigma: [1, 2],\n       prob: 1}", 10)):
        told = answer(f"INPUT:\n  AUGMENTATIONS:\n    - {first}\n    - Mosiac\n")
        assert told.startswith(f"my.yaml:{line}: INPUT.AUGMENTATIONS, step 2: name must be one of ")


def test_every_mistake_is_told(answer):
    text = "INPUT:\n  AUGMENTATIONS:\n    - {name: Blur, prob: 2}\n    - 7\n    - {name: Blur, p: 2}\n"
    lines = answer(text).splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["my.yaml:8", "my.yaml:9", "my.yaml:10"]


@pytest.mark.parametrize("value", ["Mosaic", "7", "{name: Mosaic}", "true"])
def test_what_is_no_list(answer, value):
    told = answer(f"INPUT: {{AUGMENTATIONS: {value}}}\n")
    start = (
        "my.yaml:6: INPUT.AUGMENTATIONS must be a list of steps such as [{'name': 'HorizontalFlip', 'prob': 0.5}], got "
    )
    assert told.startswith(start)


def test_an_unknown_step_gets_the_nearest_name(answer):
    told = answer("INPUT:\n  AUGMENTATIONS:\n    - {name: Blur}\n    - {name: Mosiac}\n")
    names = ", ".join(STEPS.arguments)
    assert told == (
        f"my.yaml:9: INPUT.AUGMENTATIONS, step 2: name must be one of {names}, or registered by a module of IMPORTS, "
        "got 'Mosiac'; did you mean Mosaic?"
    )


def test_a_step_of_the_users_own_may_have_any_arguments(write_config):
    text = "IMPORTS: [mine]\nINPUT:\n  AUGMENTATIONS: [{name: Rain, drops: [1, 2], at: 1e-3, wet: {a: no}}]\n"
    with pytest.raises(InputError, match=r"step 1 \(Rain\): wet may be text or not, got 'no'"):
        load_config(write_config(text))
    cfg = load_config(write_config(text.replace("no}", "'no'}")))
    assert cfg.INPUT.AUGMENTATIONS == ({"name": "Rain", "drops": (1, 2), "at": 0.001, "wet": {"a": "no"}},)
    with pytest.raises(InputError, match=r"^my.yaml:8: INPUT.AUGMENTATIONS, step 1: name must be one of .*'Rain'"):
        cfg.check_registered(lambda registry: ())
    cfg.check_registered(lambda registry: ["Rain"])


def test_the_steps_are_documented():
    text = documentation(get_cfg(), "INPUT.AUGMENTATIONS")
    for step, arguments in STEPS.arguments.items():
        assert all(f"{step}.{argument}: " in text for argument in arguments)
