"""Configurations: a YAML file, a chain of `_BASE_`, or KEY VALUE pairs.

What is accepted is also printed; with one key changed, it also makes one training step and one detection.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml

from engine.assembly.data import build_train_loader
from engine.assembly.detector import build_detector
from engine.assembly.model import build_model
from engine.assembly.solver import build_optimizer, build_schedule, run_length
from engine.config import CfgNode, describe, get_cfg, load_config
from engine.config.declaration import Steps
from engine.config.keys import KEYS, MAPPINGS
from engine.config.tree import nested
from engine.structures import ImageBatch
from tests.fuzz.example import Example, Kind
from tests.fuzz.mutate import NUMBERS, TEXTS, change, change_bytes, change_lines, misspelt, odd_value
from tests.fuzz.valid import CONFIG, NAMES, picture, random_of, write_dataset

REPOSITORY = Path(__file__).resolve().parents[2]
PLACES = (".yaml", "command line", "in code")
CLASSES = ("破洞", "stain")
NOT_USED = {"DATASETS.ROOT", "OUTPUT_DIR", "IMPORTS", "DATALOADER.NUM_WORKERS", "MODEL.WEIGHT", "SOLVER.COMPILE"}
MAX_BATCH = 64  # images; a user may ask for as many as the memory holds
LAUGHS = 24  # levels of aliases, each twice in the next: 16 million values if they are written out

STRANGE_LINES = [
    "_BASE_: c.yaml", "_BASE_: ''", "_BASE_: [a, b]", "_BASE_: .", "_BASE_: /dev/zero", "_BASE_: nosuch.yaml",
    "_BASE_: ~/x.yaml", "_BASE_: x.py", "SOLVER: &a {<<: *a}", "? [a, b]\n: 1", "1: 2", "null: 1", "MODEL: *nosuch",
    "SOLVER: !!python/object/apply:os.system ['touch EXECUTED']", "!!python/name:os.system : 1", "SEED: !!int 'x'",
    "SEED: !!binary x", "SEED: 2024-02-30", "SEED: 1:30", "SEED: 0o17", "SEED: 010", "SEED: 0b12", "SEED: .nan",
    "SEED: !!float x", "SEED: '\\x'", "--- 1\n--- 2", "%YAML 9.9\n---", "SEED: |\n  x", "IMPORTS: ['os.path']",
    "IMPORTS: ['nosuch.module']", "IMPORTS: ['']", "SEED: __import__('os').system('touch EXECUTED')", "<<: 1", "=: 1",
]  # fmt: skip


class Configurations:
    """See the text at the head of the file."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.valid = seed, folder
        write_dataset(folder)
        paths = sorted((REPOSITORY / "configs").rglob("*.yaml"))
        defaults = describe.plain(get_cfg())
        published = [describe.difference(describe.plain(load_config(path)), defaults) for path in paths]
        self.trees = [CONFIG, CONFIG, *published]

    def example(self, number: int, folder: Path) -> Example:
        random = random_of("config", self.seed, number)
        tree = random.choice(self.trees)
        ways: list[Callable[..., Example]] = [self._value, self._value, self._tree, self._text, self._bytes]
        ways += [self._strange, self._chain, self._pairs, self._pairs, self._used]
        return random.choice(ways)(random, tree, folder)

    def _value(self, random: Random, tree: dict[str, Any], folder: Path) -> Example:
        """Known keys with strange values, in a file that is otherwise right."""
        keys = [random.choice(list(KEYS)) for _ in range(random.choice([1, 1, 2, 3]))]
        values = {key: fitting_or_odd(random, key) for key in keys}
        values = {key: value for key, value in values.items() if not any(o.startswith(f"{key}.") for o in values)}
        _write(folder / "b.yaml", _dump(random, CONFIG))
        _write(folder / "c.yaml", _dump(random, {"_BASE_": "b.yaml", **nested(values)}))
        return _loading("value of a key", folder / "c.yaml")

    def _used(self, random: Random, tree: dict[str, Any], folder: Path) -> Example:
        """One key of another value; the model and data are small enough to be used."""
        key = random.choice([key for key in KEYS if key not in NOT_USED])
        words = ["DATASETS.ROOT", str(self.valid), key, str(fitting_or_odd(random, key)).replace("\0", "")]
        _write(folder / "c.yaml", _dump(random, CONFIG))

        def run() -> None:
            cfg = load_config(folder / "c.yaml", words)
            if cfg.SOLVER.IMS_PER_BATCH <= MAX_BATCH:
                _use(cfg)

        # What it says later than `load_config` names the key, the data set or the class.
        return Example("step and detection", run, (*PLACES, key, key.rpartition(".")[2], "tiny"))

    def _tree(self, random: Random, tree: dict[str, Any], folder: Path) -> Example:
        _write(folder / "c.yaml", _dump(random, change(random, tree)))
        return _loading("tree", folder / "c.yaml")

    def _text(self, random: Random, tree: dict[str, Any], folder: Path) -> Example:
        _write(folder / "c.yaml", change_lines(random, _dump(random, tree)))
        return _loading("text", folder / "c.yaml")

    def _bytes(self, random: Random, tree: dict[str, Any], folder: Path) -> Example:
        data = _dump(random, tree).encode()
        (folder / "c.yaml").write_bytes(change_bytes(random, data))
        return _loading("bytes", folder / "c.yaml")

    def _strange(self, random: Random, tree: dict[str, Any], folder: Path) -> Example:
        """What YAML allows and no configuration needs."""
        kind = random.randrange(6)
        if kind == 0:  # each anchor holds the one before it twice
            at = random.choice(["{{x: {0}, y: {0}}}", "[{0}, {0}]"])
            laughs = [f"a{k}: &a{k} {at.format(f'*a{k - 1}')}" for k in range(1, LAUGHS)]
            key = random.choice(
                ["SOLVER", "IMPORTS", "INPUT.PIXEL_MEAN", "MODEL.NECK.ARGS", "DATASETS.CATALOG", "SEED"]
            )
            *groups, name = key.split(".")
            nest = "".join(f"{group}: {{" for group in groups) + f"{name}: *a{LAUGHS - 1}" + "}" * len(groups)
            text = "\n".join(["a0: &a0 1", *laughs, nest])
        elif kind == 1:
            depth = random.choice([50, 500, 5000])
            text = random.choice(["SEED: " + "[" * depth + "]" * depth, "{a: " * depth + "}" * depth, "- " * depth])
        elif kind == 2:
            text = f"{_dump(random, tree)}\n{'x' * random.choice([10, 10**6])}: 1"
        elif kind == 3:
            text = "\n".join(f"K{k}: {random.choice(TEXTS[:20])}" for k in range(random.choice([3, 3000])))
        else:
            lines = _dump(random, tree).split("\n")
            lines.insert(random.randrange(len(lines)), random.choice(STRANGE_LINES))
            text = "\n".join(lines) if kind == 4 else random.choice(STRANGE_LINES)
        _write(folder / "c.yaml", text)
        return _loading("strange YAML", folder / "c.yaml")

    def _chain(self, random: Random, tree: dict[str, Any], folder: Path) -> Example:
        """Files that inherit from each other, perhaps in a circle, perhaps through links and folders."""
        (folder / "sub").mkdir()
        _write(folder / "b.yaml", _dump(random, random.choice(self.trees)))
        names = ["c.yaml", "d.yaml", "sub/e.yaml", "sub/f.yaml"]
        if random.random() < 0.3:
            (folder / "link.yaml").symlink_to(random.choice([*names, "link.yaml", "/dev/zero"]))
            names.append("link.yaml")
        for name in names[:4]:
            base = random.choice([*names, "b.yaml", misspelt(random, "b.yaml"), odd_value(random)])
            if isinstance(base, str) and random.random() < 0.7:
                base = os.path.relpath(base, os.path.dirname(name) or ".") if base else base
            part = {random.choice(list(CONFIG)): random.choice(list(CONFIG.values()))}
            _write(folder / name, _dump(random, {**(CONFIG if random.random() < 0.3 else part), "_BASE_": base}))
        return _loading("_BASE_", folder / "c.yaml")

    def _pairs(self, random: Random, tree: dict[str, Any], folder: Path) -> Example:
        """The words that follow a command's options."""
        _write(folder / "c.yaml", _dump(random, CONFIG))
        words: list[str] = []
        for _ in range(random.choice([1, 1, 2, 5])):
            key = random.choice([*KEYS, *(f"{name}.x" for name in MAPPINGS), "DATASETS.CATALOG.a.b.img_dir"])
            value = str(fitting_or_odd(random, key))
            words += [random.choice([misspelt(random, key), *TEXTS]) if random.random() < 0.1 else key, value]
        words = words[:-1] if random.random() < 0.05 else words
        # An argument of a process holds no NUL.
        return _loading("KEY VALUE", folder / "c.yaml", [word.replace("\0", "") for word in words])


