"""A YAML file as entries that know their line, with `_BASE_` inheritance.

Only plain values are read: the file is composed to nodes, tags other than those of YAML's own scalars, lists and
mappings are refused, and no object is ever constructed from a name in the file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from engine.config.coerce import UNCLEAR, Unclear, literal
from engine.errors import InputError
from engine.files import expanded
from engine.shipped import shipped, shipped_config
from engine.spelling import nearest_words

BASE_KEY = "_BASE_"
_YAML = "tag:yaml.org,2002:"
_MERGE_TAG = f"{_YAML}merge"
_UNCLEAR_TAG = f"{_YAML}unclear"
_MAX_VALUES = 100_000  # the largest configuration has some hundreds


class PlacedList(list[Any]):
    """A list of a file, and where each of its entries stands: "path/to/file.yaml:LINE"."""

    places: list[str]


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, except that it refuses tags and does not guess.

    In YAML 1.1, which PyYAML reads, 010 is 8, 1:30 is 90, `no` is False and 2024-05-01 a date, so that a data set
    cannot be called no. Here these words stay text, which its key may read, see `coerce.Unclear`.
    """

    yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {}  # not those of SafeLoader

    def construct_placed_list(self, node: yaml.SequenceNode) -> Iterator[PlacedList]:
        placed = PlacedList()
        placed.places = [_where(each) for each in node.value]
        yield placed
        placed.extend(self.construct_sequence(node))

    def construct_unclear(self, node: yaml.ScalarNode) -> Unclear:
        return Unclear(self.construct_scalar(node))

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        written_tag = getattr(self.peek_event(), "tag", None)
        node = super().compose_node(parent, index)
        if node.end_mark is None:  # it is still being composed, so this is an alias inside it
            raise InputError(f"{_where(node)}: an anchor that contains itself")
        # Values have the types that they show; only text may look like something else.
        if written_tag not in (None, "!", f"{_YAML}str"):
            tag = written_tag.replace(_YAML, "!!")
            raise InputError(f"{_where(node)}: YAML tag {tag} is refused; a configuration holds plain values")
        return node


