from __future__ import annotations

import http.server
import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import InputError
from engine.inference import live
from engine.inference.items import find_items, kind_of
from engine.inference.live import LatestFrames
from engine.inference.sources import Frame, Reading, read_frames
from engine.inference.watch import WatchedFolder, watched_folder
from tests.inference.coded_video import coded, frames_of, number_in, write_video


def found(*places: str | Path, **options: bool) -> list[tuple[str, str]]:
    return [(item.kind, item.name.as_posix()) for item in find_items(list(map(str, places)), **options).items]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "sub/a.jpg", "c.gif.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    for name in ("clip.avi", "clip.MP4"):
        (tmp_path / "in" / name).touch()
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("place", "kind"),
    [("0", "camera"), ("12", "camera"), ("camera:1", "camera"), ("./0", "image"), ("0001.png", "image")]
    + [("rtsp://u:p@line/1", "stream"), ("http://host/a.mjpg", "stream"), ("udp://@:1234", "stream")]
    + [("a.MOV", "video"), ("a.b/c", "image"), ("parts/*.mkv", "video"), ("C:\\x.png", "image")],
)
def test_kinds_by_spelling(place: str, kind: str) -> None:
    assert kind_of(place) == kind


def test_images_and_videos_of_folders(folder: Path) -> None:
    assert found(folder) == [("image", "b.png"), ("video", "clip.mp4"), ("video", "clip_2.mp4")]
    assert ("image", "sub/a.jpg") in found(folder, recursive=True)
    assert found(folder / "*.avi", folder / "b.png") == [("video", "clip.mp4"), ("image", "b.png")]
    assert "1 not an image (.txt)" in find_items([str(folder)]).left_out


def test_lists(folder: Path) -> None:
    """Relative to the list; a file that is not there is read, and fails, like any other."""
    text = f"\ufeff# all\nb.png\r\n\nsub/a.jpg\n{folder}/b.png\n../in/clip.avi\nmissing 布.png"
    (folder / "todo.txt").write_text(text, encoding="utf-8")
    items = find_items([str(folder / "todo.txt")])
    assert [item.name.as_posix() for item in items.items] == ["b.png", "sub/a.jpg", "clip.mp4", "missing 布.png"]
    assert items.left_out == "left out: 1 named twice"
    (folder / "empty.txt").write_text("# nothing\n")
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name, words in {"empty.txt": "holds no images", "binary.txt": "UTF-8", "none.txt": "is not a file"}.items():
        with pytest.raises(InputError, match=words):
            find_items([str(folder / name)])


def test_what_has_no_end_stands_alone(folder: Path) -> None:
    (item,) = find_items(["rtsp://me:secret@line-3/cam?x=1"]).items
    assert (item.shown, item.name.as_posix()) == ("rtsp://line-3/cam?x=1", "line-3-cam-x-1")
    assert found("camera:7") == [("camera", "camera-7")]
    for places in (["0", str(folder)], ["rtsp://a:secret@b", "1"]):
        with pytest.raises(InputError, match="has no end") as caught:
            find_items(places)
        assert "secret" not in str(caught.value)


# ---------------------------------------------------------------- videos


@pytest.mark.parametrize(("name", "rate"), [("a.mp4", 29.97), ("a.avi", 10.0)])
def test_a_video_gives_every_frame(tmp_path: Path, name: str, rate: float) -> None:
    path = write_video(tmp_path / name, 30, rate)
    frames = list(read_frames(find_items([str(path)]).items, Reading()))
    assert [number_in(frame.image) for frame in frames] == list(range(30)) == [frame.number for frame in frames]
    assert [frame.is_last for frame in frames] == [False] * 29 + [True]
    assert [frame.time for frame in frames] == pytest.approx([k / rate for k in range(30)], abs=1e-3)
    assert frames[0].rate == pytest.approx(rate, abs=1e-3)
    assert frames[29].where == {"frame": 29, "time": pytest.approx(29 / rate, abs=1e-3), "last": True}


def test_videos_that_cannot_be_read(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.avi", 30)
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "list.txt").write_text("gone.mp4")
    places = [str(tmp_path / name) for name in ("text.mp4", "empty.mp4", "pipe.mp4", "list.txt", "cut.avi")]
    frames = list(read_frames(find_items(places).items, Reading()))
    errors = [frame.error for frame in frames if frame.error]
    assert len(errors) == 4 and all(frame.is_last for frame in frames[:4])
    for error, words in zip(errors, ("not a video", "not a video", "is not a file", "no such video"), strict=True):
        assert words in error and "\n" not in error
    numbers = [number_in(frame.image) for frame in frames[4:]]
    assert numbers == list(range(len(numbers))) and 0 < len(numbers) < 30
    assert "damaged: ends after" in frames[-1].warnings[0]


