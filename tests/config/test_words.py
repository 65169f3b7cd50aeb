"""Words that name registered parts: those declared, those registered, and a slip in spite of `IMPORTS`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from engine.assembly.process import registered_names
from engine.config import get_cfg, load_config
from engine.config.keys import KEYS
from engine.errors import InputError

FIELDS = [field for key in KEYS.values() if key.entries for field in key.entries.fields.values()]
REGISTRIES = {key.name: key.words for key in [*KEYS.values(), *FIELDS] if key.words and key.words.registry}

# The reference's defaults, which cannot be built, and "", which leaves the choice to another key.
NOT_PARTS = {"R-50-C4", "ResNet50Conv5ROIFeatureExtractor", ""}

REGISTERED = {
    "engine.layers.voting.MERGERS": ["vote", "soft_vote", "nms", "weighted"],
    "engine.modeling.bodies.BODIES": ["tiny"],
    "engine.training.hooks.HOOKS": ["Timer"],
    "engine.data.dataset.DATASET_TYPES": ["CocoDataset", "Table"],
    "engine.assembly.dense.DENSE_STAGES": ["ATSS", "RETINANET", "FCOS", "GFL", "VFNET", "TOOD", "Corners"],
}


@pytest.fixture(scope="module")
def registered() -> dict[str, list[str] | None]:
    """Registry -> its names without `IMPORTS`, in a process of its own, since other tests register parts too."""
    code = """\
import json, sys
from engine.assembly.process import registered_names
found = {}
for registry in json.loads(sys.argv[1]):
    try:
        found[registry] = registered_names(registry)
    except (ImportError, AttributeError):
        found[registry] = None
print(json.dumps(found))
"""
    registries = json.dumps([words.registry for words in REGISTRIES.values()])
    done = subprocess.run([sys.executable, "-c", code, registries], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("key", REGISTRIES)
def test_declared_words_are_what_the_registry_holds(key: str, registered: dict[str, list[str] | None]) -> None:
    words, names = REGISTRIES[key], registered[REGISTRIES[key].registry]
    assert names is not None, f"there is no {words.registry}"
    assert set(words.names) - (NOT_PARTS if key != "MODEL.ATSS.POSITIVE_TYPE" else set()) == {
        f"{name}{ending}" for name in names if f"{name}/" not in words.families for ending in words.endings
    }


def test_registered_names() -> None:
    assert {"FrozenBN", "BN", "SyncBN", "GN"} <= set(registered_names("engine.layers.norm.NORMS"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "TEST: {BBOX_AUG: {MERGE_TYPE: weigthed}}\n",
            "my.yaml:7: TEST.BBOX_AUG.MERGE_TYPE must be one of vote, soft-vote, nms, soft_vote, weighted, or "
            "registered by a module of IMPORTS, got 'weigthed'; did you mean weighted?",
        ),
        (
            "SOLVER:\n  HOOKS: [Timer, Tmier]\n",
            "my.yaml:8: SOLVER.HOOKS entries must be Timer, or registered by a module of IMPORTS, got 'Tmier'; "
            "did you mean Timer?",
        ),
        (
            "DATASETS: {CATALOG: {mine: {img_dir: a, ann_file: b,\n  type: Tabel}}}\n",
            "my.yaml:8: DATASETS.CATALOG.mine.type must be one of CocoDataset, Table, or registered by a module of "
            "IMPORTS, got 'Tabel'; did you mean Table?",
        ),
    ],
)
def test_a_slip_is_answered_after_the_import(write_config, text: str, expected: str) -> None:
    cfg = load_config(write_config(f"IMPORTS: [my.parts]\n{text}"))
    with pytest.raises(InputError) as caught:
        cfg.check_registered(lambda registry: REGISTERED[registry])
    assert str(caught.value) == expected


def test_all_slips_are_told_at_once(write_config) -> None:
    opts = ["TEST.BBOX_AUG.MERGE_TYPE", "weigthed", "MODEL.BACKBONE.CONV_BODY", "tini-FPN"]
    cfg = load_config(write_config("IMPORTS: [my.parts]\n"), opts)
    with pytest.raises(InputError) as caught:
        cfg.check_registered(lambda registry: REGISTERED[registry])
    body, merge_type = str(caught.value).splitlines()
    assert body.startswith("command line: MODEL.BACKBONE.CONV_BODY must be one of R-18-FPN-RETINANET, ")
    assert body.endswith(", got 'tini-FPN'; did you mean tiny-FPN?")
    assert merge_type.endswith("got 'weigthed'; did you mean weighted?")


def test_registered_words_pass(write_config) -> None:
    text = """\
IMPORTS: [my.parts]
TEST: {BBOX_AUG: {MERGE_TYPE: weighted}}
SOLVER: {HOOKS: [Timer]}
DATASETS: {CATALOG: {mine: {img_dir: a, ann_file: b, type: Table}}}
"""
    cfg = load_config(write_config(text), ["MODEL.BACKBONE.CONV_BODY", "tiny-FPN-RETINANET"])
    cfg.check_registered(lambda registry: REGISTERED[registry])


def test_built_in_words_need_no_registry(write_config) -> None:
    def never(registry: str) -> list[str]:
        raise AssertionError(registry)

    load_config(write_config("IMPORTS: [my.parts]\n")).check_registered(never)
    get_cfg().check_registered(never)


def test_words_without_a_registry_are_checked_in_spite_of_imports(answer) -> None:
    told = answer("  RESNETS: {TRANS_FUNC: BottleneckWithMine}\nIMPORTS: [my.parts]\n")
    assert told == (
        "my.yaml:6: MODEL.RESNETS.TRANS_FUNC must be one of BottleneckWithFixedBatchNorm, BottleneckWithBatchNorm, "
        "BottleneckWithGN, got 'BottleneckWithMine'; did you mean BottleneckWithGN?"
    )


def test_a_writer_s_slip(answer) -> None:
    assert answer("SOLVER:\n  WRITERS: [wandb, tensorbord]\n") == (
        "my.yaml:7: SOLVER.WRITERS entries must be one of tensorboard, wandb, mlflow, or registered by a module of "
        "IMPORTS, got 'tensorbord'; did you mean tensorboard?"
    )
