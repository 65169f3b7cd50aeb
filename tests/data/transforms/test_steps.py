from __future__ import annotations

import inspect
from itertools import pairwise

import numpy as np
import pytest
import torch

from engine.config.keys.augmentations import STEPS
from engine.data import transforms as t
from engine.data.transforms import AUGMENTATIONS, random_state
from engine.data.transforms.copy_paste import overlap
from engine.data.transforms.step import Sometimes, apply
from engine.data.transforms.windows import crop_targets, fill_value, hide
from engine.errors import InputError
from engine.structures import CONTINUOUS

NEEDED = {"LargeScaleJitter": {"size": (40, 50)}, "MultiScale": {"min_sizes": (20, 30), "max_size": 60}}
NAMES = sorted(set(STEPS.arguments) - {"Albumentations"})
PHOTOMETRIC = ["PhotometricDistortion", "Blur", "Noise", "JPEG", "CLAHE"]


def build(name, **arguments):
    return AUGMENTATIONS.get(name)(**NEEDED.get(name, {}), **arguments)


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)


def as_tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)


def test_what_is_declared_is_what_there_is():
    assert set(AUGMENTATIONS.names()) >= set(STEPS.arguments)


@pytest.mark.parametrize("name", STEPS.arguments)
def test_declared_arguments_are_those_of_the_class(name):
    """Two places state the defaults: for YAML, and for those who use a class in code."""
    parameters = inspect.signature(AUGMENTATIONS.get(name)).parameters
    offered = {"convention", "class_names", "modules"}
    declared = dict(STEPS.arguments[name])
    if "prob" not in parameters:
        declared.pop("prob", None)
    assert set(parameters) - offered == set(declared)
    for argument, key in declared.items():
        default = parameters[argument].default
        if default is inspect.Parameter.empty:
            assert key.not_empty and key.default in ((), ""), argument  # YAML must give it
        else:
            assert default == key.default and type(default) is type(key.default), argument


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 3), (np.float32, 3), (np.uint8, 1), (np.float32, 5)])
def test_dtype_channels_and_range_stay(name, dtype, channels, targets, scene_of):
    images = [noise(30, 40, channels, seed).astype(dtype) for seed in range(3)]
    labels = [targets([[5, 5, 15, 20]], (30, 40)) for _ in images]
    for seed in range(3):
        with random_state(seed):
            out, found = apply(build(name), as_tensor(images[0]), labels[0], scene_of(images, labels))
        assert out.dtype == torch.from_numpy(images[0]).dtype and out.shape[0] == channels
        assert tuple(out.shape[1:]) == tuple(found.size) and found.boxes.dtype == torch.float32
        assert out.min() >= 0 and out.max() <= 255
    assert (images[0] == noise(30, 40, channels, 0).astype(dtype)).all(), "the image that was read has changed"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2)])
def test_tiny_images_and_no_boxes(name, size, targets, scene_of):
    images = [noise(*size, seed=seed) for seed in range(2)]
    for boxes in ([], [[0, 0, 1, 1]]):
        labels = [targets(boxes, size) for _ in images]
        for seed in range(5):
            with random_state(seed):
                out, found = apply(build(name), as_tensor(images[0]), labels[0], scene_of(images, labels))
            assert tuple(out.shape[1:]) == tuple(found.size) and min(out.shape) >= 1
            assert found.boxes.shape == (len(found), 4)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_state_draws_the_same(name, targets, scene_of):
    images = [noise(60, 80, seed=seed) for seed in range(4)]
    labels = [targets([[5, 5, 15, 20], [20, 3, 38, 17]], (60, 80)) for _ in images]

    def drawn(seed):
        torch.manual_seed(seed + 1000)  # what the process drew before must not matter
        with random_state(seed):
            return apply(build(name), as_tensor(images[0]), labels[0], scene_of(images, labels))

    outs = [drawn(seed) for seed in (1, 1, 2, 3, 4, 5, 6)]
    assert torch.equal(outs[0][0], outs[1][0]) and torch.equal(outs[0][1].boxes, outs[1][1].boxes)
    if name not in ("HorizontalFlip", "VerticalFlip", "Rotate90", "MultiScale", "CLAHE"):  # which have few outcomes
        assert any(a[0].shape != b[0].shape or not torch.equal(a[0], b[0]) for a, b in pairwise(outs[1:]))


@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_pixels_change_and_boxes_do_not(name, targets):
    labels = targets([[5, 5, 15, 20]], (30, 40))
    with random_state(1):
        out, found = build(name)(as_tensor(noise(30, 40)), labels)
    assert found is labels and not torch.equal(out, as_tensor(noise(30, 40)))


@pytest.mark.parametrize("name", ["PhotometricDistortion", "Blur", "Noise", "CLAHE"])
def test_floats_do_as_bytes_do(name, picture, targets):
    image = as_tensor(picture(60, 80))
    outs = []
    for pixels in (image, image.float()):
        with random_state(4):
            outs.append(build(name)(pixels, targets([], (60, 80)))[0].float())
    assert (outs[0] - outs[1]).abs().mean() < 2.5


