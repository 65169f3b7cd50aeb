"""The stages of the Ray pipeline by themselves; on a cluster they run in tests/end_to_end/test_ray.py."""

from __future__ import annotations

import builtins
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from engine.data.reading import Reading
from engine.errors import InputError
from engine.inference import ray_pipeline
from engine.inference.ray_pipeline import Cluster, detect_on_ray
from engine.inference.records import to_line

pa = pytest.importorskip("pyarrow")


class Mean:
    """Finds one box, as large as the image; its score is the mean of the pixels / 255."""

    class_names, batch_size = ("thing",), 2

    def network_input(self, pixels: np.ndarray) -> np.ndarray:
        pixels += 0  # a predictor may write into what it is given
        return pixels

    def run(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return [np.float32(each.mean() / 255) for each in inputs]

    def finish(self, score: np.float32, size: tuple[int, int]) -> SimpleNamespace:
        box = np.array([[0, 0, size[1], size[0]]], np.float32)
        return SimpleNamespace(boxes=box, scores=np.array([score]), labels=np.array([0]), size=size)


def looked_at(places: list[Path], reading: Reading, batch_size: int = 2) -> list[dict]:
    """The rows of the pipeline, its stages called one after the other."""
    worker = ray_pipeline._Worker(Mean)
    rows = []
    for block in ray_pipeline._blocks(list(map(str, places)), batch_size):
        decoded = pa.concat_tables([ray_pipeline._decode(block.slice(k, 1), reading) for k in range(len(block))])
        for start in range(0, len(decoded), batch_size):
            rows += worker(decoded.slice(start, batch_size)).to_pylist()
    return rows


def test_images_become_rows(tmp_path: Path) -> None:
    paths = [tmp_path / f"{k} ü.png" for k in range(11)]
    for k, path in enumerate(paths):
        path.write_bytes(cv2.imencode(".png", np.full((4 + k, 6, 3), 10 * k, np.uint8))[1].tobytes())
    paths[3].write_text("no image")
    paths[7].unlink()
    rows = looked_at(paths, Reading())
    assert [row["index"] for row in rows] == list(range(11))
    assert [row["image"] for row in rows] == list(map(str, paths))
    assert [k for k, row in enumerate(rows) if row["error"]] == [3, 7]
    assert str(paths[7]) in rows[7]["error"] and rows[7]["detections"] is None and rows[7]["height"] is None
    assert rows[5]["detections"] == [{"class": "thing", "score": 0.19607843, "box": [0.0, 0.0, 6.0, 9.0]}]
    assert (rows[5]["height"], rows[5]["width"]) == (9, 6)


def test_images_of_16_bits_keep_them(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), np.full((4, 6), 1000, np.uint16))
    (row,) = looked_at([path], Reading((0, 4000), 1))
    assert row["detections"][0]["score"] == pytest.approx(0.25)


def test_no_more_blocks_than_a_driver_can_bear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pipeline, "MOST_BLOCKS", 3)
    blocks = ray_pipeline._blocks([str(k) for k in range(100)], 2)
    assert len(blocks) == 3 and sum(map(len, blocks)) == 100
    assert [len(each) for each in ray_pipeline._blocks([str(k) for k in range(10)], 1)] == [4, 4, 2]


def test_the_error_of_a_worker_is_one_line() -> None:
    class Wrapped(Exception):
        cause = InputError("the GPU ran out of memory")

    def fail() -> None:
        try:
            raise Wrapped("pages")
        except Wrapped as error:
            raise RuntimeError("more pages") from error

    with pytest.raises(InputError, match=r"^the GPU ran out of memory$"):
        ray_pipeline._explained(fail)
    with pytest.raises(ZeroDivisionError):
        ray_pipeline._explained(lambda: 1 // 0)


def test_without_ray_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_ray(name: str, *arguments: object) -> object:
        if name.split(".")[0] == "ray":
            raise ImportError("No module named 'ray'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(InputError, match=r"Ray is not installed .*: pip install 'engine\[ray\]'"):
        detect_on_ray(Mean, Reading(), ["a.png"], tmp_path / "out", Cluster())
    assert not list(tmp_path.iterdir())


def test_workers_here_share_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pipeline, "num_cpus", lambda: 9)
    assert [Cluster(workers=n).cpus_of_worker for n in (1, 2, 20)] == [9, 4, 1]
    assert Cluster("auto", 2).cpus_of_worker == 1 and Cluster("auto", 2, 3).cpus_of_worker == 3


def test_a_line_is_that_of_the_record() -> None:
    table = ray_pipeline.to_table([0], [{"image": "a", "size": [1, 2], "detections": []}])
    assert table.column_names == ["index", "image", "height", "width", "detections", "error"]
    assert to_line({"image": "a", "error": "b"}) == b'{"image": "a", "error": "b"}\n'
