"""The server under load beside direct calls of the Predictor, in one run: throughput, latency, memory, right answers.

    python benchmarks/serve.py --requests 400 --clients 16 --bad 0.01

Clients with a connection each send JPEGs one after the other and compare every answer with the detections of the
Predictor. A share of the requests is bad: malformed, truncated, too many bytes or pixels, too slow, broken off. The
Predictor is called in a process of its own with as many threads as the server has, with single images and with lists;
both take turns with the server, so that a busy machine hits all of them alike. `ratio` is the server's throughput over
the better of the two. The exit code is 1 if an answer is wrong or the ratio is below 0.9.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import random
import re
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = REPOSITORY / "configs" / "quickstart" / "_base_atss_R_18_cpu.yaml"
NUM_CLASSES = 3
LEAST_RATIO = 0.9
TYPE = {"Content-Type": "image/jpeg"}
Detected = list[dict[str, Any]]


# ---------------------------------------------------------------- the requests


def pictures(count: int, height: int, width: int) -> list[bytes]:
    """JPEGs of noise at several scales, which detectors find something in."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        scales = [rng.integers(0, 256, (side, side, 3)).astype(np.float32) for side in (4, 12, 40)]
        layers = [cv2.resize(each, (width, height), interpolation=cv2.INTER_CUBIC) for each in scales]
        found.append(cv2.imencode(".jpg", np.clip(sum(layers) / 3, 0, 255).astype(np.uint8))[1].tobytes())
    return found


def bomb() -> bytes:
    """The start of a PNG that declares 4,900 million pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 70_000, 70_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + bytes(64)


BAD = {"malformed": 400, "truncated": 422, "large": 413, "huge": 413, "pixels": 413, "slow": 408, "broken off": 0}
"""Kind of a bad request -> status of its answer; 0: there is nobody to answer."""
HUGE = 34
"""Megabytes, without a length in the head; the server takes 32."""


def send_bad(kind: str, host: str, port: int, image: bytes) -> int:
    """The status of a bad request, on a connection of its own."""
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        if kind == "malformed":
            connection.request("POST", "/detect", b'{"images": [', {"Content-Type": "application/json"})
        elif kind == "truncated":
            connection.request("POST", "/detect", image[: len(image) // 2], TYPE)
        elif kind == "pixels":
            connection.request("POST", "/detect", bomb(), TYPE)
        elif kind == "huge":
            connection.request("POST", "/detect", (bytes(1_000_000) for _ in range(HUGE)), TYPE)
        else:
            connection.putrequest("POST", "/detect")
            connection.putheader("Content-Type", "image/jpeg")
            connection.putheader("Content-Length", str(10**10 if kind == "large" else len(image)))
            connection.endheaders()
            connection.send(image[: len(image) // 2])
            if kind == "broken off":
                return 0
        return connection.getresponse().status
    finally:
        connection.close()


@dataclass
class Outcome:
    """What clients have seen.

    Attributes:
        seconds: of the whole load.
        latencies: seconds of each good request.
        statuses: how often each came.
        num_reopened: connections that the server had ended while they were idle.
        wrong: what should not have been, in words.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    num_reopened: int = 0
    wrong: list[str] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        return sorted(self.latencies)[min(int(share * len(self.latencies)), len(self.latencies) - 1)]


