"""What `tools/serve.py` refuses, and how it loads a model."""

from __future__ import annotations

import importlib.util
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Predictor
from engine.assembly.serving import ModelLoader, check_installed, serve
from engine.config import load_config
from engine.errors import InputError
from engine.serve.limits import Limits
from engine.serve.model import check_model, file_digest
from engine.serve.supervisor import address_of, open_port
from tests.conftest import smooth_image
from tests.end_to_end.conftest import run
from tests.runtime.conftest import CARD, write_onnx
from tests.serve.fake import FakePredictor, Found, fake_model
from tests.serve.world import write_config, write_model


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    with pytest.raises(
        InputError, match=re.escape("the server needs uvicorn, not installed here: pip install 'engine[serve]'")
    ):
        check_installed()


@pytest.mark.parametrize("key", ["", " ", "schlüssel", "a\nb"])
def test_keys_that_no_client_could_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("ENGINE_API_KEY", key)
    with pytest.raises(InputError, match="ENGINE_API_KEY must be"):
        serve(load_config(write_config(tmp_path)), "model.pth", "127.0.0.1", 0, Limits(), 1, 1)


def test_ports() -> None:
    with open_port("127.0.0.1", 0) as first:
        port = int(address_of(first).rpartition(":")[2])
        with pytest.raises(InputError, match=f"127.0.0.1:{port} cannot be listened on .*name another --port"):
            open_port("127.0.0.1", port)
    with pytest.raises(InputError, match="--host no.such.host.invalid: no such address"):
        open_port("no.such.host.invalid", 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "70000"], "argument --port: must be between 0 and 65535, not 70000"),
        (["--workers", "0"], "argument --workers: must be between 1 and 256, not 0"),
        (["--max-megabytes", "many"], "argument --max-megabytes: invalid number value: 'many'"),
        (["--timeout", "nan"], "argument --timeout: must be between 0.1 and 3600, not nan"),
        (["MODEL.NO_SUCH_KEY", "1"], "unknown key MODEL.NO_SUCH_KEY"),
    ],
)
def test_mistakes_in_the_command(tmp_path: Path, options: list[str], words: str) -> None:
    command = ["tools/serve.py", "--config-file", write_config(tmp_path), "--weights", "model.pth", *options]
    done = run(command)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    done = run(["tools/serve.py", "--config-file", write_config(tmp_path), "--weights", "no.pth", "--port", "0"])
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: ") and "no.pth" in line


def test_a_checkpoint_is_loaded_in_another_process(tmp_path: Path) -> None:
    """As pickled for a worker; all candidates come, and the stored thresholds beside them."""
    config = write_config(tmp_path)
    weights = write_model(config, tmp_path / "m.pth")
    model = pickle.loads(pickle.dumps(ModelLoader(load_config(config), str(weights), 1, 1)))()
    check_model(model)
    image = smooth_image(60, 80)
    (found,) = model.predictor([image])
    expected = Predictor(config, weights)(image)
    assert len(found) == 20 > len(model.detections(found)) == len(expected) > 0
    assert [each["label"] for each in model.detections(found)] == expected.labels.tolist()
    assert model.thresholds == pytest.approx((0.7, 0.71, 0.72)) and model.digest == file_digest(weights)


def test_an_exported_file(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    sizes = ["INPUT.MIN_SIZE_TEST", str(CARD.images.min_size), "INPUT.MAX_SIZE_TEST", str(CARD.images.max_size)]
    cfg = load_config(write_config(tmp_path), [*sizes, "TEST.IMS_PER_BATCH", "8"])
    model = ModelLoader(cfg, str(write_onnx(tmp_path / "m.onnx")), 1, 1)()
    check_model(model)
    (found,) = model.predictor([np.full((20, 40, 3), 255, np.uint8)])
    assert model.thresholds == (0.5, 0.3) and len(model.detections(found, threshold=0.0)) == 4
    assert [each["class"] for each in model.detections(found)] == ["hole", "stain"]  # 0.9 and 0.6; not 0.4 and 0.2


@pytest.mark.parametrize(
    "changes",
    [{"boxes": np.float32([[0, 0, np.nan, 1]])}, {"scores": np.float32([np.inf])}, {"labels": np.array([2])}],
)
def test_a_model_whose_answers_cannot_be_used(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    parts = {"boxes": np.float32([[0, 0, 1, 1]]), "scores": np.float32([0.5]), "labels": np.array([1])} | changes
    monkeypatch.setattr(FakePredictor, "_found", lambda self, *size: Found(**parts, size=size))
    with pytest.raises(InputError, match="model.pth gives boxes or scores"):
        check_model(fake_model(FakePredictor()))
