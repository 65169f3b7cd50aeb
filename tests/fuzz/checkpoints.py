"""Checkpoints of our formats and of others, loaded in all the ways that a file of weights takes."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import runpy
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml

from engine.assembly.detector import Predictor
from engine.assembly.model import build_model
from engine.assembly.training import train
from engine.checkpoint import io as checkpoint_io
from engine.checkpoint import load_weights, read_weights, store_thresholds
from engine.checkpoint.checkpointer import Checkpointer
from engine.config import load_config
from engine.log import setup_logging
from tests.fuzz.example import Example, Kind
from tests.fuzz.mutate import TEXTS, change, change_bytes, odd_value
from tests.fuzz.valid import CONFIG, picture, random_of, write_dataset

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ["破洞", "stain"]
MAX_NUMBERS = 10**5  # of a tensor that is copied; an expanded one may state far more
MARKER = "EXECUTED"  # what a pickle that is run would create


class Attack:
    """A pickle that creates a file when it is loaded without restrictions."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


ATTACKS = [
    Attack(os.system, f"touch {MARKER}"),
    Attack(exec, f"open({MARKER!r}, 'w')"),
    Attack(open, MARKER, "w"),
    Attack(Path.touch, Path(MARKER)),
    Attack(np.save, MARKER, 1),
    Attack(torch.save, 1, MARKER),
    Attack(bytearray, 10**11),
    Attack(np.zeros, 10**11),
    Attack(torch.nn.Linear, 2, 2),
]