class Client:
    """A client with one connection, which it opens again where the server has ended it between two requests.

    A server may end an idle connection at any moment, so also while the next request is on its way; every client of
    HTTP sends that request once more on a new connection.

    Attributes:
        num_reopened: how often that was.
    """

    def __init__(self, host: str, port: int) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=120)
        self.num_reopened = 0

    def post(self, image: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        was_open = self._connection.sock is not None
        try:
            return self._post_once(image)
        except (ConnectionResetError, BrokenPipeError):  # http.client.RemoteDisconnected is one
            if not was_open:
                raise
            self.num_reopened += 1
            return self._post_once(image)

    def _post_once(self, image: bytes) -> tuple[int, bytes]:
        try:
            self._connection.request("POST", "/detect", image, TYPE)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            self.close()  # the next request opens it again
            raise

    def close(self) -> None:
        self._connection.close()


def load(
    url: str,
    images: Sequence[bytes],
    expected: Sequence[Detected],
    num_requests: int,
    num_clients: int,
    share_bad: float = 0.0,
) -> Outcome:
    """Send requests from so many clients at once, and compare what they get with `expected`, by image."""
    host, port = url.removeprefix("http://").split(":")
    rng = random.Random(0)
    kinds = [rng.random() < share_bad for _ in range(num_requests)]
    bad = itertools.cycle(BAD)
    waiting = [(number, next(bad) if is_bad else "") for number, is_bad in enumerate(kinds)][::-1]
    outcome, lock = Outcome(), threading.Lock()

    def run() -> None:
        client = Client(host, int(port))
        while True:
            with lock:
                if not waiting:
                    break
                number, kind = waiting.pop()
            index = number % len(images)
            began = time.perf_counter()
            try:
                if kind:
                    status, wrong = send_bad(kind, host, int(port), images[index]), ""
                    wrong = "" if status == BAD[kind] else f"{kind}: status {status}"
                else:
                    status, body = client.post(images[index])
                    wrong = difference(status, body, expected[index])
            except (OSError, http.client.HTTPException) as error:
                status, wrong = -1, f"{kind or 'good'}: {type(error).__name__}: {error}"
            with lock:
                outcome.statuses[status] += 1
                if not kind:
                    outcome.latencies.append(time.perf_counter() - began)
                if wrong:
                    outcome.wrong.append(wrong)
        with lock:
            outcome.num_reopened += client.num_reopened
        client.close()

    threads = [threading.Thread(target=run) for _ in range(num_clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcome.seconds = time.perf_counter() - began
    return outcome


def difference(status: int, body: bytes, expected: Detected) -> str:
    """What differs between an answer and the detections expected, in words; "" if nothing does.

    Batches of other sizes add up in another order, which may exchange neighbours of almost the same score.
    """
    if status != 200:
        return f"status {status}: {body[:200]!r}"
    found = json.loads(body)["images"][0]["detections"]
    if abs(len(found) - len(expected)) > 1:
        return f"{len(found)} detections instead of {len(expected)}"
    left = list(found)
    missing = 0
    for each in expected:
        same = next((other for other in left if _is_same(each, other)), None)
        if same is None:
            missing += 1
        else:
            left.remove(same)
    return f"{missing} of {len(expected)} detections are missing" if missing > 1 else ""


def _is_same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    distance = max(abs(x - y) for x, y in zip(a["box"], b["box"], strict=True))
    return a["class"] == b["class"] and abs(a["score"] - b["score"]) < 1e-3 and distance < 0.05


# ---------------------------------------------------------------- the two sides


def write_model(folder: Path, config: Path, opts: Sequence[str]) -> Path:
    """Random weights whose scores are spread around the thresholds stored with them."""
    import torch

    from engine import build_model
    from engine.checkpoint import save
    from engine.config import load_config

    torch.manual_seed(0)
    names = [f"class {number + 1}" for number in range(NUM_CLASSES)]
    state = build_model(load_config(config, list(opts)), names).state_dict()
    for name, tensor in state.items():
        if "cls_logits.weight" in name:
            tensor.normal_(std=0.3)
    thresholds = {"classes": {name: {"threshold": 0.5} for name in names}}
    save(folder / "model.pth", {"format": "engine-1", "model": state, "class_names": names, "thresholds": thresholds})
    return folder / "model.pth"


def detect_directly(config: Path, weights: Path, opts: Sequence[str], threads: int, images: Sequence[bytes]) -> None:
    """Answer each line on stdin with images per second, and CPU seconds per image, of single calls and of lists.

    The first line on stdout has the detections.
    """
    import torch

    from engine import Predictor
    from engine.config import load_config
    from engine.data.results import to_dict

    torch.set_num_threads(threads)
    predictor = Predictor(load_config(config, list(opts)), weights)
    expected = [to_dict(predictor(each), predictor.class_names)["detections"] for each in images]
    print(json.dumps(expected), flush=True)
    for line in sys.stdin:
        count = int(line)
        chosen = [images[number % len(images)] for number in range(count)]
        answer = []
        for calls in (chosen, [chosen]):
            began, cpu_began = time.perf_counter(), time.process_time()
            for each in calls:
                predictor(each)
            answer += [count / (time.perf_counter() - began), (time.process_time() - cpu_began) / count]
        print(json.dumps(answer), flush=True)


@contextlib.contextmanager
def running(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.PIPE, text=True, **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def wait_until_ready(server: subprocess.Popen[str]) -> str:
    """The address of a server, once it answers."""
    url = ""
    for line in server.stdout:
        if found := re.search(r"http://\S+", line):
            url = found[0]
        if line.startswith("ready"):
            threading.Thread(target=server.stdout.read, daemon=True).start()
            return url
    raise SystemExit("the server has not started")


def workers_of(parent: int) -> list[Path]:
    """What the system knows of each worker of a server."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    folders = [Path("/proc", each) for each in children]
    return [each for each in folders if b"spawn_main" in (each / "cmdline").read_bytes()]


def worker_megabytes(parent: int) -> list[float]:
    """Resident memory of each worker."""
    pages = [int((each / "statm").read_text().split()[1]) for each in workers_of(parent)]
    return [each * os.sysconf("SC_PAGE_SIZE") / 1e6 for each in pages]


def worker_cpu_seconds(parent: int) -> float:
    """CPU time that all workers have used."""
    fields = [(each / "stat").read_text().rpartition(")")[2].split() for each in workers_of(parent)]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")  # in user and system mode


def measure(args: argparse.Namespace, weights: Path, images: Sequence[bytes], opts: Sequence[str]) -> dict[str, Any]:
    shared = ["--config-file", args.config_file, "--threads", args.threads, "--size", *args.size]
    direct_command = [__file__, "--direct", weights, *shared, "--images", args.images]
    limits = ["--timeout", args.timeout, "--max-batch", args.max_batch, "--port", "0", "--workers", args.workers]
    server_command = [REPOSITORY / "tools/serve.py", *shared[:4], "--weights", weights, *limits, *opts]
    rounds, memory, outcomes = [], [], []
    with running(direct_command, stdin=subprocess.PIPE) as direct, running(server_command) as server:
        expected = json.loads(direct.stdout.readline())
        url = wait_until_ready(server)
        load(url, images, expected, 2 * args.clients, args.clients)  # warm-up
        alone = load(url, images, expected, args.direct_images, 1)
        for _ in range(args.rounds):
            memory.append(worker_megabytes(server.pid))
            print(args.direct_images, file=direct.stdin, flush=True)
            speeds = json.loads(direct.stdout.readline())
            cpu_began = worker_cpu_seconds(server.pid)
            outcomes.append(load(url, images, expected, args.requests // args.rounds, args.clients, args.bad))
            cpu_seconds, num_answers = worker_cpu_seconds(server.pid) - cpu_began, outcomes[-1].statuses[200]
            rounds.append([*speeds, num_answers / outcomes[-1].seconds, cpu_seconds / num_answers])
        memory.append(worker_megabytes(server.pid))
        direct.stdin.close()
    single, single_cpu, listed, listed_cpu, served, served_cpu = map(statistics.median, zip(*rounds, strict=True))
    together = Outcome(latencies=[each for one in outcomes for each in one.latencies])
    return {
        "images_per_second": {"single": round(single, 2), "list": round(listed, 2), "server": round(served, 2)},
        "ratio": round(served / max(single, listed), 3),
        "cpu_ms_per_image": {
            "single": round(1000 * single_cpu, 1),
            "list": round(1000 * listed_cpu, 1),
            "server": round(1000 * served_cpu, 1),
        },
        "ms": {
            "p50": round(1000 * together.percentile(0.5), 1),
            "p99": round(1000 * together.percentile(0.99), 1),
            "p50 of one client": round(1000 * alone.percentile(0.5), 1),
        },
        "statuses": dict(sum((one.statuses for one in outcomes), Counter())),
        "reopened": sum(one.num_reopened for one in outcomes),
        "worker_MB": [[round(each) for each in row] for row in memory],
        "detections_per_image": round(statistics.mean(map(len, expected)), 1),
        "wrong": [each for one in (alone, *outcomes) for each in one.wrong][:10],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", type=Path, default=CONFIG, help="of the model (%(default)s)")
    parser.add_argument("--weights", type=Path, help="random ones by default")
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("H", "W"), help="of the images")
    parser.add_argument("--images", type=int, default=8, metavar="N", help="different ones")
    parser.add_argument("--requests", type=int, default=400, metavar="N")
    parser.add_argument("--rounds", type=int, default=4, metavar="N", help="that the requests are spread over")
    parser.add_argument("--direct-images", type=int, default=24, metavar="N", help="of the Predictor in each round")
    parser.add_argument("--clients", type=int, default=16, metavar="N")
    parser.add_argument("--bad", type=float, default=0.0, metavar="SHARE", help="of the requests")
    parser.add_argument("--workers", type=int, default=1, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the Predictor and of each worker")
    parser.add_argument("--timeout", type=float, default=60, metavar="S", help="of the server, and of slow clients")
    parser.add_argument("--max-batch", type=int, default=8, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--direct", type=Path, help=argparse.SUPPRESS)  # weights: be the process of the Predictor
    args = parser.parse_args()
    images = pictures(args.images, *args.size)
    sides = ["INPUT.MIN_SIZE_TEST", str(min(args.size)), "INPUT.MAX_SIZE_TEST", str(max(args.size))]
    opts = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHT", "", *sides]
    if args.direct:
        return detect_directly(args.config_file, args.direct, opts, args.threads, images)
    with tempfile.TemporaryDirectory() as folder:
        weights = args.weights or write_model(Path(folder), args.config_file, opts)
        result = measure(args, weights, images, opts)
    text = json.dumps(result, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text, encoding="utf-8")
    sys.exit(bool(result["wrong"]) or result["ratio"] < LEAST_RATIO)


if __name__ == "__main__":
    main()
