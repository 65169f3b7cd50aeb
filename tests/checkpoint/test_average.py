from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.checkpoint import io
from engine.checkpoint.average import average, newest, recompute_statistics
from engine.errors import InputError
from engine.layers.norm import norm
from engine.structures import ImageBatch


def checkpoint(model: dict[str, Tensor], **rest: Any) -> dict[str, Any]:
    return {"format": "engine-1", "model": model, "class_names": ["a", "b"], "thresholds": {"iou": 0.5}, **rest}


def save(folder: Path, *states: dict[str, Any]) -> list[Path]:
    paths = [folder / f"{i}.pth" for i in range(len(states))]
    for path, state in zip(paths, states, strict=True):
        io.save(path, state)
    return paths


def weights(value: float, count: int = 0) -> dict[str, Tensor]:
    return {
        "w": torch.tensor([value, 2 * value]),
        "half": torch.tensor([value], dtype=torch.float16),
        "count": torch.tensor(count),
        "mask": torch.tensor([count > 1]),
    }


def test_a_mean_by_hand(tmp_path: Path) -> None:
    paths = save(tmp_path, *(checkpoint(weights(v, i)) for i, v in enumerate((1.0, 2.0, 6.0))))
    mean = average(paths)["model"]
    assert mean["w"].tolist() == [3, 6] and mean["w"].dtype == torch.float32
    assert mean["half"].tolist() == [3] and mean["half"].dtype == torch.float16
    assert mean["count"].item() == 2 and mean["mask"].tolist() == [True]  # of the last
    assert average(paths, [1, 2, 0.5])["model"]["w"].tolist() == pytest.approx([8 / 3.5, 16 / 3.5])
    assert average(paths, [0, 5, 0])["model"]["w"].tolist() == [2, 4]


def test_what_goes_along(tmp_path: Path) -> None:
    """The configuration of the last one; no training state, and no thresholds, which hold for other weights."""
    training = {"optimizer": {}, "iteration": 5, "training_model": weights(9.0), "ema_updates": 5, "config": "SEED: 1"}
    paths = save(tmp_path, checkpoint(weights(1.0)), checkpoint(weights(3.0), **training))
    state = average(paths)
    assert set(state) == {"format", "model", "class_names", "thresholds", "config"}
    assert state["thresholds"] is None and state["config"] == "SEED: 1" and state["class_names"] == ["a", "b"]
    assert state["model"]["w"].tolist() == [2, 4]  # of `model`, not of `training_model`


@settings(deadline=None, max_examples=25)
@given(
    values=st.lists(st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False), min_size=1, max_size=5),
    factors=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=4),
)
def test_the_mean_of_copies_is_the_copy(tmp_path_factory, values: list[float], factors: list[float]) -> None:
    folder = tmp_path_factory.mktemp("copies")
    paths = save(folder, checkpoint({"w": torch.tensor(values)})) * len(factors)
    assert torch.equal(average(paths, factors)["model"]["w"], torch.tensor(values))


@settings(deadline=None, max_examples=25)
@given(pairs=st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), st.floats(0.1, 10)), min_size=2, max_size=4))
def test_the_order_does_not_matter_and_the_mean_lies_between(tmp_path_factory, pairs: list[tuple]) -> None:
    values, factors = zip(*pairs, strict=True)
    paths = save(tmp_path_factory.mktemp("means"), *(checkpoint({"w": torch.tensor([v])}) for v in values))
    mean = average(paths, factors)["model"]["w"]
    assert min(values) - 1e-3 <= mean.item() <= max(values) + 1e-3
    torch.testing.assert_close(average(paths[::-1], factors[::-1])["model"]["w"], mean)


DIFFERENT = {
    "missing": ({"w": torch.zeros(2)}, {}, "it has no v"),
    "added": ({"w": torch.zeros(2), "v": torch.zeros(1), "x": torch.zeros(1)}, {}, "only it has x"),
    "shape": ({"w": torch.zeros(3), "v": torch.zeros(1)}, {}, r"its w is \[3\] of float32, not \[2\] of float32"),
    "type": ({"w": torch.zeros(2).half(), "v": torch.zeros(1)}, {}, "float16, not"),
    "classes": (None, {"class_names": ["b", "a"]}, r"its class_names are \['b', 'a'\], not \['a', 'b'\]"),
    "conventions": (None, {"conventions": {"MODEL.PIXEL_CONVENTION": "continuous"}}, "its conventions are"),
    "nan": ({"w": torch.tensor([1.0, float("nan")]), "v": torch.zeros(1)}, {}, "1.pth: w holds NaN"),
    "foreign": (None, {"format": "other"}, "1.pth: not a checkpoint of this engine; convert it"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_another_model_is_refused(name: str, tmp_path: Path) -> None:
    same = {"w": torch.zeros(2), "v": torch.zeros(1)}
    model, rest, message = DIFFERENT[name]
    paths = save(tmp_path, checkpoint(same), {**checkpoint(model or same), **rest})
    with pytest.raises(InputError, match=message) as caught:
        average(paths)
    assert str(paths[1]) in str(caught.value) and "\n" not in str(caught.value)


def test_conventions_are_the_same_in_both_formats(tmp_path: Path) -> None:
    key = "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"
    state = checkpoint(weights(1.0), conventions={key: ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0))})
    for suffix in (".pth", ".safetensors"):
        io.save(tmp_path / f"a{suffix}", state)
    for order in (1, -1):
        mean = average([tmp_path / "a.pth", tmp_path / "a.safetensors"][::order])
        assert mean["conventions"] == state["conventions"]