def test_a_stopped_run_reads_no_further(tmp_path: Path) -> None:
    reading = Reading()
    frames = read_frames(find_items([str(write_video(tmp_path / "a.avi", 5))]).items, reading)
    next(frames)
    reading.stop.set()
    assert list(frames) == []


# ---------------------------------------------------------------- cameras and streams


class FakeCamera:
    """Gives the frames of `script`: an image, None for a damaged one, "end" for the loss, "hang" for a read that hangs.

    Each opening goes on with the script; "absent" makes one fail.
    """

    def __init__(self, script: list[np.ndarray | str | None], pause: float = 0.0) -> None:
        self.script, self.pause = iter(script), pause
        self.opened, self.released, self.hang = 0, 0, threading.Event()

    def __call__(self, place: str | int | None = None) -> FakeCamera:
        self.opened += 1
        self.is_there = True
        self.ahead = next(self.script, "end")
        if isinstance(self.ahead, str) and self.ahead == "absent":
            self.is_there = False
        else:
            self.script = itertools.chain([self.ahead], self.script)
        return self

    def isOpened(self) -> bool:  # noqa: N802
        return self.is_there

    def get(self, key: int) -> float:
        return 15.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        time.sleep(self.pause)
        frame = next(self.script, "hang")
        if isinstance(frame, str):
            if frame == "hang":
                self.hang.wait(20)
            return False, None
        return True, frame

    def release(self) -> None:
        self.released += 1


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PAUSES", (0.01, 0.05))
    monkeypatch.setattr(live, "_END_SECONDS", 0.2)


def frames_from(camera: FakeCamera, count: int, place: str = "0", timeout: float = 5.0, **options: int) -> list[Frame]:
    reading = Reading(timeout=timeout, capture=camera, **options)
    frames = []
    for frame in read_frames(find_items([place]).items, reading):
        frames.append(frame)
        if len(frames) == count:
            reading.stop.set()
            camera.hang.set()
    return frames


def test_a_slow_consumer_gets_the_newest_frame() -> None:
    camera = FakeCamera([coded(k) for k in range(200)], pause=0.002)
    got, stop = [], threading.Event()
    with LatestFrames(camera, "camera 0", 5.0, stop) as frames:
        for pixels, seconds in frames:
            assert abs(time.time() - seconds) < 5
            got.append(number_in(pixels))
            time.sleep(0.05)
            if got[-1] > 150:
                break
    camera.hang.set()
    assert got == sorted(set(got)) and len(got) < 100 and frames.num_dropped >= 50


def test_a_lost_camera_comes_back(short_pauses: None, said: pytest.LogCaptureFixture) -> None:
    script = [coded(1), None, coded(2), "end", "absent", "absent", coded(3)]
    camera = FakeCamera(script, pause=0.05)
    frames = frames_from(camera, 3)
    assert [number_in(frame.image) for frame in frames] == [1, 2, 3]
    assert [frame.number for frame in frames] == [0, 1, 2] and frames[0].rate == 15.0
    lines = [record.getMessage() for record in said.records if "lost" in record.getMessage()]
    assert len(lines) == 3 and lines[0].startswith("0: lost (it ended); opened again in ")
    assert camera.opened == 4 and camera.released == 4


def test_frame_numbers_go_on(short_pauses: None) -> None:
    assert [frame.number for frame in frames_from(FakeCamera([coded(1), coded(2)], 0.05), 2, first=40)] == [40, 41]


@pytest.mark.parametrize("script", [["absent"], ["end"]])
def test_a_camera_that_is_not_there(script: list[str]) -> None:
    with pytest.raises(InputError, match=r"^7: cannot be opened \(.*\); check its number or address$"):
        frames_from(FakeCamera(script), 1, "7")


@pytest.mark.parametrize("script", [[coded(1), "hang"], [coded(1), "end", *["absent"] * 1000]])
def test_an_unplugged_camera_ends_the_run(script: list[np.ndarray | str], short_pauses: None) -> None:
    camera, begin = FakeCamera(script), time.monotonic()
    with pytest.raises(InputError, match="no frame for 0.5 s; is it connected and sending"):
        frames_from(camera, 9, timeout=0.5)
    assert time.monotonic() - begin < 10
    camera.hang.set()


