"""How a key is declared: its default, its meaning and what it may be, all in one place (the files of `keys/`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args

MOST_INT, MOST_FLOAT = 2**31 - 1, 1e9
"""Limits of the keys that declare no highest value of their own: what a tensor can count, and far from an overflow."""
MIN_SIZE, MAX_SIZE = 8, 100_000
"""Sides of images in pixels: below 8, the stride of the finest level, not one cell is left; above, no memory is."""
LOW_AND_HIGH = (2, "low and high")
"""The length of a range of which the first number may not be above the second."""
MAX_CHANNELS, MAX_CLASSES, MAX_BATCH = 65_536, 100_000, 65_536


@dataclass(frozen=True)
class Words:
    """The words a key may be.

    Attributes:
        names: those that are built in.
        registry: "module.NAME" of the registry in which a module of `IMPORTS` may register more; "" for none. It is a
            string because the configuration must load without torch.
        endings: where they are given, a registered name is written with one of them: tiny as tiny-FPN.
        families: beginnings, such as timm/, after which comes a name that only the part itself can check.
    """

    names: tuple[str, ...]
    registry: str = ""
    endings: tuple[str, ...] = ("",)
    families: tuple[str, ...] = ()

    def is_of_family(self, word: str) -> bool:
        """Whether the word begins like one of `families` and goes on; what follows is not checked."""
        return word not in self.families and word.startswith(self.families) and word.endswith(self.endings)

    def all(self, registered: Iterable[str] = ()) -> list[str]:
        """The built-in words, then those of the names that `registry` holds."""
        own = (f"{name}{ending}" for name in registered for ending in self.endings)
        return list(dict.fromkeys([*self.names, *own]))


@dataclass(frozen=True)
class Entries:
    """What a mapping holds whose names are the user's: `DATASETS.CATALOG` maps each name to a few fields.

    Attributes:
        names: what the names are, in the plural.
        form: the fields of one entry, as an error message shows them.
        fields: the declarations of the fields, by their names; none where each name has just a value.
        value: the declaration of that value.
    """

    names: str
    form: str
    fields: dict[str, Key]
    value: Key | None = None


@dataclass(frozen=True)
class Steps:
    """What an ordered list of named steps may hold, see `engine.config.steps`.

    Attributes:
        registry: "module.NAME" of the registry in which a module of `IMPORTS` may register more.
        arguments: step -> argument -> its declaration.
    """

    registry: str
    arguments: dict[str, dict[str, Key]]

    @property
    def fields(self) -> dict[str, Key]:
        """The declarations of all arguments, as STEP.argument."""
        return {f"{step}.{name}": each for step, named in self.arguments.items() for name, each in named.items()}


@dataclass(frozen=True)
class Key:
    """A key of the tree; `key` builds one.

    Attributes:
        name: the full dotted name, so that a search for `ATSS.TOPK` finds the declaration.
        default: the reference's, where the reference has the key. `{}` is a mapping whose names are the user's.
        doc: what the key means, in units; `tools/print_config.py --doc` shows it.
        ours: the reference does not have the key.
        type: written as in a signature: `int`, `str`, `tuple[int, ...]`; `dict` for a mapping whose names are the
            user's; `Path` for a string in which `~` and `$NAME` are replaced.
        limits: lowest and highest value, both allowed; of a tuple, for each element.
        length: exact number of entries, and what they are.
        not_empty: a tuple must have an entry, a string a character.
        entries: of a mapping, what it holds; None when that is the user's affair (arguments of their own part). Of a
            list of named steps, the steps.
    """

    name: str
    default: Any
    doc: str
    ours: bool
    type: Any
    limits: tuple[float, float] | None
    words: Words | None
    length: tuple[int, str] | None
    not_empty: bool
    entries: Entries | Steps | None

    @property
    def steps(self) -> Steps | None:
        """The steps of a key that holds a list of them."""
        return self.entries if isinstance(self.entries, Steps) else None


def key(
    name: str,
    default: Any,
    doc: str,
    *,
    ours: bool = False,
    type: Any = None,
    at_least: float | None = None,
    between: tuple[float, float] | None = None,
    words: tuple[str, ...] = (),
    registry: str = "",
    endings: tuple[str, ...] = ("",),
    families: tuple[str, ...] = (),
    length: tuple[int, str] | None = None,
    not_empty: bool = False,
    entries: Entries | Steps | None = None,
) -> Key:
    """Declare a key, see `Key` and `Words`; `type` only where the default cannot tell (it is empty).

    Example:
        >>> key("MODEL.ATSS.TOPK", 9, "Candidates per level and box.", at_least=1).limits
        (1, 2147483647)
    """
    type = type or type_of_value(default)
    most = MOST_FLOAT if number_type(type) is float else MOST_INT
    limits = between if at_least is None else (at_least, most)
    allowed = Words(words, registry, endings, families) if words or registry else None
    return Key(name, default, doc, ours, type, limits, allowed, length, not_empty, entries)


def number_type(type_: Any) -> Any:
    """`int` or `float` if the values of a type are numbers or hold them, else None.

    Example:
        >>> number_type(tuple[tuple[int, int], ...]), number_type(str)
        (<class 'int'>, None)
    """
    while get_args(type_):
        type_ = get_args(type_)[0]
    return type_ if type_ in (int, float) else None


def type_of_value(value: Any) -> Any:
    """The type that a value shows, or None when nothing tells it (an empty tuple).

    Example:
        >>> type_of_value((1, 2))
        tuple[int, ...]
    """
    if isinstance(value, list | tuple):
        element = type_of_value(value[0]) if value else None
        return None if element is None else tuple[element, ...]
    return type(value) if type(value) in (bool, int, float, str, dict) else None