@pytest.mark.parametrize("factors", [[1.0], [1, 2, 3], [0, 0], [1, -1], [1, float("nan")], [1, float("inf")]])
def test_weights_that_cannot_be(factors: list[float], tmp_path: Path) -> None:
    paths = save(tmp_path, checkpoint(weights(1.0)), checkpoint(weights(1.0)))
    with pytest.raises(InputError, match="weights"):
        average(paths, factors)


def run_folder(folder: Path, last: str, iteration: int, numbers: tuple[int, ...]) -> Path:
    for number in numbers:
        io.save(folder / f"model_{number:07d}.pth", checkpoint(weights(1.0), iteration=number))
    io.save(folder / last, checkpoint(weights(1.0), iteration=iteration))
    (folder / "last_checkpoint").write_text(last)
    return folder


@pytest.mark.parametrize(
    ("last", "iteration", "numbers", "expected"),
    [
        ("model_final.pth", 40, (10, 20, 30, 40), ["model_0000030.pth", "model_final.pth"]),  # 40 is the final one
        ("model_final.pth", 44, (10, 20, 30, 40), ["model_0000040.pth", "model_final.pth"]),
        (
            "model_0000020.pth",
            20,
            (10, 30, 40),
            ["model_0000010.pth", "model_0000020.pth"],
        ),  # the others are of an older run
    ],
)
def test_newest(last: str, iteration: int, numbers: tuple[int, ...], expected: list[str], tmp_path: Path) -> None:
    folder = run_folder(tmp_path, last, iteration, numbers)
    assert [path.name for path in newest(folder, 2)] == expected


def test_newest_without_enough(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "model_final.pth", 20, (10, 20))
    with pytest.raises(InputError, match="has 2 checkpoints, not 3"):
        newest(folder, 3)
    with pytest.raises(InputError, match="is not a folder"):
        newest(tmp_path / "nowhere", 1)
    (folder / "last_checkpoint").unlink()
    assert [path.name for path in newest(folder, 1)] == ["model_0000020.pth"]


class Normed(nn.Module):
    """A batch norm shared by two levels, one that is never trained, and a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.BatchNorm2d(3, momentum=0.3)
        self.kept = nn.BatchNorm2d(3)
        self.frozen = norm("FrozenBN", 3)

    def train(self, mode: bool = True) -> Normed:
        super().train(mode)
        self.kept.eval()
        return self

    def forward(self, images: ImageBatch, targets: list) -> None:
        assert self.training
        self.shared(images.tensor)
        self.shared(images.tensor[..., :1] + 2)
        self.kept(self.frozen(images.tensor))


def test_statistics_are_means_over_the_calls() -> None:
    torch.manual_seed(0)
    model = Normed().eval()
    model.shared.running_mean.fill_(100)
    model.kept.running_mean.fill_(7)
    images = [torch.randn(2, 3, 4, 4), torch.randn(3, 3, 4, 5) + 1]
    batches = [(ImageBatch(each, [tuple(each.shape[-2:])] * len(each)), []) for each in images]
    found = recompute_statistics(model, batches)
    seen = [each for image in images for each in (image, image[..., :1] + 2)]
    mean = torch.stack([each.mean(dim=(0, 2, 3)) for each in seen]).mean(dim=0)
    variance = torch.stack([each.var(dim=(0, 2, 3)) for each in seen]).mean(dim=0)
    torch.testing.assert_close(found["shared.running_mean"], mean)
    torch.testing.assert_close(found["shared.running_var"], variance)
    assert found["shared.num_batches_tracked"].item() == 4
    assert set(found) == {f"shared.{s}" for s in ("running_mean", "running_var", "num_batches_tracked")}
    assert model.kept.running_mean.tolist() == [7, 7, 7] and model.shared.momentum == 0.3 and not model.training


def test_a_model_without_batch_norm_sees_no_image() -> None:
    def batches():
        raise AssertionError("no image is needed")
        yield

    assert recompute_statistics(nn.Conv2d(3, 4, 1), batches()) == {}