def test_a_float_keeps_what_lies_between_the_levels(targets):
    image = torch.full((1, 32, 32), 100.0) + torch.linspace(0, 0.4, 32)
    for step in (t.Jpeg(), t.Blur((0.5, 0.5)), t.Clahe((1.0, 1.0))):
        out, _ = step(image, targets([], (32, 32)))
        assert out.unique().numel() > 20, step


def test_bgr_is_told_from_rgb(targets):
    blue = torch.zeros(3, 8, 8, dtype=torch.uint8)
    blue[0] = 200  # of three channels the first is blue
    out, _ = t.PhotometricDistortion(0.0, 0.0, 0.0, 0.0)(blue, targets([], (8, 8)))
    assert (out.int() - blue.int()).abs().max() <= 1
    with random_state(1):
        out, _ = t.Jpeg((95, 95))(blue, targets([], (8, 8)))
    assert (out.int() - blue.int()).abs().max() <= 8


# ---------------------------------------------------------------- by hand


def test_a_box_that_is_cut_too_much_is_ignored(targets):
    given = targets([[0, 0, 10, 10], [0, 0, 4, 4], [8, 8, 12, 12], [2, 2, 9, 9]], (20, 20), ignore=[0, 0, 0, 1])
    found = crop_targets(given, (5, 5, 20, 20), min_visibility=0.3)
    assert found.labels.tolist() == [0, 2, 3]
    assert found.boxes.tolist() == [[0, 0, 5, 5], [3, 3, 7, 7], [0, 0, 4, 4]]
    assert found.ignore.tolist() == [True, False, True]  # a quarter is left of the first
    assert not crop_targets(given, (5, 5, 20, 20), min_visibility=0.25).ignore[0]


def test_hidden_boxes(targets):
    given = targets([[0, 0, 10, 10], [20, 20, 30, 30], [0, 12, 4, 16]], (40, 40))
    found = hide(given, [(0, 0, 10, 8), (0, 12, 6, 18)], min_visibility=0.25)
    assert found.labels.tolist() == [0, 1] and found.ignore.tolist() == [True, False]


def test_fill_of_a_canvas():
    image = torch.tensor([[[1, 2]], [[10, 30]]], dtype=torch.uint8)
    assert fill_value(image, -1).flatten().tolist() == [2, 20]  # 1.5 is rounded to even
    assert fill_value(image, 7).flatten().tolist() == [7, 7]
    assert fill_value(image.float(), -1).flatten().tolist() == [1.5, 20.0]


def test_overlap_is_of_the_smaller():
    box, boxes = torch.tensor([0.0, 0, 10, 10]), torch.tensor([[5.0, 5, 15, 15], [2, 2, 4, 4], [0, 20, 5, 25]])
    assert overlap(box, boxes).tolist() == [0.25, 1.0, 0.0]


def test_quarter_turns_by_hand(targets):
    image = torch.arange(6, dtype=torch.uint8).view(1, 2, 3)
    out, found = t.Rotate90((1,))(image, targets([[0, 0, 1, 2]], (2, 3)))
    assert out.tolist() == [[[2, 5], [1, 4], [0, 3]]]
    assert found.boxes.tolist() == [[0, 2, 2, 3]] and found.size == (3, 2)


def test_a_crop_of_a_size_larger_than_the_image(targets):
    out, _ = t.RandomCrop(size=(500, 4))(as_tensor(noise(30, 40)), targets([], (30, 40)))
    assert tuple(out.shape) == (3, 30, 4)
    with pytest.raises(ValueError, match=r"size must be \(height, width\), got \(3,\)"):
        t.RandomCrop(size=(3,))


def test_probability(targets):
    step = Sometimes(t.RandomHorizontalFlip(1.0), 0.25)
    given = targets([[0, 0, 1, 2]], (2, 3))
    with random_state(1):
        flipped = [step(torch.zeros(1, 2, 3), given)[1] is not given for _ in range(1000)]
    assert 0.2 < np.mean(flipped) < 0.3


# ---------------------------------------------------------------- other images


def test_another_image_is_another_one(targets, scene_of):
    scene = scene_of([noise(4, 4)] * 5, [targets([], (4, 4))] * 5, index=3)
    drawn = {scene._draw() for _ in range(100)}
    assert drawn == {0, 1, 2, 4}
    alone = scene_of([noise(4, 4)], [targets([], (4, 4))])
    assert alone.another()[1].size == (4, 4) and alone.another_with_boxes() is None


def test_unreadable_images_are_replaced_by_the_next(targets, scene_of):
    scene = scene_of([noise(4, 4)] * 5, [targets([[0, 0, 2, 2]], (4, 4))] * 5)
    scene.images.broken = {0, 1, 2, 4}
    assert scene.another()[0].shape == (3, 4, 4) and set(scene.skipped) <= {f"image {k} is broken" for k in range(5)}
    scene.images.broken.add(3)
    with pytest.raises(InputError, match="none of .* images can be read; the first: image"):
        scene.another()


