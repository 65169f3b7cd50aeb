from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.data.image_file import write_image
from engine.errors import InputError
from engine.inference.detect_frames import Tally, one_by_one, overlapped, use_frames
from engine.inference.items import Item, find_items
from engine.inference.records import RecordFile, read_records
from engine.inference.sinks.chosen import build_sinks, check_saves, write_tables
from engine.inference.sinks.page import PER_PAGE
from engine.inference.sources import Frame, Reading, read_frames
from engine.visualize.draw import draw_detections
from tests.inference.coded_video import Coder, coded, frames_of, numbers_of, write_video


def look(places: Sequence[Path], out: Path, *saves: str, predictor: Coder | None = None) -> Tally:
    out.mkdir(exist_ok=True)
    predictor = predictor or Coder()
    items = find_items(list(map(str, places))).items
    sinks = build_sinks(saves, out, predictor.class_names, frozenset(os.path.realpath(each.place) for each in items))
    records = RecordFile(out / "predictions.jsonl")
    tally = use_frames(predictor, overlapped(predictor, read_frames(items, Reading())), sinks, records)
    records.close()
    write_tables(saves, out / "predictions.jsonl", out)
    return tally


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for number in range(3):
        write_image(folder / f"{number} 布.png", coded(number))
    (folder / "9 z.jpg").write_bytes(b"\xff\xd8 no more")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("name", "rate", "count"), [("clip.mp4", 30.0, 1000), ("clip.avi", 12.0, 50)])
def test_a_thousand_frames_in_a_thousand_out(tmp_path: Path, name: str, rate: float, count: int) -> None:
    tally = look([write_video(tmp_path / name, count, rate)], tmp_path / "out", "video")
    video = tmp_path / "out" / "videos" / "clip.mp4"
    assert numbers_of(video) == list(range(count)) and tally.num_seen == count
    capture = cv2.VideoCapture(str(video))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(rate) and frames_of(video)[0].shape == (48, 96, 3)
    records = list(read_records(tmp_path / "out" / "predictions.jsonl"))
    assert [record["frame"] for record in records] == list(range(count))
    scores = [record["detections"][0]["score"] for record in records]
    assert scores == pytest.approx([k / 1000 for k in range(count)])
    assert [record.get("last", False) for record in records] == [False] * (count - 1) + [True]
    assert names(tmp_path / "out") == ["predictions.jsonl", "videos/clip.mp4"]


def test_a_video_with_odd_sides_keeps_its_size(tmp_path: Path) -> None:
    size = (49, 97)
    frames = [Frame(Item("video", "v", Path("v.mp4")), coded(k, size), number=k, rate=10.0) for k in range(5)]
    sinks = build_sinks(["video"], tmp_path, Coder.class_names)
    use_frames(Coder(), one_by_one(Coder(), frames), sinks)
    assert names(tmp_path) == ["videos/v.avi"]
    shapes = {frame.shape for frame in frames_of(tmp_path / "videos" / "v.avi")}
    assert shapes == {(49, 97, 3)} and numbers_of(tmp_path / "videos" / "v.avi") == list(range(5))


def test_a_camera_runs_as_fast_in_its_video(tmp_path: Path) -> None:
    """Frames at 0, 0.1, 0.5 s and of another size at 0.6 s, at 10 per second."""
    item = Item("camera", "0", Path("camera-0"))
    shots = [(0.0, coded(1)), (0.1, coded(2)), (0.5, coded(3)), (0.6, coded(4, (64, 96)))]
    frames = [Frame(item, pixels, number=k, time=100.0 + t, rate=10.0) for k, (t, pixels) in enumerate(shots)]
    for _ in range(2):  # a later run begins a file of its own
        use_frames(Coder(), one_by_one(Coder(), frames), build_sinks(["video"], tmp_path, Coder.class_names))
    found = {name: numbers_of(tmp_path / name) for name in names(tmp_path)}
    once = {"videos/camera-0.mp4": [1, 2, 3, 3, 3, 3], "videos/camera-0_2.mp4": [4]}
    again = {"videos/camera-0_3.mp4": [1, 2, 3, 3, 3, 3], "videos/camera-0_4.mp4": [4]}
    assert found == once | again


def test_a_stopped_video_is_whole(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 9)
    frames = (frame for frame in read_frames(find_items([str(path)]).items, Reading()) if frame.number < 4)
    use_frames(Coder(), one_by_one(Coder(), frames), build_sinks(["video"], tmp_path / "out", Coder.class_names))
    assert names(tmp_path / "out") == ["videos/a.mp4"] and numbers_of(tmp_path / "out/videos/a.mp4") == [0, 1, 2, 3]


