"""Small changes of valid inputs: of their structure, and of their bytes. Everything follows from the `Random` given."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from random import Random
from typing import Any

NUMBERS: list[Any] = [
    0, 1, -1, 2, 7, 255, 256, -(2**31), 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64,
    10**18, 10**30, -(10**400), 0.5, -0.0, 1e-320, 1e-8, 1e16, 1e38, 1e39, 1e308, -1e308, math.nan, math.inf, -math.inf,
]  # fmt: skip

TEXTS: list[str] = [
    "", " ", "0", "1", "-1", "1.5", "1e5", "1e400", "010", "0x10", "1_000", "9" * 5000, "nan", "inf", "None", "null",
    "True", "true", "no", "[]", "()", "{}", "(1,", "((((", "(" * 300 + ")" * 300, "[" * 3000, "'", '"', "a b",
    "x" * 3000,
    "\0", "a\0b", "\n", "a\nb", "\r", "\t", "\x1b[31mred", "\x7f", "\x85", "\u2028", "\ufeff", "\ud83d", "\udcff",
    "é", "e\u0301", "破洞", "\U0001f600", "\u202eabc", "ﬁ", "İ", "ß", "..", ".", "/", "../../x", "~", "~nobody",
    "$HOME",
    "%s", "{0}", "a,b", "a/b", "a\\b", "C:\\x", "file:///x", "nosuch://x", "-x", "--help", "*", "?", "[a", "#",
    "!!int x",
]  # fmt: skip


def odd_value(random: Random, depth: int = 0) -> Any:
    """A value that is rarely expected: an extreme number, a strange text, nothing, or a list or mapping of such."""
    kind = random.random()
    if kind < 0.4:
        return random.choice(NUMBERS)
    if kind < 0.75:
        return random.choice(TEXTS)
    if kind < 0.85 or depth > 2:
        return random.choice([None, True, False])
    if kind < 0.93:
        return [odd_value(random, depth + 1) for _ in range(random.choice([0, 1, 2, 3, 4, 40]))]
    return {random.choice(TEXTS): odd_value(random, depth + 1) for _ in range(random.choice([0, 1, 3]))}


def misspelt(random: Random, word: str) -> str:
    """A word with one slip of a typist."""
    if not word:
        return "x"
    at = random.randrange(len(word))
    slips = [
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
        word[:at] + random.choice("xX_ .é-") + word[at:],
        word.lower(),
        word.upper(),
        f" {word}",
        f"{word} ",
        word[::-1],
    ]
    return random.choice(slips)


def change(random: Random, tree: Any, rounds: int | None = None) -> Any:
    """A copy of nested dictionaries and lists with one change, often several."""
    tree = copy.deepcopy(tree)
    for _ in range(rounds or random.choice([1, 1, 1, 2, 3, 5])):
        tree = _change_once(random, tree)
    return tree


def _change_once(random: Random, tree: Any) -> Any:
    holders = list(_holders(tree))
    if not holders or random.random() < 0.02:
        return odd_value(random)
    holder, key = random.choice(holders)
    random.choice(_CHANGES)(random, holder, key)
    return tree


def _holders(tree: Any) -> list[tuple[Any, Any]]:
    """All (container, key or index) below `tree`. A container that is met twice (an alias) is entered once."""
    found, seen, waiting = [], set(), [tree]
    while waiting:
        holder = waiting.pop()
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        for key in keys:
            found.append((holder, key))
            waiting.append(holder[key])
    return found


def _replace(random: Random, holder: Any, key: Any) -> None:
    holder[key] = odd_value(random)


def _delete(random: Random, holder: Any, key: Any) -> None:
    del holder[key]


def _rename(random: Random, holder: Any, key: Any) -> None:
    if isinstance(holder, dict):
        holder[misspelt(random, str(key))] = holder.pop(key)
    else:
        holder.insert(key, copy.deepcopy(holder[key]))


def _wrap(random: Random, holder: Any, key: Any) -> None:
    for _ in range(random.choice([1, 1, 2, 30])):
        holder[key] = random.choice([lambda x: [x], lambda x: {"x": x}])(holder[key])


def _as_other_type(random: Random, holder: Any, key: Any) -> None:
    value = holder[key]
    converted: list[Any] = [str(value), repr(value), [value], f" {value}"]
    if isinstance(value, int | float) and not isinstance(value, bool):
        converted += [-value, value * 1000, bool(value), value == 0]
        if abs(value) < 1e300:  # a huge integer is no float
            converted += [value + 0.5, float(value)]
    if isinstance(value, str):
        converted += [misspelt(random, value), value.encode(), list(value)[:50], value * 2]
        converted = [each for each in converted if not isinstance(each, bytes)]
    holder[key] = random.choice(converted)


def _swap(random: Random, holder: Any, key: Any) -> None:
    other = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    holder[key], holder[other] = holder[other], holder[key]


def _add(random: Random, holder: Any, key: Any) -> None:
    if isinstance(holder, dict):
        holder[random.choice(TEXTS)] = odd_value(random)
    else:
        holder.append(odd_value(random))


def _repeat(random: Random, holder: Any, key: Any) -> None:
    if isinstance(holder, list):
        holder.extend(copy.deepcopy(holder[: 1 + key]) * random.choice([1, 2, 20]))
    else:
        holder[f"{key}{random.choice(['2', '_', '.x'])}"] = copy.deepcopy(holder[key])


_CHANGES: list[Callable[[Random, Any, Any], None]] = [
    _replace, _replace, _replace, _delete, _rename, _wrap, _as_other_type, _as_other_type, _swap, _add, _repeat,
]  # fmt: skip


def change_bytes(random: Random, data: bytes, rounds: int | None = None) -> bytes:
    """`data` with bytes flipped, cut, inserted, copied, swapped or overwritten."""
    changed = bytearray(data)
    for _ in range(rounds or random.choice([1, 1, 2, 4, 16])):
        if not changed:
            break
        at = random.randrange(len(changed))
        length = min(random.choice([1, 1, 2, 4, 8, 64, 1000]), len(changed) - at)
        block = bytes(changed[at : at + length])
        kind = random.randrange(9)
        if kind == 0:
            changed[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            changed[at] = random.randrange(256)
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            del changed[at:]
        elif kind == 4:
            changed[at:at] = random.choice([random.randbytes(length), block * 2, b"\0" * length, b"\xff" * length])
        elif kind == 5:
            changed[at : at + length] = random.choice([b"\0", b"\xff", b" "]) * length
        elif kind == 6:
            size = random.choice([2, 4, 8])
            number = random.choice([0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 10**5]) % 256**size
            changed[at : at + size] = number.to_bytes(size, random.choice(["little", "big"]))
        elif kind == 7:
            other = random.randrange(len(changed))
            changed[other : other + length] = block
        else:
            changed = changed[at:] + changed[:at] if random.random() < 0.2 else changed
            changed[:0] = random.choice([b"", b"\xef\xbb\xbf", b"\n", b"\0"])
    return bytes(changed)


def change_lines(random: Random, text: str) -> str:
    """Text with lines deleted, doubled, exchanged, indented otherwise, or broken by a strange character."""
    lines = text.split("\n")
    for _ in range(random.choice([1, 1, 2, 4])):
        at = random.randrange(len(lines))
        other = random.randrange(len(lines))
        kind = random.randrange(8)
        if kind == 0:
            lines[at] = ""
        elif kind == 1:
            lines.insert(other, lines[at])
        elif kind == 2:
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == 3:
            lines[at] = random.choice([" ", "  ", "\t", "    ", "- ", "? ", "# "]) + lines[at]
        elif kind == 4:
            lines[at] = lines[at].lstrip()
        elif kind == 5:
            column = random.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:column] + random.choice([*":,{}[]()'\"&*!|>%@`#\t", *TEXTS]) + lines[at][column:]
        elif kind == 6:
            lines[at] = lines[at][: random.randrange(len(lines[at]) + 1)]
        else:
            lines[at] += random.choice(["\r", " ", ",", ":", "  # x", "\0"])
    return "\n".join(lines)
