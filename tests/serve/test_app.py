"""What is answered to which request, without a network."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import struct
import tracemalloc
import weakref
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest

from engine.serve.limits import Limits
from tests.serve.conftest import Client, encoded, play, until
from tests.serve.fake import KEPT, NAMES, FakePredictor

JPEG = encoded()
PNG = encoded(suffix=".png")


def png_of(width: int, height: int) -> bytes:
    """The start of a PNG with a right checksum that declares so many pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + PNG[33:]


def as_base64(*images: bytes) -> list[str]:
    return [base64.b64encode(each).decode() for each in images]


def found(entry: dict) -> list[tuple[str, float]]:
    return [(each["class"], each["score"]) for each in entry["detections"]]


async def answered(client: Client, response: httpx.Response, names: list[str | None]) -> list[dict]:
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["model"] == {"name": "model.pth", "hash": "0123456789abcdef"} and answer["milliseconds"] > 0
    assert [each["name"] for each in answer["images"]] == names
    assert [each["index"] for each in answer["images"]] == list(range(len(names)))
    return answer["images"]


@pytest.mark.parametrize("kind", ["image/jpeg", "image/png", "application/octet-stream", "IMAGE/JPEG; q=1", ""])
def test_bytes_of_an_image(kind: str) -> None:
    async def scenario(client: Client) -> None:
        (image,) = await answered(client, await client.detect(JPEG, kind), [None])
        assert (image["height"], image["width"]) == (40, 60) and found(image) == KEPT
        assert image["detections"][1] == {"label": 1, "class": NAMES[1], "score": 0.6, "box": [0, 0, 30, 20]}

    play(scenario)


def test_files_of_a_form() -> None:
    async def scenario(client: Client) -> None:
        files = [("images", ("划.jpg", JPEG, "image/jpeg")), ("other", ("../../b.png", PNG, "text/plain"))]
        images = await answered(client, await client.http.post("/detect", files=files), ["划.jpg", "../../b.png"])
        assert [found(each) for each in images] == [KEPT, KEPT]

    play(scenario)


@pytest.mark.parametrize("one", [True, False])
def test_base64(one: bool) -> None:
    async def scenario(client: Client) -> None:
        texts = as_base64(JPEG) if one else [*as_base64(JPEG), "data:image/png;base64," + as_base64(PNG)[0]]
        content = {"image": texts[0]} if one else {"images": texts}
        images = await answered(client, await client.http.post("/detect", json=content), [None] * len(texts))
        assert all(found(each) == KEPT for each in images)

    play(scenario)


def test_images_of_a_request_are_refused_one_by_one() -> None:
    async def scenario(client: Client) -> None:
        texts = as_base64(JPEG, b"%PDF-1.7 and more", JPEG[:-20], png_of(70_000, 70_000), b"", PNG)
        response = await client.http.post("/detect", json={"images": texts})
        images = await answered(client, response, [None] * 6)
        assert [each.get("error", {}).get("status") for each in images] == [None, 415, 422, 413, 400, None]
        assert "PDF" in images[1]["error"]["message"] and images[1]["error"]["reason"] == "Unsupported Media Type"
        assert client.figure('engine_images_total{outcome="refused"}') == 4
        assert client.figure('engine_images_total{outcome="detected"}') == 2

    play(scenario)


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("", KEPT),
        ("?threshold=0.05", [*KEPT, (NAMES[1], 0.1)]),
        ("?threshold=0.9", KEPT[:1]),
        ("?threshold=1", []),
        ("?max_detections=2", KEPT[:2]),
        ("?threshold=0&max_detections=1", KEPT[:1]),
    ],
)
def test_options(query: str, kept: list[tuple[str, float]]) -> None:
    async def scenario(client: Client) -> None:
        (image,) = (await client.http.post(f"/detect{query}", content=JPEG)).json()["images"]
        assert found(image) == kept

    play(scenario)


