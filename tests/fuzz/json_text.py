"""Changed JSON files: of their values, their text or their bytes."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from tests.fuzz.mutate import change, change_bytes, change_lines

STRANGE = [
    "", "null", "1", "[]", "{}", "[[]]", '""', "nan", "NaN", "{" * 100, "[" * 100_000, '{"a":' * 20_000, "\ufeff[]",
    "9" * 5000, "-", "tru", "[1,]", '{"a": 1, "a": 2}', "'x'", "[] []", "\0", '"\\ud83d"', "1e999",
    "[" + "1," * 9999 + "1]",
]  # fmt: skip
ENCODINGS = ["utf-8-sig", "utf-16", "utf-32", "latin-1"]


def changed_json(random: Random, content: Any) -> tuple[str, bytes]:
    """(the kind of change, the content of the file)."""
    kind = random.choice(["values"] * 8 + ["text", "bytes", "encoding", "strange"])
    if kind == "strange":
        return kind, random.choice(STRANGE).encode("utf-8", "surrogatepass")
    if kind == "encoding":
        return kind, _text(random, content).encode(
            random.choice(["utf-8-sig", "utf-16", "utf-32", "latin-1"]), "replace"
        )
    if kind == "bytes":
        return kind, change_bytes(random, _text(random, content).encode())
    if kind == "text":
        return kind, change_lines(random, _text(random, content)).encode("utf-8", "surrogatepass")
    return kind, _text(random, change(random, content)).encode("utf-8", "surrogatepass")


def _text(random: Random, content: Any) -> str:
    is_ascii = random.random() < 0.5
    try:
        return json.dumps(content, ensure_ascii=is_ascii, indent=random.choice([None, 0, 1]))
    except ValueError:  # an integer of more digits than Python writes
        return json.dumps(_shortened(content), ensure_ascii=is_ascii).replace('"HUGE"', "1" + "0" * 5000)


def _shortened(content: Any) -> Any:
    """The content with "HUGE" in place of integers that Python refuses to write."""
    if isinstance(content, dict):
        return {key: _shortened(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_shortened(value) for value in content]
    return "HUGE" if isinstance(content, int) and abs(content) > 10**300 else content
