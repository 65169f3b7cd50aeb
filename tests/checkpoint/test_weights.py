"""Matching weights to a model, heads with other classes, and the report."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engine.checkpoint import io, load_weights, read_weights, store_thresholds
from engine.checkpoint.heads import heads_fit, heads_of, keep_first_classes, rows_by_class, take_classes
from engine.checkpoint.io import FORMAT
from engine.checkpoint.weights import values_by_name
from engine.errors import InputError

HEAD = "rpn.head.cls_logits"


class Toy(nn.Module):
    """A body and a classification head under the detector's names."""

    def __init__(self, num_classes: int, class_names: list[str] | None = None, num_anchors: int = 1) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"body": nn.Linear(2, 3)})
        self.rpn = nn.ModuleDict({"head": nn.ModuleDict({"cls_logits": nn.Conv2d(3, num_classes * num_anchors, 1)})})
        if class_names is not None:
            self.class_names = class_names

    @property
    def head(self) -> nn.Conv2d:
        return self.rpn["head"]["cls_logits"]


def save(path: Path, model: nn.Module, class_names: list[str] | None = None) -> Path:
    io.save(path, {"model": model.state_dict(), "format": FORMAT, "class_names": class_names})
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_everything_matches(tmp_path: Path, suffix: str, said: pytest.LogCaptureFixture) -> None:
    one, other = Toy(3), Toy(3)
    report = load_weights(other, save(tmp_path / f"m{suffix}", one))
    assert report.ok and len(report.matched) == 4 and report.format == "engine"
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert len(said.messages) == 1 and "all 4 tensors loaded" in said.messages[0]


def test_a_wrapped_model(tmp_path: Path) -> None:
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    model, wrapped = Toy(2), Wrapper(Toy(2))
    assert load_weights(wrapped, save(tmp_path / "m.pth", model)).ok
    assert torch.equal(wrapped.module.head.weight, model.head.weight)
    assert load_weights(model, save(tmp_path / "w.pth", wrapped)).ok


def test_a_trainer_checkpoint_of_the_reference(tmp_path: Path) -> None:
    model = Toy(2)
    stored = {f"module.{name}": value for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9).state_dict()
    scheduler = {"milestones": [60000, 80000], "warmup_method": "constant", "last_epoch": 1}
    state = {"model": stored, "optimizer": optimizer, "scheduler": scheduler, "iteration": 1}
    torch.save(state, tmp_path / "ATSS.pth", _use_new_zipfile_serialization=False)
    file = read_weights(tmp_path / "ATSS.pth")
    assert file.format == "atss" and file.class_names is None and file.thresholds is None
    assert load_weights(Toy(2), file).ok