_Loader.add_constructor(f"{_YAML}seq", _Loader.construct_placed_list)
_Loader.add_constructor(_UNCLEAR_TAG, _Loader.construct_unclear)
for _tag, _pattern, _first in (
    (f"{_YAML}null", "null|Null|NULL|~|", ["n", "N", "~", ""]),
    (f"{_YAML}bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    # Of more than 18 digits is no setting; with thousands of them Python refuses to print it.
    (f"{_YAML}int", "[-+]?(?:0|[1-9][0-9]{0,17})", list("-+0123456789")),
    (
        f"{_YAML}float",
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+0123456789."),
    ),
    (_UNCLEAR_TAG, UNCLEAR.pattern, list("-+0123456789yYnNoO")),
    (_MERGE_TAG, "<<", ["<"]),
    (f"{_YAML}value", "=", ["="]),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)


@dataclass(frozen=True)
class Entry:
    """`name: value` of a mapping; the value of a nested mapping is the list of its entries."""

    name: str
    value: Any
    where: str  # "path/to/file.yaml:LINE"


class Group(list[Entry]):
    """The entries of a nested mapping; a class of its own to distinguish them from a YAML list."""


@dataclass
class YamlFile:
    """The entries of one file, and a line for each mistake found while reading them."""

    path: str
    entries: list[Entry] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


def read_chain(path: str) -> list[YamlFile]:
    """A file preceded by the files that it inherits from through `_BASE_`, the most basic one first.

    A relative name of a file that does not exist, of the first one (relative to the working folder) or of a base
    (relative to the file that names it), is looked up in the packaged configurations.

    Raises:
        InputError: a file is missing, is not YAML, holds a tag, or inherits from itself.
    """
    chain: list[YamlFile] = []
    name = path = expanded(path)
    named_at = ""
    while True:
        if not os.path.lexists(path) and os.path.isfile(packaged := shipped_config(name)):
            path = packaged
        real = [os.path.realpath(file.path) for file in chain]
        if os.path.realpath(path) in real:
            start = real.index(os.path.realpath(path))
            circle = " -> ".join([*(file.path for file in chain[start:]), path])
            raise InputError(f"{named_at}leads back to itself: {circle}")
        file = _read(path, named_at, name)
        chain.append(file)
        base = next((entry for entry in file.entries if entry.name == BASE_KEY), None)
        if base is None:
            return chain[::-1]
        file.entries.remove(base)
        if not isinstance(base.value, str) or not base.value or set("\0\n") & set(base.value):
            raise InputError(f"{base.where}: {BASE_KEY} must be the path of one YAML file")
        named_at = f"{base.where}: {BASE_KEY} "
        folder = os.path.dirname(path)
        try:
            name = expanded(base.value)
            path = os.path.normpath(os.path.join(folder, name))
        except InputError as error:
            raise InputError(f"{named_at}{error}") from None


def collection(value: Any) -> Any:
    """A string of the command line read as the Python literal, or else the YAML list or mapping in brackets, it spells.

    Anything else, and a string that spells neither, as it is.

    Example:
        >>> collection("[{name: Mosaic, prob: 0.3}]") == collection("[{'name': 'Mosaic', 'prob': 0.3}]")
        True
    """
    found = literal(value)
    if not isinstance(found, str) or found.lstrip()[:1] not in ("{", "["):
        return found
    try:
        parsed = _Loader(found).get_single_data()
    except (yaml.YAMLError, InputError, ValueError, RecursionError):
        return found
    return list(parsed) if isinstance(parsed, PlacedList) else parsed


def _read(path: str, named_at: str, name: str) -> YamlFile:
    text = _text(path, named_at, name)
    file = YamlFile(path)
    try:
        loader = _Loader(text)
        loader.name = path  # what its marks call the file
        root = loader.get_single_node()
        if root is None:
            return file
        if not isinstance(root, yaml.MappingNode):
            kind = "a list" if isinstance(root, yaml.SequenceNode) else f"the value {root.value!r}"
            raise InputError(f"{_where(root)}: expected lines KEY: value, got {kind}")
        if _written_out(root, {}) > _MAX_VALUES:
            raise InputError(f"{path}: its anchors and aliases stand for more than {_MAX_VALUES} values")
        file.mistakes.extend(_duplicates(root, set()))
        file.entries = list(_entries(root, loader, file))
    except yaml.MarkedYAMLError as error:
        raise InputError(_syntax_message(path, text, error)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{path}:{line}: a character that is not text; remove it") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a configuration: {error}") from None
    return file


def _text(path: str, named_at: str, name: str) -> str:
    if path.endswith((".py", ".pyc")):
        raise InputError(
            f"{named_at}{path}: Python configurations are refused, since reading one runs it; "
            "write the keys in a YAML file"
        )
    try:
        mode = os.stat(path).st_mode
        # A device may never end, a pipe may never begin. The command line may name a pipe: --config-file <(...).
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or (named_at and stat.S_ISFIFO(mode)):
            raise InputError(f"{named_at}{path}: not a file of text")
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        raise InputError(f"{named_at}{_missing(path, name)}") from None
    except UnicodeDecodeError:
        raise InputError(f"{named_at}{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise InputError(f"{named_at}{path}: cannot be read: {error.strerror}") from None


def _missing(path: str, name: str) -> str:
    """What to say of a file that is neither at `path` nor, under the name that was written, among the packaged ones."""
    packaged, configs = shipped_config(name), str(shipped("configs"))
    nearest = _nearest_file(path)
    if packaged and not nearest:
        prefix = os.path.join(configs, "configs", "")  # a path in a checkout, as the documents write them
        nearest = _nearest_file(os.path.join(configs, packaged.removeprefix(prefix)))
        nearest = os.path.relpath(nearest, configs) if nearest.startswith(configs) and nearest != packaged else ""
    also = f", nor in {configs}" if packaged else ""
    return f"{path}: no such file{also}{f'; did you mean {nearest}?' if nearest else ''}"


def _nearest_file(path: str) -> str:
    """The YAML file or folder that is called most like a missing one, where the folders above it exist; "" for none."""
    folder, name = os.path.split(path)
    while folder and not os.path.isdir(folder):
        folder, name = os.path.split(folder)
    stems = {
        os.path.splitext(each)[0]: each
        for each in sorted(os.listdir(folder or "."))
        if each.endswith((".yaml", ".yml")) or os.path.isdir(os.path.join(folder, each))
    }
    nearest = nearest_words(os.path.splitext(name)[0], stems)
    return os.path.join(folder, stems[nearest[0]]) if nearest else ""


def _duplicates(node: yaml.Node, seen: set[yaml.Node]) -> Iterator[str]:
    """A line for each key that a mapping has twice, anywhere in the file."""
    if isinstance(node, yaml.ScalarNode) or node in seen:  # an anchor and its aliases are one node
        return
    seen.add(node)
    first: dict[str, yaml.Node] = {}
    for child in node.value:
        name_node, value_node = child if isinstance(node, yaml.MappingNode) else (None, child)
        if isinstance(name_node, yaml.ScalarNode) and name_node.tag != _MERGE_TAG:
            earlier = first.setdefault(name_node.value, name_node)
            if earlier is not name_node:
                given = f"already given on line {earlier.start_mark.line + 1}"
                yield f"{_where(name_node)}: duplicate key {name_node.value}, {given}; keep one"
        yield from _duplicates(value_node, seen)


def _entries(node: yaml.MappingNode, loader: _Loader, file: YamlFile) -> Iterator[Entry]:
    loader.flatten_mapping(node)  # `<<: *anchor`
    merged: dict[str, Entry] = {}
    for name_node, value_node in node.value:
        where = _where(name_node)
        name = loader.construct_object(name_node, deep=True)
        if isinstance(name, Unclear):
            name = str(name)
        if not isinstance(name, str):
            file.mistakes.append(f"{where}: {name!r} is not a key; a key is a name, quote it")
            continue
        if isinstance(value_node, yaml.MappingNode):
            value: Any = Group(_entries(value_node, loader, file))
        else:
            value = loader.construct_object(value_node, deep=True)
        merged[name] = Entry(name, value, where)
    yield from merged.values()


def _written_out(node: yaml.Node, done: dict[int, int]) -> int:
    """The number of values below a node when each alias is replaced by what it stands for; `done` has them by `id`."""
    if id(node) not in done:
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        nodes = [each for part in parts for each in (part if isinstance(part, tuple) else (part,))]
        done[id(node)] = 1 + sum(_written_out(each, done) for each in nodes)
    return done[id(node)]


def _syntax_message(path: str, text: str, error: yaml.MarkedYAMLError) -> str:
    context = error.context or ""
    is_left_open = "flow" in context or "quoted" in context  # then the end is far from the mistake
    mark = error.context_mark if is_left_open else error.problem_mark
    if mark is None:
        return f"{path}: YAML syntax: {error.problem}"
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line[: mark.column + 1]:
        return f"{path}:{mark.line + 1}: a tab character; indent with spaces"
    problem = (error.problem or "").replace("'<stream end>'", "the end of the file")
    if problem.startswith("mapping values"):
        problem = "there is a colon too many here, or one is missing on the line above"
    hint = "; a name that begins with * needs quotes" if "alias" in f"{problem} {context}" else ""
    return f"{path}:{mark.line + 1}: YAML syntax: {' '.join(f'{problem} {context}'.split())}{hint}"


def _where(node: yaml.Node) -> str:
    return f"{node.start_mark.name}:{node.start_mark.line + 1}"