@pytest.mark.parametrize(
    ("body", "kind", "query", "status", "words"),
    [
        (b"", "image/jpeg", "", 400, "empty"),
        (b"", "application/json", "", 400, "empty"),
        (b"{", "application/json", "", 400, "not JSON"),
        (b"[" * 100_000, "application/json", "", 400, "not JSON"),
        (b"\xff\xfe", "application/json", "", 400, "not JSON"),
        (b"[]", "application/json", "", 400, "must be"),
        (b'{"images": []}', "application/json", "", 400, "must be"),
        (b'{"images": [1]}', "application/json", "", 400, "must be"),
        (b'{"image": null}', "application/json", "", 400, "must be"),
        (b'{"path": "/etc/passwd"}', "application/json", "", 400, "must be"),
        (b'{"image": "/etc/passwd", "more": 1}', "application/json", "", 400, "must be"),
        (b'{"image": "file:///etc/passwd"}', "application/json", "", 400, "base64"),
        (b'{"image": "/etc/passwd"}', "application/json", "", 400, "base64"),
        (b'{"image": "\xc3\xa9"}', "application/json", "", 400, "base64"),
        (b"--x\r\n", "multipart/form-data", "", 400, "boundary"),
        (b"nonsense", "multipart/form-data; boundary=x", "", 400, "multipart"),
        (b"--x--\r\n", "multipart/form-data; boundary=x", "", 400, "no file"),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n0.5\r\n--x--\r\n',
         "multipart/form-data; boundary=x", "", 400, "not a file"),
        (b'--x\r\nContent-Disposition: form-data; name="a"; filename="a.jpg"\r\n\r\n' + JPEG,
         "multipart/form-data; boundary=x", "", 400, "last boundary"),
        (JPEG, "application/x-www-form-urlencoded", "", 415, "image/jpeg"),
        (JPEG, "text/plain", "", 415, "image/jpeg"),
        (b"hello", "image/jpeg", "", 415, "not an image"),
        (b"<svg></svg>", "image/svg+xml", "", 415, "SVG"),
        (b"P6 2 2 255 " + bytes(12), "image/x-portable-pixmap", "", 415, "send JPEG"),
        (JPEG[:-20], "image/jpeg", "", 422, "truncated"),
        (JPEG[:30], "image/jpeg", "", 422, "truncated"),
        (PNG[:-30], "image/png", "", 422, "truncated"),
        (png_of(70_000, 70_000), "image/png", "", 413, "pixels"),
        (png_of(1000, 1001), "image/png", "", 413, "1001 pixels"),
        (png_of(1000, 1000), "image/png", "", 422, ""),  # within the limit, but its pixels are missing
        (JPEG, "image/jpeg", "?threshold=2", 422, "threshold"),
        (JPEG, "image/jpeg", "?threshold=nan", 422, "threshold"),
        (JPEG, "image/jpeg", "?threshold=high", 422, "threshold"),
        (JPEG, "image/jpeg", "?max_detections=0", 422, "max_detections"),
        (JPEG, "image/jpeg", "?treshold=0.5", 422, "treshold"),
        (JPEG, "image/jpeg", "?path=/etc/passwd", 422, "path"),
    ],
)  # fmt: skip
def test_what_is_refused(body: bytes, kind: str, query: str, status: int, words: str) -> None:
    async def scenario(client: Client) -> None:
        response = await client.http.post(f"/detect{query}", content=body, headers={"content-type": kind})
        assert response.status_code == status, response.text
        error = response.json()["error"]
        assert error["status"] == status and words in error["message"] and "\n" not in error["message"]
        assert not client.predictor.batches
        assert client.figure(f'engine_requests_total{{path="/detect",status="{status}"}}') == 1
        assert (await client.detect(JPEG)).status_code == 200

    play(scenario, Limits(max_pixels=1_000_000))


def test_a_compressed_body_is_refused() -> None:
    async def scenario(client: Client) -> None:
        headers = {"content-type": "image/jpeg", "content-encoding": "gzip"}
        assert (await client.http.post("/detect", content=JPEG, headers=headers)).status_code == 415

    play(scenario)


def test_a_large_body_is_refused_before_it_is_read() -> None:
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1000
            yield bytes(1000)

    async def scenario(client: Client) -> None:
        declared = await client.detect(bytes(20_001))
        streamed = await client.detect(chunks())
        assert (declared.status_code, streamed.status_code) == (413, 413) and read <= 22_000
        assert "0.02 megabytes" in declared.json()["error"]["message"]

    play(scenario, Limits(max_bytes=20_000))


def test_too_many_images_at_once() -> None:
    async def scenario(client: Client) -> None:
        response = await client.http.post("/detect", json={"images": as_base64(*[JPEG] * 4)})
        assert response.status_code == 413 and "4 images" in response.json()["error"]["message"]
        files = [("images", ("a.jpg", JPEG, "image/jpeg"))] * 4
        assert (await client.http.post("/detect", files=files)).status_code == 400

    play(scenario, Limits(max_queue=3))


def test_a_slow_body() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield JPEG[:100]
        await asyncio.sleep(5)
        yield JPEG[100:]

    async def scenario(client: Client) -> None:
        response = await client.detect(chunks())
        assert response.status_code == 408 and "0.3 seconds" in response.json()["error"]["message"]

    play(scenario, Limits(timeout=0.3))


