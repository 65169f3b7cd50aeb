"""`engine.Predictor` as programs use it: in threads, streams and coroutines, on several devices, in other processes."""

from __future__ import annotations

import asyncio
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import pytest
import torch
from PIL import Image

from engine import Detections, Predictor
from engine.errors import InputError
from engine.inference.async_predictor import AsyncPredictor
from tests.end_to_end.conftest import REPOSITORY, Trained, World


@pytest.fixture(scope="module")
def predictor(world: World, trained: Trained) -> Predictor:
    return Predictor(world.config, trained.model, threshold=0.0)


@pytest.fixture(scope="module")
def paths(world: World) -> list[Path]:
    return sorted((world.root / "val").iterdir())


def assert_equal(ours: list[Detections], expected: list[Detections]) -> None:
    for a, b in zip(ours, expected, strict=True):
        assert len(b) and torch.equal(a.boxes, b.boxes) and torch.equal(a.scores, b.scores)
        assert torch.equal(a.labels, b.labels) and a.size == b.size


def test_threads_share_a_predictor(predictor: Predictor, paths: list[Path]) -> None:
    with ThreadPoolExecutor(3) as threads:
        assert_equal(list(threads.map(predictor, paths * 2)), [predictor(path) for path in paths * 2])


def test_a_predictor_can_be_sent_to_another_process(predictor: Predictor, paths: list[Path]) -> None:
    copy = pickle.loads(pickle.dumps(predictor))
    assert copy.class_names == predictor.class_names
    assert_equal(copy(paths[:2]), predictor(paths[:2]))


def test_no_detections(world: World, trained: Trained, paths: list[Path]) -> None:
    found = Predictor(world.config, trained.model, threshold=1.0)(paths[0])
    assert found.boxes.shape == (0, 4) and found.scores.shape == found.labels.shape == (0,)


def test_a_stream_finds_what_calls_find(predictor: Predictor, paths: list[Path]) -> None:
    assert_equal(list(predictor.predict_iter(iter(paths))), [predictor(path) for path in paths])


def test_concurrent_callers_get_what_calls_find(predictor: Predictor, paths: list[Path]) -> None:
    async def main() -> list[Detections]:
        async with AsyncPredictor(predictor, max_batch=1) as together:
            return await asyncio.gather(*(together.detect(path.read_bytes()) for path in paths))

    assert_equal(asyncio.run(main()), [predictor(path) for path in paths])


def test_forms_of_an_image(predictor: Predictor, paths: list[Path]) -> None:
    """Not that of Pillow: its JPEG library may round otherwise."""
    pixels = cv2.imread(str(paths[0]))
    rgb = torch.from_numpy(pixels[..., ::-1].copy()).permute(2, 0, 1)
    forms = [str(paths[0]), paths[0].read_bytes(), pixels, rgb.flip(0)]
    expected = predictor(paths[0])
    assert_equal([*predictor(forms), predictor(rgb, color="rgb")], [expected] * 5)
    assert predictor(Image.open(paths[0])).size == expected.size


def test_copies_on_several_devices(world: World, trained: Trained, predictor: Predictor, paths: list[Path]) -> None:
    spread = Predictor(world.config, trained.model, threshold=0.0, devices=["cpu", "cpu"])
    assert spread.num_copies == 2
    expected = predictor(paths)
    assert_equal(spread(paths), expected)
    assert_equal(list(pickle.loads(pickle.dumps(spread)).predict_iter(paths)), expected)
    assert_equal([Predictor(world.config, trained.model, threshold=0.0, devices=["cpu"])(paths[0])], expected[:1])


@pytest.mark.parametrize("devices", [[], "cpu", ["gpu"], ["cuda:99"], ["cpu", 0]])
def test_devices_that_are_not_there(world: World, trained: Trained, devices: list[str]) -> None:
    with pytest.raises(InputError, match="devices"):
        Predictor(world.config, trained.model, devices=devices)


def test_the_examples_of_the_page(
    world: World, trained: Trained, paths: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    page = (REPOSITORY / "docs" / "deployment.md").read_text(encoding="utf-8")
    section = page.partition("## Predictor\n")[2].partition("\n## ")[0]
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", section, re.M | re.S))
    stands_for = {
        "configs/my_parts.yaml": world.config,
        "outputs/parts/model_final.pth": trained.model,
        'Path("parts").glob("*.jpg")': f"Path({str(paths[0].parent)!r}).iterdir()",
    }
    for text, real in stands_for.items():
        assert text in code
        code = code.replace(text, str(real))
    exec(code, names := {})
    assert len(names["pictures"]) == len(Predictor(world.config, trained.model)(paths[0]))
    assert capsys.readouterr().out.count(paths[1].name) == 1