def test_a_full_disk_leaves_no_piece_of_a_video(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = write_video(tmp_path / "a.mp4", 9)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))  # bytes that a file can have
    try:
        with pytest.raises(InputError, match="disk full"):
            frames = read_frames(find_items([str(path)]).items, Reading())
            use_frames(Coder(), one_by_one(Coder(), frames), build_sinks(["video"], tmp_path / "out", ["a"]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert names(tmp_path / "out") == []


def test_originals_are_never_overwritten(tmp_path: Path, images: Path) -> None:
    (tmp_path / "out" / "videos").mkdir(parents=True)
    video = write_video(tmp_path / "out" / "videos" / "a.mp4", 3)
    before = video.read_bytes()
    with pytest.raises(InputError, match="is one of the videos, which would be overwritten"):
        look([video], tmp_path / "out", "video")
    assert video.read_bytes() == before
    images.rename(tmp_path / "pictures")
    with pytest.raises(InputError, match="is the folder of the images, which would be overwritten"):
        look([tmp_path / "pictures"], tmp_path, "pictures")


def test_pictures_of_images_and_frames(tmp_path: Path, images: Path) -> None:
    places = [images, write_video(tmp_path / "clip.avi", 2)]
    look(places, tmp_path / "a", "pictures")
    of_images = [f"pictures/{k} 布.png" for k in range(3)]
    of_frames = ["pictures/clip.mp4/000000.jpg", "pictures/clip.mp4/000001.jpg"]
    assert names(tmp_path / "a") == [*of_images, *of_frames, "predictions.jsonl"]
    drawn = cv2.imdecode(np.fromfile(tmp_path / "a" / of_images[1], np.uint8), cv2.IMREAD_COLOR)
    assert (drawn == draw_detections(coded(1), Coder().detect(coded(1)), Coder.class_names)).all()
    look(places, tmp_path / "b", "pictures", "video")
    assert names(tmp_path / "b") == [*of_images, "predictions.jsonl", "videos/clip.mp4"]


def test_records(tmp_path: Path, images: Path) -> None:
    look([images], tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text("utf-8").splitlines()]
    box = {"class": "stain", "score": 0.001, "box": [4.0, 4.0, 20.0, 14.0]}
    assert lines[1] == {"image": str(images / "1 布.png"), "size": [48, 96], "detections": [box]}
    assert list(lines[2]) == ["image", "size", "detections"]
    assert list(lines[3]) == ["image", "error"] and "damaged" in lines[3]["error"]


def test_table(tmp_path: Path, images: Path) -> None:
    look([images, write_video(tmp_path / "clip.mp4", 2)], tmp_path / "out", "csv")
    with open(tmp_path / "out" / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["hole", "stain", "hole", "", "hole", "stain"]
    assert (rows[1]["image"], rows[1]["score"], rows[1]["x2"]) == (str(images / "1 布.png"), "0.001", "20.0")
    assert "damaged" in rows[3]["error"] and [row["frame"] for row in rows[-2:]] == ["0", "1"]


def test_crops(tmp_path: Path, images: Path) -> None:
    look([images, write_video(tmp_path / "clip.mp4", 2)], tmp_path / "out", "crops")
    frames = ["crops/hole/clip.mp4/000000_000.png", "crops/stain/clip.mp4/000001_000.png"]
    of_images = ["crops/hole/0 布.png_000.png", "crops/stain/1 布.png_000.png", "crops/hole/2 布.png_000.png"]
    assert names(tmp_path / "out") == sorted(["predictions.jsonl", *frames, *of_images])
    assert cv2.imread(str(tmp_path / "out" / frames[0])).shape == (12, 20, 3)  # 16 x 10 with a tenth on each side


def test_page(tmp_path: Path, images: Path) -> None:
    (images / "0 布.png").rename(images / "0 <script>.png")
    look([images, write_video(tmp_path / "clip.mp4", 45, 20.0)], tmp_path / "out", "page")
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    shown = sorted(path.name for path in (tmp_path / "out" / "thumbnails").iterdir())
    assert len(shown) == 3 + 3 and all(name in text for name in shown)  # frames 0, 20 and 40
    assert "0 &lt;script&gt;.png" in text and "<script" not in text and "../images/0%20%3Cscript%3E.png" in text
    assert "damaged" in text and "clip.mp4, frame 40" in text and "49 images or frames, 1 of them unreadable" in text
    assert not any(word in text for word in ("http:", "https:", "//cdn"))


def test_pages_of_many_images(tmp_path: Path) -> None:
    """Pages that an earlier run had more are removed."""
    records = RecordFile(tmp_path / "r.jsonl")
    for number in range(PER_PAGE + 1):
        records.write({"image": f"{number}.png", "error": "gone"})
    (tmp_path / "page-3.html").touch()
    write_tables(["page"], tmp_path / "r.jsonl", tmp_path)
    assert names(tmp_path) == ["index.html", "page-2.html", "r.jsonl"]
    assert (tmp_path / "page-2.html").read_text().count("<figure>") == 1


def test_words() -> None:
    check_saves(["jsonl", "pictures", "video", "page", "csv", "crops"])
    with pytest.raises(InputError, match="--save cvs: there is no such output; choose from crops, csv, jsonl, page"):
        check_saves(["csv", "cvs"])


def test_pace_and_counts() -> None:
    tally = Tally(["hole"], [0.5])
    assert tally.pace() == "nothing was detected in"
    for latency in (0.010, 0.020, 0.030):
        tally.add([0, 0] if latency < 0.03 else [], latency)
    tally.seconds = 0.5
    assert tally.pace() == "6.0 per second; an image took 20.0 ms (p50), 28.0 ms (p90), 29.8 ms (p99)"
    assert tally.detections.tolist() == [4] and tally.images.tolist() == [2] and tally.num_found == 2


def test_a_model_that_fails_ends_the_run(tmp_path: Path, images: Path) -> None:
    class Broken(Coder):
        def detect(self, pixels: np.ndarray) -> None:
            raise InputError("no memory; lower TEST.IMS_PER_BATCH")

    with pytest.raises(InputError, match="no memory"):
        look([images], tmp_path / "out", predictor=Broken())
    assert list(read_records(tmp_path / "out" / "predictions.jsonl")) == []
