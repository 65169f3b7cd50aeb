"""Whole commands as processes of their own: exit code 0, or 2 with nothing but lines `error: ...` on stderr."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import torch

from engine.assembly.model import build_model
from engine.config import load_config
from engine.errors import EXIT_BAD_INPUT, InputError
from tests.fuzz import annotations, config, images, results
from tests.fuzz.example import Example, Kind
from tests.fuzz.valid import random_of

REPOSITORY = Path(__file__).resolve().parents[2]


class Commands:
    """Files as the other kinds make them, each given to the command that a user would give it to."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.config = config.build(seed, folder)
        self.images = images.build(seed, folder)
        self.annotations = annotations.build(seed, folder)
        (folder.parent / "valid-results").mkdir()
        self.results = results.build(seed, folder.parent / "valid-results")
        model = build_model(load_config(folder / "c.yaml"), ["破洞", "stain"])
        weights = {"format": "engine-1", "model": model.state_dict(), "class_names": model.class_names}
        self.weights = folder / "w.pth"
        torch.save(weights, self.weights)

    def example(self, number: int, folder: Path) -> Example:
        random = random_of("commands", self.seed, number)
        ways = [self._print, self._train, self._test, self._evaluate, self._convert, self._demo]
        return ways[number % len(ways)](random, number, folder)

    def _print(self, random: Random, number: int, folder: Path) -> Example:
        self.config.example(number, folder)
        return _command("print_config", ["tools/print_config.py", "--config-file", "c.yaml"], config.PLACES)

    def _train(self, random: Random, number: int, folder: Path) -> Example:
        made = self.annotations.example(number, folder)
        return _command("train_net", ["tools/train_net.py", "--config-file", "c.yaml"], made.inputs, ("out",))

    def _test(self, random: Random, number: int, folder: Path) -> Example:
        made = self.annotations.example(number, folder)
        words = ["tools/test_net.py", "--config-file", "c.yaml", "MODEL.WEIGHT", str(self.weights)]
        return _command("test_net", words, (*made.inputs, "w.pth"), ("out",))

    def _evaluate(self, random: Random, number: int, folder: Path) -> Example:
        made = self.results.example(number, folder)
        words = [
            "tools/evaluate_results.py",
            "--config-file",
            "c.yaml",
            "--results",
            "bbox.json",
            "--output-dir",
            "out",
        ]
        return _command("evaluate_results", words, made.inputs, ("out",))

    def _convert(self, random: Random, number: int, folder: Path) -> Example:
        data = bytearray(self.weights.read_bytes())
        for _ in range(random.choice([0, 1, 9])):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        (folder / "w.pth").write_bytes(data[: random.choice([len(data), random.randrange(len(data))])])
        return _command("convert_weights", ["tools/convert_weights.py", "w.pth", "new.pth"], ("w.pth",), ("new.pth",))

    def _demo(self, random: Random, number: int, folder: Path) -> Example:
        self.annotations.example(number, folder)
        made = self.images.example(number, folder)
        words = ["demo/atss_demo.py", "--config-file", "c.yaml", "--weights", str(self.weights)]
        return _command("demo", [*words, "--images-dir", "in", "--output-dir", "out"], (*made.inputs, "in"), ("out",))


def _command(way: str, words: list[str], inputs: tuple[str, ...], outputs: tuple[str, ...] = ()) -> Example:
    def run() -> None:
        script = [sys.executable, str(REPOSITORY / words[0]), *words[1:]]
        done = subprocess.run(script, capture_output=True, stdin=subprocess.DEVNULL)
        errors = done.stderr.decode("utf-8", "replace")
        lines = errors.splitlines()
        if done.returncode == EXIT_BAD_INPUT and lines and all(line.startswith("error: ") for line in lines):
            raise InputError("\n".join(line.removeprefix("error: ") for line in lines))
        if done.returncode or errors:
            raise AssertionError(f"exit code {done.returncode}\n{errors[-3000:]}")

    return Example(way, run, inputs, outputs)


def build(seed: int, folder: Path) -> Kind:
    return Commands(seed, folder)
