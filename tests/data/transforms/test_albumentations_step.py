from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from engine.data.transforms import AlbumentationsStep, random_state
from engine.errors import InputError


def test_without_the_package_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(
        InputError, match="^the step Albumentations needs that package .*; pip install 'albumentations>=2'$"
    ):
        AlbumentationsStep("pipeline.json")


@pytest.fixture
def library():
    """The package, if it is installed; it is not a dependency."""
    return pytest.importorskip("albumentations")


@pytest.fixture
def build(library, monkeypatch):
    """A step around a pipeline."""

    def built(pipeline, **arguments):
        module = ModuleType("my_pipelines")
        module.mine = pipeline
        monkeypatch.setitem(sys.modules, "my_pipelines", module)
        return AlbumentationsStep("my_pipelines:mine", modules=("my_pipelines",), **arguments)

    return built


def image_of(height=40, width=60, channels=3):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (channels, height, width)).astype(np.uint8))


def test_a_flip_by_hand(library, build, targets):
    image, given = image_of(), targets([[0, 0, 10, 20], [30, 5, 60, 40]], (40, 60), ignore=[0, 1])
    for pixels in (image, image.float()):
        out, found = build(library.Compose([library.HorizontalFlip(p=1)]))(pixels, given)
        assert out.dtype == pixels.dtype and torch.allclose(out, pixels.flip(2), atol=1e-3)
        assert found.boxes.tolist() == [[50, 0, 60, 20], [0, 5, 30, 40]]
        assert found.labels.tolist() == [0, 1] and found.ignore.tolist() == [False, True]


def test_colours_are_rgb_for_the_library(library, build, targets):
    out, _ = build(library.ChannelDropout(channel_drop_range=(1, 1), p=1))(image_of(), targets([], (40, 60)))
    assert (out.flatten(1).amax(dim=1) == 0).sum() == 1
    blue = torch.zeros(3, 8, 8, dtype=torch.uint8)
    blue[0] = 255  # BGR
    out, _ = build(library.ToGray(p=1))(blue, targets([], (8, 8)))
    assert out.float().mean() == pytest.approx(29, abs=2)  # blue is the darkest; red would be 76


def test_cut_boxes_are_ignored_not_dropped(library, build, targets):
    given = targets([[0, 0, 10, 10], [0, 20, 12, 30], [30, 20, 40, 30]], (40, 60))
    crop = library.Crop(8, 0, 60, 40, p=1)
    out, found = build(library.Compose([crop]), min_visibility=0.3)(image_of(), given)
    assert out.shape == (3, 40, 52) and found.size == (40, 52)
    expected = torch.tensor([[0.0, 0, 2, 10], [0, 20, 4, 30], [22, 20, 32, 30]])
    assert torch.allclose(found.boxes, expected, atol=1e-4)
    assert found.labels.tolist() == [0, 1, 2] and found.ignore.tolist() == [True, False, False]
    _, found = build(library.Compose([crop]), min_visibility=0.0)(image_of(), given)
    assert not found.ignore.any()


def test_the_pipelines_own_filter_does_not_drop_boxes(library, build, targets):
    params = library.BboxParams(format="coco", label_fields=["classes"], min_area=1e6)
    _, found = build(library.Compose([library.NoOp()], bbox_params=params))(
        image_of(), targets([[0, 0, 9, 9]], (40, 60))
    )
    assert found.boxes.tolist() == [[0, 0, 9, 9]]


def test_it_draws_from_our_state_alone(library, build, targets):
    step = build(library.Compose([library.RandomCrop(20, 20), library.GaussNoise(p=0.7), library.Rotate(p=0.5)]))
    given = targets([[5, 5, 25, 35]], (40, 60))

    def drawn(seed):
        torch.manual_seed(seed + 99)
        np.random.seed(seed + 7)
        with random_state(seed):
            return step(image_of(), given)

    outs = [drawn(seed) for seed in (1, 1, 2, 3)]
    assert torch.equal(outs[0][0], outs[1][0]) and torch.equal(outs[0][1].boxes, outs[1][1].boxes)
    assert not torch.equal(outs[0][0], outs[2][0]) and not torch.equal(outs[2][0], outs[3][0])


@pytest.mark.parametrize("kind", ["yaml", "json"])
def test_a_saved_pipeline(library, targets, tmp_path, kind):
    path = tmp_path / f"pipeline.{kind}"
    library.save(library.Compose([library.VerticalFlip(p=1)]), str(path), data_format=kind)
    out, found = AlbumentationsStep(str(path))(image_of(), targets([[0, 0, 10, 20]], (40, 60)))
    assert torch.equal(out, image_of().flip(1)) and found.boxes.tolist() == [[0, 20, 10, 40]]


@pytest.mark.parametrize(
    ("pipeline", "told"),
    [
        ("nosuch.json", "nosuch.json: cannot be read"),
        ("wrong.json", "wrong.json: no pipeline that albumentations.save wrote"),
        ("wrong.yaml", "wrong.yaml: no pipeline that albumentations.save wrote"),
        ("mine", "must be a .yaml or .json file, or module:name"),
        ("os:system", "add os to IMPORTS"),
        ("sys:path", "sys has no pipeline of that name"),
    ],
)
def test_mistakes_are_one_line(library, tmp_path, monkeypatch, pipeline, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.json").write_text('{"transform": {"__class_fullname__": "os.system"}}')
    (tmp_path / "wrong.yaml").write_text("!!python/object/apply:os.system ['touch EXECUTED']")
    with pytest.raises(InputError) as caught:
        AlbumentationsStep(pipeline, modules=("sys",))
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "EXECUTED").exists()