def fitting_or_odd(random: Random, name: str) -> Any:
    """A value of the type of a key, or a strange one."""
    key = KEYS.get(name)
    if key is None or random.random() < 0.4:
        return odd_value(random)
    if key.steps:
        return str([_step(random, key.steps) for _ in range(random.randrange(4))])
    if key.words and random.random() < 0.9:
        word = random.choice(key.words.names or ("x",))
        return word if isinstance(key.default, str) else str((word,))
    if isinstance(key.default, tuple):
        elements = list(key.default or (1, 2))
        if random.random() < 0.3:
            elements = elements[: random.randrange(3)] * random.choice([1, 2])
        return str(tuple(_like(random, each) if random.random() < 0.5 else each for each in elements))
    return _like(random, key.default)


def _step(random: Random, steps: Steps) -> Any:
    """A step of augmentation with some of its arguments."""
    name = random.choice(list(steps.arguments))
    arguments = {each: key.default for each, key in steps.arguments[name].items() if random.random() < 0.5}
    for each, value in arguments.items():
        if isinstance(value, tuple) and random.random() < 0.8:
            arguments[each] = sorted(_like(random, element) for element in value or (16, 32))
        elif random.random() < 0.8:
            arguments[each] = _like(random, value)
    if random.random() < 0.1:
        name = random.choice([misspelt(random, name), odd_value(random)])
    return {"name": name, **arguments}