class Checkpoints:
    """See the text at the head of the file."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.valid = seed, folder
        write_dataset(folder)
        (folder / "c.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
        os.chdir(folder)
        setup_logging()
        self.cfg = load_config("c.yaml")
        train(self.cfg)  # two steps: out/model_final.pth
        self.model = build_model(self.cfg, CLASSES)
        self.state = torch.load("out/model_final.pth", weights_only=True)
        self.state["thresholds"] = {
            "iou": 0.5,
            "beta": 1.0,
            "classes": {name: {"threshold": 0.2, "f_measure": 0.5, "num_gt": 3} for name in CLASSES},
        }
        self.state["conventions"] = {"MODEL.PIXEL_CONVENTION": "continuous", "INPUT.PIXEL_STD": (1.0, 1.0, 1.0)}
        shutil.rmtree("out")
        self.mains = {
            name: runpy.run_path(str(REPOSITORY / f"tools/{name}.py"))["main"]
            for name in ("convert_weights", "publish_model", "average_checkpoints")
        }
        self.ways = [self._load, self._load, self._weights, self._predictor, self._convert, self._publish]
        self.ways += [self._average, self._resume, self._last, self._store]

    def example(self, number: int, folder: Path) -> Example:
        random = random_of("checkpoints", self.seed, number)
        shutil.copytree(self.valid, folder, dirs_exist_ok=True)
        data = self._changed(random)
        (folder / "out").mkdir()
        name = random.choice(["w.pth", "w.pth", "w.pth", "w.pt", "w.pkl", "w.safetensors", "w"])
        way = random.choice(self.ways)
        if way in (self._resume, self._last):
            name = "model_0000001.pth"
            pointer = name if random.random() < 0.9 else random.choice(TEXTS)
            (folder / "out" / "last_checkpoint").write_bytes(pointer.encode("utf-8", "surrogatepass"))
        path = folder / "out" / name
        path.write_bytes(data)
        return way(random, path)

    # ------------------------------------------------------------ files

    def _changed(self, random: Random) -> bytes:
        """The content of a file: another state in a right file, or a damaged file."""
        kind = random.random()
        if kind < 0.45:
            return self._file(random, self._changed_state(random))
        if kind < 0.55:
            return self._file(random, self._foreign(random))
        if kind < 0.65:
            state = copy.copy(self.state)
            state[random.choice([*state, "x"])] = random.choice(ATTACKS)
            return _pickled(random, random.choice([state, random.choice(ATTACKS), {"model": random.choice(ATTACKS)}]))
        data = self._file(random, self.state if random.random() < 0.8 else self._foreign(random))
        if data.startswith(b"PK") and kind < 0.9:
            return _changed_archive(random, data)
        return change_bytes(random, data)

    def _changed_state(self, random: Random) -> dict[Any, Any]:
        state = dict(self.state)
        for key in ("model", "optimizer", "training_model"):
            if key in state and random.random() < 0.3:
                state[key] = dict(state[key])
        if random.random() < 0.6:
            model = dict(state["model"])
            for _ in range(random.choice([1, 1, 2, 5, 50])):
                name = random.choice(list(model))
                model[name] = changed_tensor(random, model[name]) if random.random() < 0.8 else odd_value(random)
            if random.random() < 0.1:
                model[random.choice([*TEXTS, 1, None, ("a",)])] = torch.ones(2)
            state["model"] = model
        if random.random() < 0.6:
            rest = [key for key in state if key != "model"]
            key = random.choice([*rest, "class_names", "thresholds", "conventions", "iteration", "config", "hooks"])
            state[key] = change(random, state[key]) if random.random() < 0.7 and key in state else odd_value(random)
        if random.random() < 0.1:
            del state[random.choice(list(state))]
        return state

    def _foreign(self, random: Random) -> Any:
        """Names and shapes of other projects, right or changed."""
        ones, stem = torch.ones, torch.ones(4, 3, 7, 7)
        layouts = [
            {"blobs": {"conv1_w": np.ones((4, 3, 7, 7), np.float32), "res2_0_branch2a_w": np.ones((4, 4, 1, 1))}},
            {"state_dict": {"backbone.conv1.weight": stem, "bbox_head.atss_cls.weight": ones(2, 32, 3, 3)},
             "meta": {"CLASSES": CLASSES, "mmdet_version": "2.0"}},
            {"model": {"backbone.bottom_up.stem.conv1.weight": stem, "head.cls_score.weight": ones(2, 32, 3, 3)},
             "__author__": "Detectron2"},
            {"model": {"module.backbone.body.stem.conv1.weight": stem}, "iteration": 3},
            {"conv1.weight": stem, "layer1.0.bn1.running_var": ones(4), "fc.weight": ones(10, 8)},
            {"backbone.body.conv1.weight": stem, "head.classification_head.cls_logits.bias": ones(9)},
        ]  # fmt: skip
        state = copy.deepcopy(random.choice(layouts))
        holder = next((state[key] for key in ("blobs", "state_dict", "model") if key in state), state)
        for name in list(holder):
            if random.random() < 0.5 and isinstance(holder[name], torch.Tensor):
                holder[name] = changed_tensor(random, holder[name])
        return change(random, state) if random.random() < 0.5 else state

    def _file(self, random: Random, state: Any) -> bytes:
        """`state` in one of the formats; the plainest one where another cannot hold it."""
        kind = random.randrange(8)
        buffer = io.BytesIO()
        if kind == 0 and isinstance(state, dict) and isinstance(state.get("model"), dict):
            tensors = {str(k): v for k, v in state["model"].items() if type(v) is torch.Tensor}
            tensors = {k: v for k, v in tensors.items() if v.layout == torch.strided and v.numel() < MAX_NUMBERS}
            rest = {str(k): json.dumps(v, default=str) for k, v in state.items() if k not in ("model", "optimizer")}
            rest = {k: v for k, v in rest.items() if k.isprintable()}
            try:
                return safetensors.torch.save({k: v.clone().contiguous() for k, v in tensors.items()}, rest)
            except Exception:  # it holds what the format cannot
                return safetensors.torch.save({"a": torch.ones(2)}, {"format": '"engine-1"', "class_names": "["})
        if kind == 1:
            torch.save(state, buffer, _use_new_zipfile_serialization=False)
            return buffer.getvalue()
        if kind == 2:
            return _pickled(random, _as_arrays(state))
        torch.save(state, buffer)
        if kind == 3:  # with our seal
            path = self.valid / "sealed.tmp"
            path.write_bytes(buffer.getvalue())
            checkpoint_io._seal(path)
            data = path.read_bytes()
            path.unlink()
            return data
        return buffer.getvalue()

    # ------------------------------------------------------------ ways to load them

    def _load(self, random: Random, path: Path) -> Example:
        mmap = random.random() < 0.5
        return Example("load", lambda: checkpoint_io.load(path, mmap), (path.name,))

    def _weights(self, random: Random, path: Path) -> Example:
        before = copy.deepcopy(self.model.state_dict())

        def run() -> None:
            self.model.load_state_dict(before)
            load_weights(self.model, read_weights(path))

        return Example("load_weights", run, (path.name,))

    def _predictor(self, random: Random, path: Path) -> Example:
        def run() -> None:
            predictor = Predictor("c.yaml", path)
            predictor(picture())

        return Example("Predictor", run, (path.name, "NUM_CLASSES"))

    def _convert(self, random: Random, path: Path) -> Example:
        command = [str(path), random.choice(["out/new.pth", "out/new.safetensors"])]
        command += random.choice(
            [[], ["--from", "mmdetection"], ["--from", "torchvision"], ["--class-names", "a", "b"]]
        )
        command += ["--config-file", "c.yaml"] if random.random() < 0.5 else []
        return Example(
            "convert", lambda: self.mains["convert_weights"](command), (path.name, "NUM_CLASSES"), (command[1],)
        )

    def _publish(self, random: Random, path: Path) -> Example:
        command = [str(path), "published/", *(["--safetensors"] if random.random() < 0.5 else [])]
        return Example("publish", lambda: self.mains["publish_model"](command), (path.name,), ("published",))

    def _average(self, random: Random, path: Path) -> Example:
        torch.save(self.state, path.parent / "good.pth")
        paths = random.choice([[str(path)], ["out/good.pth", str(path)], [str(path), str(path)]])
        command = ["new.pth", *paths]
        return Example("average", lambda: self.mains["average_checkpoints"](command), (path.name,), ("new.pth",))

    def _resume(self, random: Random, path: Path) -> Example:
        def run() -> None:
            train(load_config("c.yaml", ["OUTPUT_DIR", "out"]), resume=True)

        return Example("resume", run, ("out", path.name), ("out",))

    def _last(self, random: Random, path: Path) -> Example:
        return Example("last checkpoint", Checkpointer(path.parent).load_last, (path.name, "out"))

    def _store(self, random: Random, path: Path) -> Example:
        thresholds = {"iou": 0.5, "classes": {}}
        return Example(
            "store thresholds", lambda: store_thresholds(path, thresholds), (path.name,), (f"out/{path.name}",)
        )


def changed_tensor(random: Random, value: torch.Tensor) -> Any:
    """A tensor of another shape, type, layout or size, or with numbers that are none."""
    if not isinstance(value, torch.Tensor) or value.numel() > MAX_NUMBERS or value.is_quantized or value.is_sparse:
        # It was changed before.
        return value
    kind = random.randrange(14)
    shape = list(value.shape)
    if kind == 0:
        return value.float().new_full(
            shape, random.choice([float("nan"), float("inf"), 1e38]) if value.is_floating_point() else 0
        )
    if kind == 1:
        return torch.zeros([*shape, 1])
    if kind == 2:
        return torch.zeros([max(side + random.choice([-1, 1, 3]), 0) for side in shape])
    if kind == 3:
        return value.to(
            random.choice([torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
        )
    if kind == 4:
        return torch.zeros(shape, dtype=torch.complex64)
    if kind == 5:
        return torch.zeros(random.choice([(0,), (), (1,), (0, 5), (1,) * 30]))
    if kind == 6:
        return torch.zeros(shape).to_sparse() if shape else value
    if kind == 7:  # far more numbers than the file holds
        return torch.zeros(1).expand(random.choice([[10**6], [10**9], [10**5, 10**7], [2**31, 2**31]]))
    if kind == 8:
        return torch.as_strided(torch.zeros(100), [9, 9], [1, 1])
    if kind == 9:
        return random.choice([value.detach().float().numpy(), value.tolist()])
    if kind == 10:
        return torch.nn.Parameter(value) if value.is_floating_point() else value
    if kind == 11:
        return torch.quantize_per_tensor(torch.zeros(max(shape, default=1)), 0.1, 0, torch.qint8)
    if kind == 12:
        return torch.zeros(shape).to(random.choice([torch.float8_e4m3fn, torch.float8_e5m2]))
    return value.t() if value.dim() == 2 else value[:0] if shape else value


def _changed_archive(random: Random, data: bytes) -> bytes:
    """A zip archive with right checksums and other entries."""
    source, buffer = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    entries = [(name, source.read(name)) for name in source.namelist()]
    kind = random.randrange(7)
    pickles = [k for k, (name, _) in enumerate(entries) if name.endswith("data.pkl")]
    if kind <= 2 and pickles:
        name, content = entries[pickles[0]]
        entries[pickles[0]] = name, change_bytes(random, content)
    elif kind == 3:
        del entries[random.randrange(len(entries))]
    elif kind == 4:
        k = random.randrange(len(entries))
        entries[k] = entries[k][0], change_bytes(random, entries[k][1] or b"\0")
    elif kind == 5:
        k = random.randrange(len(entries))
        name = random.choice(["../x", "/tmp/x", "data.pkl", "archive/data.pkl", "é", "a" * 500, entries[k][0] + "x"])
        entries[k] = name, entries[k][1]
    else:
        entries.append((random.choice(["constants.pkl", "code/x.py", "x/data.pkl", "../x"]), b"x" * 100))
    packing = random.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def _pickled(random: Random, state: Any) -> bytes:
    buffer = io.BytesIO()
    if random.random() < 0.5:
        torch.save(state, buffer, _use_new_zipfile_serialization=random.random() < 0.7)
    else:
        pickle.dump(state, buffer, protocol=random.choice([0, 1, 2, 4]))
    return buffer.getvalue()


def _as_arrays(value: Any) -> Any:
    """Tensors as NumPy arrays, as Caffe2 has them."""
    if isinstance(value, dict):
        return {key: _as_arrays(each) for key, each in value.items()}
    if isinstance(value, torch.Tensor):
        value = value.detach()
        is_plain = (
            value.layout == torch.strided
            and value.dtype in (torch.float32, torch.int64)
            and value.numel() < MAX_NUMBERS
        )
        return value.numpy() if is_plain else np.ones(3, np.float32)
    return value


def build(seed: int, folder: Path) -> Kind:
    return Checkpoints(seed, folder)