def test_a_full_queue() -> None:
    async def scenario(client: Client) -> None:
        client.predictor.gate.clear()
        waiting = [asyncio.create_task(client.detect(JPEG)) for _ in range(2)]
        await until(lambda: client.service.num_waiting == 2)
        one = await client.detect(JPEG)
        assert one.status_code == 429 and int(one.headers["retry-after"]) >= 1
        assert client.figure("engine_queue_images") == 2 and client.figure("engine_requests_in_flight") == 2
        client.predictor.gate.set()
        assert [each.status_code for each in await asyncio.gather(*waiting)] == [200, 200]
        both = await client.http.post("/detect", json={"images": as_base64(JPEG, JPEG)})
        assert both.status_code == 200 and client.figure("engine_queue_images") == 0

    play(scenario, Limits(max_queue=2))


def test_room_for_all_images_of_a_request_or_none() -> None:
    async def scenario(client: Client) -> None:
        client.predictor.gate.clear()
        waiting = asyncio.create_task(client.detect(JPEG))
        await until(lambda: client.service.num_waiting == 1)
        response = await client.http.post("/detect", json={"images": as_base64(JPEG, JPEG)})
        assert response.status_code == 429 and client.service.num_waiting == 1
        client.predictor.gate.set()
        assert (await waiting).status_code == 200

    play(scenario, Limits(max_queue=2))


def test_an_answer_that_takes_too_long() -> None:
    async def scenario(client: Client) -> None:
        client.predictor.gate.clear()
        response = await client.detect(JPEG)
        assert response.status_code == 503 and response.headers["retry-after"]
        client.predictor.gate.set()
        assert (await client.detect(JPEG)).status_code == 200 and client.service.num_waiting == 0

    play(scenario, Limits(timeout=3.0))


def test_concurrent_requests_go_together() -> None:
    async def scenario(client: Client) -> None:
        responses = await asyncio.gather(*(client.detect(JPEG) for _ in range(8)))
        assert all(found(each.json()["images"][0]) == KEPT for each in responses)
        assert max(map(len, client.predictor.batches)) > 1
        batches = client.figure("engine_batch_images_count")
        assert batches == len(client.predictor.batches) < 8 and client.figure("engine_batch_images_sum") == 8

    play(scenario, Limits(max_batch=4, max_delay=0.5))


def test_a_model_that_fails() -> None:
    async def scenario(client: Client) -> None:
        client.predictor.fails = RuntimeError("secret words")
        response = await client.detect(JPEG)
        assert response.status_code == 500 and "secret" not in response.text
        client.predictor.fails = None
        assert (await client.detect(JPEG)).status_code == 200

    play(scenario)


def test_a_network_that_does_not_come_back() -> None:
    async def scenario(client: Client) -> None:
        assert (await client.http.get("/health")).json() == {"status": "alive"}
        client.predictor.gate.clear()
        assert (await client.detect(JPEG)).status_code == 503
        await until(lambda: client.service.seconds_in_network > 1)
        health = await client.http.get("/health")
        assert (health.status_code, health.json()) == (503, {"status": "stuck"})
        client.predictor.gate.set()
        await until(lambda: not client.service.seconds_in_network)
        assert (await client.http.get("/health")).status_code == 200

    play(scenario, Limits(timeout=1.0))


async def refused(client: Client, parts: list[bytes]) -> int:
    """The status for a body that arrives in these parts, and is kept by nobody else; `parts` is emptied."""
    sent = []

    async def receive() -> dict:
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: dict) -> None:
        sent.append(message)

    head = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "root_path": ""}
    scope = head | {"path": "/detect", "raw_path": b"/detect", "query_string": b"", "headers": []}
    await client.app(scope, receive, send)
    return sent[0]["status"]


@pytest.mark.parametrize(("start", "size", "status"), [(b"", 9, 415), (PNG[:-30], 9, 422), (JPEG, 11, 413)])
def test_a_refused_body_is_let_go(start: bytes, size: int, status: int) -> None:
    """Without the help of the garbage collector, which comes seldom to a process with a model in it."""
    tenth = 100_000

    async def scenario(client: Client) -> None:
        assert await refused(client, [b"x"]) == 415  # what is built once
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(5):
                assert await refused(client, [start, *(bytes(tenth) for _ in range(size))]) == status
            assert tracemalloc.get_traced_memory()[0] < 2 * size * tenth  # the thread that decodes keeps the last one
        finally:
            tracemalloc.stop()
            gc.enable()

    play(scenario, Limits(max_bytes=10 * tenth))