def _like(random: Random, value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return random.random() < 0.5
    if isinstance(value, int):
        return random.choice([value + 1, value - 1, 2 * value, 0, 1, 2, 3, 5, 64, random.choice(NUMBERS)])
    if isinstance(value, float):
        return random.choice([value / 2, -value, 0.0, 0.5, 1, 2.0, 1e-9, random.choice(NUMBERS)])
    if isinstance(value, str):
        return random.choice([misspelt(random, value), *TEXTS])
    return odd_value(random)


def _use(cfg: CfgNode) -> None:
    model = build_model(cfg, CLASSES)
    optimizer = build_optimizer(cfg, model)
    length = run_length(cfg, len(NAMES))
    build_schedule(cfg, optimizer, length)
    if not length.max_iter:  # `train` refuses it
        return
    batch = next(iter(build_train_loader(cfg)))
    sum(model.train()(batch.images, batch.targets).values()).backward()
    optimizer.step()
    detector, transform = build_detector(cfg, model.eval())
    with torch.inference_mode():
        detector.detect(ImageBatch.from_list([transform(picture())[0]], cfg.DATALOADER.SIZE_DIVISIBILITY))


def _loading(way: str, path: Path, words: list[str] | None = None) -> Example:
    def run() -> None:
        loaded = load_config(path, words or ())
        text = describe.to_yaml(describe.difference(describe.plain(loaded), describe.plain(get_cfg())))
        text += describe.documentation(loaded, "SOLVER") + loaded.dump()
        text.encode()  # config.yaml is written in UTF-8

    return Example(way, run, PLACES)


def _dump(random: Random, tree: Any) -> str:
    """YAML text in one of the styles in which people write it; a tree that YAML cannot hold is written as Python's."""
    style = random.choice([None, None, False, True])
    try:
        return yaml.safe_dump(tree, default_flow_style=style, allow_unicode=random.random() < 0.5, sort_keys=False)
    except (yaml.YAMLError, RecursionError, ValueError):
        return repr(tree)


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


def build(seed: int, folder: Path) -> Kind:
    return Configurations(seed, folder)