def test_nothing_is_silent(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    model = Toy(2)
    tensors = model.state_dict()
    del tensors["backbone.body.bias"]
    tensors["roi_heads.extra.weight"] = torch.ones(1)
    tensors[f"{HEAD}.weight"] = torch.ones(5, 3, 1, 1)
    tensors[f"{HEAD}.bias"] = torch.full((2,), float("nan"))
    torch.save(tensors, tmp_path / "m.pth")
    report = load_weights(model, tmp_path / "m.pth")
    assert report.missing == ["backbone.body.bias"]
    assert report.unexpected == ["roi_heads.extra.weight"]
    assert [item.name for item in report.reshaped] == [f"{HEAD}.weight"]
    assert not report.ok
    text = said.text
    for part in ("2 matched, 1 missing, 1 unexpected, 1 reshaped", *report.missing, *report.unexpected):
        assert part in text
    assert "file [5, 3, 1, 1], model [2, 3, 1, 1]: left as initialised" in text
    assert "NaN" in text


def test_the_table_is_short() -> None:
    big = nn.Sequential(*[nn.Linear(1, 1) for _ in range(200)])
    targets = {f"backbone.body.{name}": value for name, value in big.state_dict().items()}
    _, report = values_by_name({"backbone.fpn.inner.weight": torch.ones(1)}, targets)
    table = report.table()
    assert len(table.splitlines()) < 15 and "... and 395 more" in table
    assert table.splitlines()[2].split() == ["backbone.body", "400"]


def test_weights_of_another_model(tmp_path: Path) -> None:
    model = Toy(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save({"encoder.weight": torch.ones(2, 2)}, tmp_path / "bert.pth")
    with pytest.raises(InputError, match=r"^(?!.*\n)nothing in .*bert.pth matches this model.*encoder.weight"):
        load_weights(model, tmp_path / "bert.pth")
    torch.save({name: value[None] for name, value in before.items()}, tmp_path / "shapes.pth")
    with pytest.raises(InputError, match=r"^(?!.*\n)nothing in .*shapes.pth .*other shapes"):
        load_weights(model, tmp_path / "shapes.pth")
    torch.save({"epoch": 3}, tmp_path / "nothing.pth")
    with pytest.raises(InputError, match=r"^(?!.*\n).*nothing.pth: has no weights; its keys: epoch$"):
        load_weights(model, tmp_path / "nothing.pth")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("names", "told", "message"),
    [
        (["encoder.weight"], "detectron2", r"weights of detectron2 \(it has no backbone.body.layer1.0.conv2.weight\)"),
        (["backbone.bottom_up.stages.0.weight"], "auto", r"weights of detectron2 \(it has no backbone.body.layer1"),
        (["backbone.fpn.inner_blocks.0.weight"], "auto", r"weights of torchvision_detection \(it has no roi_heads.box"),
    ],
)
def test_a_file_that_is_not_what_it_seems(names: list[str], told: str, message: str, tmp_path: Path) -> None:
    torch.save({name: torch.ones(2, 2) for name in names}, tmp_path / "m.pth")
    with pytest.raises(InputError, match=rf"^(?!.*\n).*m.pth: cannot be read as {message}"):
        read_weights(tmp_path / "m.pth", told)


def test_rows_by_class_name(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    file, model = Toy(3), Toy(4, ["dent", "hole", "scratch", "stain"])
    initial = model.head.weight.detach().clone()
    report = load_weights(model, save(tmp_path / "m.pth", file, ["scratch", "crack", "dent"]))
    assert torch.equal(model.head.weight[2], file.head.weight[0])
    assert torch.equal(model.head.weight[0], file.head.weight[2])
    assert torch.equal(model.head.weight[[1, 3]], initial[[1, 3]])
    assert torch.equal(model.head.bias[2], file.head.bias[0])
    assert not report.ok and len(report.reshaped) == 2
    assert "2 of 4 classes by name, others left as initialised" in said.text


def test_same_classes_in_another_order(tmp_path: Path) -> None:
    file, model = Toy(2), Toy(2)
    report = load_weights(model, save(tmp_path / "m.pth", file, ["a", "b"]), class_names=["b", "a"])
    assert torch.equal(model.head.weight, file.head.weight.flip(0))
    assert len(report.reshaped) == 2


def test_no_class_in_common_or_names_unknown(tmp_path: Path) -> None:
    for file_names, model_names in ((["a", "b"], ["c", "d", "e"]), (None, ["c", "d", "e"]), (["a", "b"], None)):
        model = Toy(3, model_names)
        initial = model.head.weight.detach().clone()
        report = load_weights(model, save(tmp_path / "m.pth", Toy(2), file_names))
        assert torch.equal(model.head.weight, initial)
        assert sorted(report.matched) == ["backbone.body.bias", "backbone.body.weight"]
        assert len(report.reshaped) == 2


def test_rows_of_heads() -> None:
    assert rows_by_class("x.cls_logits.weight", 6, 3).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert rows_by_class("x.cls_score.bias", 4, 3).tolist() == [[0], [1], [2], [3]]
    assert rows_by_class("x.cls_score.bias", 3, 3) is None
    assert rows_by_class("x.cls_logits.bias", 5, 3) is None
    assert rows_by_class("x.bbox_pred.bias", 3, 3) is None


@pytest.mark.parametrize(
    ("num_classes", "boxes", "fitting"), [(6, 4, [6]), (6, 12, [2]), (6, None, [1, 2, 3, 6]), (80, 36, [])]
)
def test_heads_fit(num_classes: int, boxes: int | None, fitting: list[int]) -> None:
    """The box head, if there is one, gives the number of anchors that share the rows of a sigmoid head."""
    tensors = {f"{HEAD}.bias": torch.zeros(num_classes)}
    if boxes:
        tensors["rpn.head.bbox_pred.bias"] = torch.zeros(boxes)
    assert [count for count in range(1, 99) if heads_fit(tensors, count)] == fitting


def test_heads_fit_beside_bins() -> None:
    """A box branch that predicts distributions has many rows for its one anchor per cell."""
    tensors = {f"{HEAD}.bias": torch.zeros(6), "rpn.head.bbox_bins.bias": torch.zeros(4 * 17)}
    assert [count for count in range(1, 99) if heads_fit(tensors, count)] == [6]


def test_heads_fit_of_two_stages() -> None:
    assert [count for count in range(1, 9) if heads_fit(two_stage(4, 4), count)] == [4]


def test_softmax_head_takes_the_background_too() -> None:
    file, model = torch.tensor([1.0, 2.0, 9.0]), torch.zeros(4)
    value, taken = take_classes("box.cls_score.bias", file, model, ["a", "b"], ["b", "c", "a"])
    assert value.tolist() == [2, 0, 1, 9] and taken == ["b", "a"]


def test_anchors_keep_their_order() -> None:
    """Two anchors per cell, rows anchor-major."""
    file, model = torch.tensor([10.0, 11.0, 20.0, 21.0]), torch.zeros(6)
    value, _ = take_classes("h.cls_logits.bias", file, model, ["a", "b"], ["x", "b", "a"])
    assert value.tolist() == [0, 11, 10, 0, 21, 20]


def coco_like() -> dict[str, Tensor]:
    return {
        f"{HEAD}.bias": torch.arange(80.0),
        "rpn.head.bbox_pred.bias": torch.arange(4.0),
    }


def two_stage(num_classes: int, boxes: int) -> dict[str, Tensor]:
    """Three anchors, a softmax head, `boxes` boxes per region."""
    return {
        f"{HEAD}.bias": torch.arange(3.0),
        "roi_heads.box.0.predictor.cls_score.bias": torch.arange(num_classes + 1.0),
        "roi_heads.box.0.predictor.bbox_pred.bias": torch.arange(4.0 * boxes),
    }


def test_keep_first_classes() -> None:
    given = coco_like()
    kept = keep_first_classes(given, 3)
    assert kept[f"{HEAD}.bias"].tolist() == [0, 1, 2]
    assert kept["rpn.head.bbox_pred.bias"] is given["rpn.head.bbox_pred.bias"]
    assert len(given[f"{HEAD}.bias"]) == 80
    assert kept[f"{HEAD}.bias"].untyped_storage().nbytes() == 12
    two_anchors = keep_first_classes({f"{HEAD}.bias": torch.arange(10.0)}, 2, num_anchors=2)
    assert two_anchors[f"{HEAD}.bias"].tolist() == [0, 1, 5, 6]
    with pytest.raises(InputError, match="has 80 classes, cannot keep 90"):
        keep_first_classes(given, 90)
    with pytest.raises(InputError, match="no classification head"):
        keep_first_classes({"a": torch.ones(1)}, 1)


def test_keep_first_classes_of_two_stages() -> None:
    kept = keep_first_classes(two_stage(80, 80), 2)
    assert kept["roi_heads.box.0.predictor.cls_score.bias"].tolist() == [0, 1, 80]
    assert kept["roi_heads.box.0.predictor.bbox_pred.bias"].tolist() == list(range(8))
    assert len(kept[f"{HEAD}.bias"]) == 3
    agnostic = keep_first_classes(two_stage(80, 1), 2)
    assert len(agnostic["roi_heads.box.0.predictor.bbox_pred.bias"]) == 4


@pytest.mark.parametrize("boxes", [1, 3])
def test_classes_of_two_stages_by_name(boxes: int) -> None:
    """Classes move with their scores and boxes; the three anchors keep their order."""
    file, model = two_stage(3, boxes), {name: torch.zeros_like(value) for name, value in two_stage(3, boxes).items()}
    values, report = values_by_name(file, model, ["a", "b", "c"], ["c", "a", "x"])
    assert values[f"{HEAD}.bias"].tolist() == [0, 1, 2]
    assert values["roi_heads.box.0.predictor.cls_score.bias"].tolist() == [2, 0, 0, 3]
    taken = values["roi_heads.box.0.predictor.bbox_pred.bias"].tolist()
    assert taken == ([0, 1, 2, 3] if boxes == 1 else [8, 9, 10, 11, 0, 1, 2, 3, 0, 0, 0, 0])
    assert len(report.reshaped) == (1 if boxes == 1 else 2)


def test_surgery_on_loading(tmp_path: Path) -> None:
    file, model = Toy(5), Toy(2, ["mine", "yours"])
    path = save(tmp_path / "m.pth", file, list("abcde"))
    report = load_weights(model, path, surgery=partial(keep_first_classes, num_classes=2))
    assert report.ok and torch.equal(model.head.weight, file.head.weight[:2])


def test_thresholds_are_stored(tmp_path: Path) -> None:
    path = save(tmp_path / "m.pth", Toy(1), ["a"])
    thresholds = {"iou": 0.5, "beta": 1.0, "classes": {"a": {"threshold": 0.3}}}
    store_thresholds(path, thresholds)
    file = read_weights(path)
    assert file.thresholds == thresholds and file.class_names == ["a"] and len(file.tensors) == 4
    torch.save(Toy(1).state_dict(), tmp_path / "foreign.pth")
    for bad in (tmp_path / "foreign.pth", "catalog://ImageNetPretrained/MSRA/R-50"):
        with pytest.raises(InputError, match=r"^(?!.*\n).*only"):
            store_thresholds(bad, thresholds)


def test_half_precision_file_into_full_precision_model(tmp_path: Path) -> None:
    model = Toy(2)
    torch.save({name: value.half() for name, value in model.state_dict().items()}, tmp_path / "m.pth")
    other = Toy(2)
    assert load_weights(other, tmp_path / "m.pth").ok
    assert other.head.weight.dtype == torch.float32
    torch.testing.assert_close(other.head.weight, model.head.weight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("case", ["small_box", "small_dcn_box"])
def test_golden_weights_as_the_reference_stores_them(golden_dir: Path, tmp_path: Path, case: str) -> None:
    """A trainer checkpoint of the reference gives the recorded features."""
    from engine.assembly.model import build_model
    from engine.config import load_config

    data = torch.load(golden_dir / "atss" / f"{case}.pth", weights_only=True)
    (tmp_path / "small.yaml").write_text(data["config_yaml"])
    model = build_model(load_config(tmp_path / "small.yaml")).eval()
    stored = {f"module.{name}": value for name, value in data["state_dict"].items()}
    torch.save({"model": stored, "iteration": 5}, tmp_path / "reference.pth")
    assert load_weights(model, tmp_path / "reference.pth").ok
    with torch.no_grad():
        features = model.backbone(data["batch"])
    for ours, theirs in zip(features, data["fpn_features"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-4)


def test_the_head_of_a_first_stage_knows_no_classes() -> None:
    """Whatever the second stage calls its own head, the rows of the proposals' head stay in their order."""
    names = ["rpn.head.cls_logits.bias", "roi_heads.mine.cls_logits.bias"]
    assert heads_of(names) == {"roi_heads.mine.cls_logits.bias": "sigmoid"}
    assert heads_of(names[:1]) == {"rpn.head.cls_logits.bias": "sigmoid"}
    assert heads_of([names[0], "roi_heads.box.predictor.cls_score.bias"]) == {
        "roi_heads.box.predictor.cls_score.bias": "softmax"
    }