def test_a_batch_shares_its_size(targets, scene_of):
    step = t.MultiScale([20, 30, 40, 50], 100, CONTINUOUS)
    sizes = []
    for batch in range(30):
        in_batch = set()
        for position in range(4):
            scene = scene_of([noise(60, 60)], [targets([], (60, 60))], batch=batch)
            with random_state(5, 4 * batch + position):
                in_batch.add(step(as_tensor(noise(60, 60)), targets([], (60, 60)), scene)[1].size)
        assert len(in_batch) == 1
        sizes += in_batch
    assert len(set(sizes)) == 4


def test_without_a_data_set_there_are_no_other_images():
    with pytest.raises(InputError, match="Mosaic needs the images of a data set; it works in training only"):
        t.Transform([t.Mosaic()])(noise(4, 4), None)


# ---------------------------------------------------------------- copy and paste


def pasted(step, image, own, other, other_targets, scene_of, seed=0):
    scene = scene_of([image, other], [own, other_targets])
    with random_state(seed):
        return step(as_tensor(image), own, scene)


def test_a_paste_is_the_object_where_its_box_says(targets, scene_of):
    other = noise(40, 40)
    step = t.CopyPaste((1, 1), scale=(1.0, 1.0), feather=0, flip=False, convention=CONTINUOUS)
    given = np.zeros((50, 60, 3), np.uint8)
    out, found = pasted(step, given, targets([], (50, 60)), other, targets([[5, 6, 15, 26]], (40, 40)), scene_of)
    (x1, y1, x2, y2), label = map(int, found.boxes[0].tolist()), found.labels[0]
    assert (x2 - x1, y2 - y1, int(label)) == (10, 20, 0)
    assert torch.equal(out[:, y1:y2, x1:x2], as_tensor(other)[:, 6:26, 5:15])
    out[:, y1:y2, x1:x2] = 0
    assert not out.any() and not given.any()


def test_a_seam_fades(targets, scene_of):
    step = t.CopyPaste((1, 1), scale=(1.0, 1.0), feather=4, flip=False, convention=CONTINUOUS)
    white = np.full((40, 40, 3), 250, np.uint8)
    out, found = pasted(
        step,
        np.zeros((80, 80, 3), np.uint8),
        targets([], (80, 80)),
        white,
        targets([[10, 10, 20, 20]], (40, 40)),
        scene_of,
    )
    x1, y1, x2, _ = map(int, found.boxes[0].tolist())
    row = out[0, y1 + 5]
    assert row[x1:x2].tolist() == [250] * 10
    if x1 >= 4 and x2 <= 76:
        assert row[x1 - 5 : x1].tolist() == [0, 50, 100, 150, 200] == row[x2 : x2 + 5].tolist()[::-1]


def test_ignore_regions_are_not_pasted_as_objects(targets, scene_of):
    step = t.CopyPaste((3, 3), convention=CONTINUOUS)
    other = targets([[5, 5, 15, 15], [3, 3, 20, 20]], (40, 40), ignore=[0, 1])
    for seed in range(10):
        _, found = pasted(step, noise(80, 80), targets([], (80, 80)), noise(40, 40), other, scene_of, seed)
        assert found.ignore[found.labels == 1].all() and (found.labels == 0).any()


def test_only_where_nothing_is(targets, scene_of):
    step = t.CopyPaste((1, 1), only_empty=True, convention=CONTINUOUS)
    other = targets([[5, 5, 15, 15]], (40, 40))
    for own, count in (([], 1), ([[0, 0, 5, 5]], 1)):
        _, found = pasted(step, noise(80, 80), targets(own, (80, 80)), noise(40, 40), other, scene_of)
        assert len(found) == count and (found.boxes[0].tolist() == [0, 0, 5, 5]) == bool(own)


def test_no_place_is_no_paste(targets, scene_of):
    own = targets([[0, 0, 80, 80]], (80, 80))
    other = targets([[5, 5, 15, 15]], (40, 40))
    _, found = pasted(t.CopyPaste((3, 3)), noise(80, 80), own, noise(40, 40), other, scene_of)
    assert len(found) == 1
    _, found = pasted(t.CopyPaste((3, 3), max_overlap=1.0), noise(80, 80), own, noise(40, 40), other, scene_of)
    assert len(found) == 4
    _, found = pasted(t.CopyPaste((3, 3)), noise(8, 8), targets([], (8, 8)), noise(40, 40), other, scene_of)
    assert len(found) == 0  # larger than the image


def test_classes_by_name(targets, scene_of):
    step = t.CopyPaste((2, 2), classes=("hole",), class_names=("dent", "hole"), convention=CONTINUOUS)
    other = targets([[5, 5, 9, 9], [20, 20, 30, 30]], (40, 40))
    _, found = pasted(step, noise(80, 80), targets([], (80, 80)), noise(40, 40), other, scene_of)
    assert found.labels.tolist() == [1, 1]
    with pytest.raises(ValueError, match="there is no class 'holes'; did you mean hole?"):
        t.CopyPaste(classes=("holes",), class_names=("dent", "hole"))
