"""Weights by URI, with a server on this machine."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.checkpoint import io, sources
from engine.errors import InputError


class _Handler(http.server.SimpleHTTPRequestHandler):
    requests: list[str] = []

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.requests.append(self.path)
        if self.path.startswith("/short"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"PK\x03\x04 too short")
        elif self.path.startswith("/empty"):
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
        elif self.path.startswith("/endless"):  # a web page that never ends
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"<!DOCTYPE html>" + b" " * 10_000)
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "www"
    io.save(folder / "a" / "model.pth", {"model": {"w": torch.ones(3)}})
    (folder / "login.pth").write_text("<!DOCTYPE html><html>please log in</html>")
    _Handler.requests.clear()
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder))
    ) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_downloads_once(server: str, tmp_path: Path) -> None:
    for _ in range(2):
        path = sources.resolve(f"{server}/a/model.pth", tmp_path / "cache")
    assert path == tmp_path / "cache" / server.removeprefix("http://").replace(":", "_") / "a" / "model.pth"
    assert io.load(path)["model"]["w"].tolist() == [1, 1, 1]
    assert _Handler.requests == ["/a/model.pth"]


def test_cache_of_the_environment(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_CACHE", str(tmp_path / "mine"))
    assert (tmp_path / "mine") in sources.resolve(f"{server}/a/model.pth").parents


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("short.pth", "stopped after 14 of 1000"),
        ("empty.pth", "stopped after 0 of 100"),
        ("login.pth", "web page"),
        ("endless.pth", "web page"),
        ("none.pth", "not found"),
    ],
)
def test_failed_downloads_leave_nothing(server: str, tmp_path: Path, file: str, reason: str) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(InputError, match=rf"(?i)^(?!.*\n).*{file}.*{reason}"):
        sources.resolve(f"{server}/{file}", cache)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_without_network_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "catalog://ImageNetPretrained/MSRA/R-50"
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(InputError) as caught:
        sources.resolve(uri, tmp_path)
    place = tmp_path / "dl.fbaipublicfiles.com" / "detectron" / "ImageNetPretrained" / "MSRA" / "R-50.pkl"
    message = str(caught.value)
    assert "https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/MSRA/R-50.pkl" in message
    assert message.endswith(f"put it at {place}") and "\n" not in message
    place.parent.mkdir(parents=True)
    place.touch()
    assert sources.resolve(uri, tmp_path) == place


def test_torchvision_and_its_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"https://download.pytorch.org/models/resnet18-\w+.pth"):
        sources.resolve("torchvision://resnet18", tmp_path)
    name = sources._torchvision_url("resnet18").rsplit("/", 1)[1]
    held = tmp_path / "hub" / "checkpoints" / name
    held.parent.mkdir(parents=True)
    held.touch()
    assert sources.resolve("torchvision://resnet18", tmp_path) == held


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("catalog://ImageNetPretrained/MSRA/R-5O", "did you mean catalog://ImageNetPretrained/MSRA/R-50"),
        ("torchvision://resnet5", "did you mean torchvision://resnet50"),
        ("s3://bucket/model.pth", "unknown scheme"),
        ("", "MODEL.WEIGHT"),
        ("/nowhere/model.pth", "no folder /nowhere"),
        ("http:///", "cannot download"),
    ],
)
def test_mistakes_are_answered(uri: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^(?!.*\n).*{hint}"):
        sources.resolve(uri, tmp_path)


def test_paths(tmp_path: Path) -> None:
    path = tmp_path / "my weights.pth"
    path.touch()
    assert sources.resolve(str(path)) == sources.resolve(path) == path
    assert sources.resolve(f"file://{tmp_path}/my%20weights.pth") == path


def test_every_url_has_its_own_place_inside_the_cache(tmp_path: Path) -> None:
    urls = [*sources.CATALOG.values(), "https://h/get?id=1", "https://h/get?id=2", "https://h/../../etc/x", "https://h"]
    places = [sources.cache_path(url, tmp_path) for url in urls]
    assert len(set(places)) == len(urls)
    assert all(tmp_path in place.resolve().parents for place in places)
