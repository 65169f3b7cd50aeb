"""Real processes on a real port: clients that are slow or break off, several workers, new files, signals."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.conftest import REPOSITORY, TIMEOUT
from tests.prepared import clean_environment
from tests.serve.conftest import encoded
from tests.serve.fake import KEPT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
JPEG = encoded()
PATIENCE = 40
"""Seconds for what takes one or two where nothing else runs; less than the clients below keep on."""


class Server:
    """A process that serves, and what it has written.

    Attributes:
        lines: of its output so far.
        url: once it listens.
    """

    def __init__(self, command: list[str | Path], env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=REPOSITORY,
            env={**clean_environment(), **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.url = re.search(r"http://\S+", self.wait_for("listening on"))[0]

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def wait_for(self, words: str, count: int = 1) -> str:
        """The line with `words`, once it has been written `count` times."""
        found: list[str] = []
        wait_until(lambda: found.extend(self._with(words)[count - 1 :]) or found or self.process.poll() is not None)
        assert found, f"ended with {self.process.poll()} without {words!r}: {self.lines}"
        return found[0]

    def _with(self, words: str) -> list[str]:
        return [line for line in self.lines if words in line]

    def end(self, number: int = signal.SIGTERM) -> int:
        """The exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT)

    def workers(self) -> list[int]:
        """Their process ids."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(each) for each in children if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]

    def connect(self) -> socket.socket:
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=30)


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


@contextlib.contextmanager
def serving(command: list[str | Path], env: dict[str, str] | None = None) -> Iterator[Server]:
    server = Server(command, env)
    try:
        server.wait_for("ready: ")
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def fake(folder: Path, *options: str, **limits: Any) -> list[str | Path]:
    """The command of a server with a fake predictor, whose model is `folder`/model.json."""
    model = folder / "model.json"
    if not model.exists():
        model.write_text("{}")
    return ["-m", "tests.serve.fake", model, "--limits", json.dumps(limits), *options]


def detect(server: Server, body: Any = JPEG) -> httpx.Response:
    return httpx.post(f"{server.url}/detect", content=body, headers={"content-type": "image/jpeg"}, timeout=30)


def detect_aside(server: Server, pool: ThreadPoolExecutor) -> Future[httpx.Response]:
    """A request in a thread, once the server has accepted it."""
    future = pool.submit(detect, server)
    wait_until(lambda: figure(server, "engine_queue_images") >= 1)
    return future


def figure(server: Server, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def kept(response: httpx.Response) -> list[tuple[str, float]]:
    assert response.status_code == 200, response.text
    return [(each["class"], each["score"]) for each in response.json()["images"][0]["detections"]]


def received(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker with short timeouts and few connections."""
    limits = {"timeout": 3.0, "header_timeout": 1.0, "max_connections": 24, "max_bytes": 200_000, "max_queue": 64}
    with serving(fake(tmp_path_factory.mktemp("quick"), **limits)) as server:
        yield server