class _DroppingServer(http.server.BaseHTTPRequestHandler):
    """Motion JPEG; each connection gives five frames and is then closed."""

    numbers: Iterator[int]

    def do_GET(self) -> None:  # noqa: N802
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in itertools.islice(self.numbers, 5):
            data = cv2.imencode(".jpg", coded(number))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")
            time.sleep(0.05)

    def log_message(self, *args: object) -> None:
        pass


def test_a_stream_that_drops_the_connection(short_pauses: None, said: pytest.LogCaptureFixture) -> None:
    """A real stream through OpenCV."""
    _DroppingServer.numbers = itertools.count()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _DroppingServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        reading = Reading(timeout=20)
        numbers = []
        for frame in read_frames(find_items([f"http://127.0.0.1:{server.server_port}/cam"]).items, reading):
            numbers.append(number_in(frame.image))
            if numbers[-1] >= 10:
                reading.stop.set()
        server.shutdown()
    assert numbers == sorted(set(numbers)) and numbers[0] < 5
    assert sum("lost" in record.getMessage() for record in said.records) >= 2


def test_a_stream_that_nobody_sends() -> None:
    with pytest.raises(InputError, match="cannot be opened"):
        list(read_frames(find_items(["http://127.0.0.1:1/nothing"]).items, Reading()))


# ---------------------------------------------------------------- watched folders


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Callable[..., list[Frame]]]:
    """Starts to watch `tmp_path/in` in a thread; the list that is returned fills with frames."""
    (tmp_path / "in").mkdir()
    stop, threads = threading.Event(), []

    def start(**options: object) -> list[Frame]:
        folder = WatchedFolder(tmp_path / "in", **{"quiet": 0.3, "patience": 1.5, **options})
        frames: list[Frame] = []
        threads.append(threading.Thread(target=lambda: frames.extend(iter_into(frames, folder, stop)), daemon=True))
        threads[-1].start()
        return frames

    def iter_into(frames: list[Frame], folder: WatchedFolder, stop: threading.Event) -> Iterator[Frame]:
        for frame in folder.frames(stop):
            frames.append(frame)
        return iter(())

    yield start
    stop.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def test_images_are_taken_once_they_are_complete(tmp_path: Path, watching: Callable[..., list[Frame]]) -> None:
    source, into = tmp_path / "source.png", tmp_path / "in"
    cv2.imwrite(str(source), np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    shutil.copy(source, into / "there already.png")
    frames = watching()
    wait_for(lambda: len(frames) == 1)
    data = source.read_bytes()
    with open(into / "slow.png", "wb", buffering=0) as file:
        for begin in range(0, len(data), len(data) // 4):
            file.write(data[begin : begin + len(data) // 4])
            time.sleep(0.5)  # longer than a file must be quiet, since it cannot be read yet
    shutil.copy(source, into / ".renamed.tmp")
    os.rename(into / ".renamed.tmp", into / "renamed.png")
    (into / "notes.txt").touch()
    wait_for(lambda: len(frames) == 3)
    (into / "broken.png").write_bytes(data[:500])
    wait_for(lambda: len(frames) == 4)
    os.utime(into / "slow.png")
    time.sleep(0.6)
    assert [Path(frame.item.place).name for frame in frames] == [
        "there already.png",
        "slow.png",
        "renamed.png",
        "broken.png",
    ] and len(frames) == 4
    assert "truncated" in frames[3].error and all(frame.pixels.shape == (200, 200, 3) for frame in frames[:3])


def test_a_watch_goes_on_and_ends_when_nothing_comes(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("a.png", "A.PNG", "sub/b.png"):
        cv2.imwrite(str(tmp_path / "in" / name), coded(1))
    folder = WatchedFolder(tmp_path / "in", recursive=True, done=[str(tmp_path / "in" / "A.PNG")], timeout=0.5, quiet=0)
    frames = list(folder.frames(threading.Event()))
    assert [frame.item.name.as_posix() for frame in frames] == ["a_2.png", "sub/b.png"]


def test_what_cannot_be_watched(tmp_path: Path) -> None:
    for places in ([str(tmp_path / "none")], [str(tmp_path), str(tmp_path)]):
        with pytest.raises(InputError, match="one folder that exists"):
            watched_folder(places, False, tmp_path / "out", 0.0)
    with pytest.raises(InputError, match="is the watched folder"):
        watched_folder([str(tmp_path)], False, tmp_path, 0.0)


def test_frames_of_coded_videos_are_told_apart(tmp_path: Path) -> None:
    """The test's own tools."""
    assert [number_in(coded(k)) for k in range(1024)] == list(range(1024))
    assert len(frames_of(write_video(tmp_path / "a.mp4", 3))) == 3