def test_starting_and_stopping() -> None:
    async def scenario(client: Client) -> None:
        get = client.http.get
        assert (await get("/health")).status_code == 200 and (await get("/ready")).status_code == 503
        assert (await get("/model")).status_code == 503
        refused = await client.detect(JPEG)
        assert refused.status_code == 503 and refused.headers["retry-after"]
        await client.service.start()
        assert (await get("/ready")).json() == {"status": "starting"}
        client.service.open()
        assert (await get("/ready")).status_code == 200 and (await client.detect(JPEG)).status_code == 200
        client.service.stop()
        assert (await get("/ready")).status_code == 503 and (await client.detect(JPEG)).status_code == 503
        assert (await get("/health")).status_code == 200
        client.service.open()
        assert (await get("/ready")).status_code == 503

    play(scenario, is_open=False)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Basic schlüssel"}, 401),
        ({"x-api-key": "a ke"}, 401),
        ({"x-api-key": "a key"}, 200),
        ({"authorization": "Bearer a key"}, 200),
        ({"authorization": "bearer  a key"}, 200),
    ],
)
def test_a_key(headers: dict[str, str], status: int) -> None:
    raw = {name: value.encode() for name, value in headers.items()}

    async def scenario(client: Client) -> None:
        for path in ("/model", "/metrics"):
            assert (await client.http.get(path, headers=raw)).status_code == status
        response = await client.http.post("/detect?threshold=9", content=JPEG, headers=raw)
        assert response.status_code == (422 if status == 200 else 401)
        response = await client.http.post("/detect", content=JPEG, headers=raw)
        assert response.status_code == status
        assert response.headers.get("www-authenticate") == (None if status == 200 else "Bearer")
        for path in ("/", "/docs", "/health", "/ready", "/openapi.json"):
            assert (await client.http.get(path)).status_code == 200

    play(scenario, api_key="a key")


def test_other_addresses_and_methods() -> None:
    async def scenario(client: Client) -> None:
        missing = await client.http.get("/../../etc/passwd")
        assert missing.status_code == 404 and missing.json()["error"]["status"] == 404
        assert (await client.http.get("/detect")).status_code == 405
        assert client.figure('engine_requests_total{path="other",status="404"}') == 1

    play(scenario)


def test_the_card_of_the_model() -> None:
    async def scenario(client: Client) -> None:
        card = (await client.http.get("/model")).json()
        assert card["name"] == "model.pth" and card["hash"] == "0123456789abcdef" and card["min_size"] == 96
        first = {"label": 0, "name": "hole", "threshold": 0.3, "color": [255, 77, 79]}
        assert card["classes"][0] == first and card["classes"][1]["name"] == NAMES[1]

    play(scenario)


def test_the_description_names_every_status_and_body() -> None:
    async def scenario(client: Client) -> None:
        detect = (await client.http.get("/openapi.json")).json()["paths"]["/detect"]["post"]
        assert {"200", "400", "401", "408", "413", "415", "422", "429", "503"} <= set(detect["responses"])
        kinds = {"image/*", "application/octet-stream", "multipart/form-data", "application/json"}
        assert set(detect["requestBody"]["content"]) == kinds
        assert [each["name"] for each in detect["parameters"]] == ["threshold", "max_detections"]
        json.dumps(detect)

    play(scenario)


def test_a_replaced_model_leaves_the_memory() -> None:
    async def scenario(client: Client) -> None:
        before = client.predictor
        before.itself = before  # as the modules of a network refer to each other
        alive = weakref.ref(before)
        del before
        assert (await client.detect(JPEG)).status_code == 200
        client.predictor = FakePredictor()
        await client.service.reload()
        assert alive() is None and (await client.detect(JPEG)).status_code == 200

    play(scenario)


def test_a_new_model_answers_while_the_old_one_ends() -> None:
    async def scenario(client: Client) -> None:
        old = client.predictor
        old.gate.clear()
        begun = asyncio.create_task(client.detect(JPEG))
        await until(lambda: client.service.num_waiting == 1)
        client.predictor = type(old)(("dent", "scratch"))
        reloading = asyncio.create_task(client.service.reload())
        await until(lambda: client.service.model.predictor is client.predictor)
        assert found((await client.detect(JPEG)).json()["images"][0])[0][0] == "dent"
        assert not reloading.done()
        old.gate.set()
        assert found((await begun).json()["images"][0])[0][0] == "hole"
        await reloading
        assert client.figure('engine_model_reloads_total{outcome="loaded"}') == 1

    play(scenario)


def test_a_new_model_that_fails_is_not_taken(said: pytest.LogCaptureFixture) -> None:
    async def scenario(client: Client) -> None:
        client.predictor = type(client.predictor)()
        client.predictor.fails = RuntimeError("no such layer")
        await client.service.reload()
        assert found((await client.detect(JPEG)).json()["images"][0]) == KEPT
        assert client.figure('engine_model_reloads_total{outcome="failed"}') == 1
        assert "the one before stays: model.pth fails on an image: RuntimeError: no such layer" in said.text

    play(scenario)