def test_clients_that_say_nothing_are_let_go(quick: Server) -> None:
    with quick.connect() as silent, quick.connect() as slow:
        slow.sendall(b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-")
        began = time.monotonic()
        assert received(slow).startswith(b"HTTP/1.1 408 ") and received(silent) == b""
        assert time.monotonic() - began < PATIENCE


def test_a_head_that_drips_is_let_go(quick: Server) -> None:
    with quick.connect() as slow:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in b"POST /detect HTTP/1.1\r\nHost: x\r\n" * 40:
                slow.sendall(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - began < PATIENCE


def test_a_body_that_drips_is_let_go(quick: Server) -> None:
    with quick.connect() as slow:
        slow.sendall(b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 100000\r\n\r\n")
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for _ in range(1200):
                slow.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - began < PATIENCE
        assert received(slow).startswith(b"HTTP/1.1 408 ")


def test_a_body_without_end_is_refused_at_once(quick: Server) -> None:
    with quick.connect() as endless:
        endless.sendall(
            b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"2000\r\n" + bytes(0x2000) + b"\r\n"
        endless.sendall(chunk * 30)  # more than is allowed
        endless.settimeout(0.05)
        answer = b""
        for _ in range(400):
            endless.sendall(chunk)
            with contextlib.suppress(TimeoutError):
                answer = endless.recv(4096)
                break
        assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",  # the hello of TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\n" + JPEG[:300],
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_clients_that_break_off(quick: Server, sent: bytes) -> None:
    with quick.connect() as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            received(client)
    assert kept(detect(quick)) == KEPT
    assert not [line for line in quick.lines if "Traceback" in line]


def test_more_connections_than_allowed(quick: Server) -> None:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(quick.connect()) for _ in range(30)]
        answers = [received(each) for each in connections]
    assert sum(each.startswith(b"HTTP/1.1 503 ") and b"Retry-After" in each for each in answers) >= 5
    assert kept(detect(quick)) == KEPT


def test_requests_on_one_connection(quick: Server) -> None:
    with httpx.Client() as client:
        for body, status in ((JPEG, 200), (b"x", 415), (bytes(300_000), 413), (JPEG, 200)):
            assert client.post(f"{quick.url}/detect", content=body).status_code == status


def test_a_new_file_is_taken_and_a_broken_one_is_not(tmp_path: Path) -> None:
    with serving(fake(tmp_path)) as server:
        first = httpx.get(f"{server.url}/model").json()["hash"]

        def replace(content: str) -> None:
            (tmp_path / "new").write_text(content)
            os.replace(tmp_path / "new", tmp_path / "model.json")

        replace('{"names": ["dent", "crack"]}')
        server.wait_for("answering with the new file")
        assert kept(detect(server))[0] == ("dent", 0.9) and httpx.get(f"{server.url}/model").json()["hash"] != first
        replace("{")
        assert "not a model" in server.wait_for("cannot be used, the one before stays")
        assert kept(detect(server))[0] == ("dent", 0.9)
        assert figure(server, 'engine_model_reloads_total{outcome="failed"}') == 1
        replace("{}")
        server.wait_for("answering with the new file", 2)
        assert kept(detect(server)) == KEPT and httpx.get(f"{server.url}/model").json()["hash"] == first


def test_models_change_while_clients_ask(tmp_path: Path) -> None:
    """No request fails, and every answer is of one model only."""
    models = [json.dumps({"names": [f"a{number}", f"b{number}"]}) for number in range(3)]
    (tmp_path / "model.json").write_text(models[0])
    end = threading.Event()

    def ask() -> set[tuple[str, ...]]:
        answers = set()
        with httpx.Client(timeout=30) as client:
            while not end.is_set():
                response = client.post(f"{server.url}/detect", content=JPEG)
                names = [name for name, _ in kept(response)]
                answers.add((response.json()["model"]["hash"], *names))
        return answers

    with serving(fake(tmp_path)) as server, ThreadPoolExecutor() as pool:
        clients = [pool.submit(ask) for _ in range(4)]
        try:
            for count, (content, words) in enumerate(
                [(models[1], "answering with the new"), ("{", "cannot be used"), (models[2], "answering with the new")]
            ):
                (tmp_path / "new").write_text(content)
                os.replace(tmp_path / "new", tmp_path / "model.json")
                server.wait_for(words, 1 + count // 2)
        finally:
            end.set()
        digests = [hashlib.sha256(each.encode()).hexdigest()[:16] for each in models]
        expected = {(digest, f"a{k}", f"b{k}", f"a{k}") for k, digest in enumerate(digests)}
        assert set().union(*(client.result() for client in clients)) == expected


def test_many_clients_do_not_delay_the_end(tmp_path: Path) -> None:
    """Refusing those that ask again and again is not answering what was accepted."""
    outcomes: Counter[int] = Counter()

    def ask() -> None:
        with httpx.Client(timeout=30) as client:
            while server.process.poll() is None:
                with contextlib.suppress(httpx.TransportError):  # the port is closed, or the connection idle at the end
                    outcomes[client.post(f"{server.url}/detect", content=JPEG).status_code] += 1

    with serving(fake(tmp_path, timeout=600.0)) as server, ThreadPoolExecutor() as pool:
        clients = [pool.submit(ask) for _ in range(4)]
        wait_until(lambda: outcomes[200] > 20)
        assert server.end() == 0
        for client in clients:
            client.result()
    assert set(outcomes) <= {200, 503}


def test_what_is_accepted_is_answered_after_a_signal(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"seconds": 6.0}')
    with serving(fake(tmp_path, "--workers", "2")) as server, ThreadPoolExecutor() as pool:
        accepted = detect_aside(server, pool)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("stopping")
        refused = []
        while not accepted.done():
            with contextlib.suppress(httpx.TransportError):  # the worker without work has ended
                refused.append(detect(server).status_code)
        assert kept(accepted.result()) == KEPT and set(refused) <= {503} and refused
        assert server.process.wait(TIMEOUT) == 0
        assert not [line for line in server.lines if "Warning" in line or "Traceback" in line]


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"seconds": 15.0}')
    limits = {"timeout": 60.0}
    server = Server(fake(tmp_path, **limits))
    try:
        server.wait_for("listening")
        server.process.send_signal(signal.SIGINT)
        server.wait_for("stopping")
        began = time.monotonic()
        assert server.end() == 130 and time.monotonic() - began < 5
    finally:
        server.process.kill()


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    with serving(fake(tmp_path, "--workers", "2")) as server:
        first = server.workers()
        assert len(first) == 2
        for _ in range(6):
            assert kept(detect(server)) == KEPT
        os.kill(first[0], signal.SIGKILL)
        server.wait_for("another one is started")
        wait_until(lambda: len(server.workers()) == 2)
        statuses = [detect(server).status_code for _ in range(20)]
        assert statuses == [200] * 20  # also while the new one starts
        assert figure(server, 'engine_requests_total{path="/detect",status="200"}') == 26  # with those of the dead
        workers = server.workers()
        server.process.kill()  # without their parent they end, and the port is free
        wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in workers))


def test_a_worker_whose_network_is_stuck_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"endless_height": 50}')
    with serving(fake(tmp_path, timeout=2.0)) as server:
        assert detect(server, encoded(50, 60)).status_code == 503
        server.wait_for("busy with the same images for more than 4 seconds; this worker ends")
        server.wait_for("another one is started")
        assert kept(detect(server)) == KEPT  # the connection waits for the new one


def test_a_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("no model")
    server = Server(fake(tmp_path, "--workers", "2"))
    assert server.process.wait(TIMEOUT) == 2
    wait_until(lambda: any(line.startswith("error: ") for line in server.lines))
    assert [line for line in server.lines if "listening" not in line] == [f"error: {tmp_path}/model.json: not a model"]
