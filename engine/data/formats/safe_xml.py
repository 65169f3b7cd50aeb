"""XML files of unknown origin as a tree: no entities, no external files, no depth."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from engine.errors import InputError, shown
from engine.files import read_bytes

_MAX_DEPTH = 64
_ENCODING = re.compile(rb"""<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
_BY_EXPAT = ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "ascii", "iso8859-1")


class _RefusedError(Exception):
    """Something that no annotation needs."""


def read_xml(path: str | Path) -> Element:
    """The root of an XML file.

    Entities of its own are refused (a few lines of them can take all memory, or read other files), and so is nesting
    beyond 64 levels.

    Raises:
        InputError: the file cannot be read, or is not such XML (names the line).
    """
    data = read_bytes(path)
    data, encoding = _decoded(data, path)
    parser = expat.ParserCreate(encoding)
    builder, depth = TreeBuilder(), 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise _RefusedError(f"elements are nested deeper than {_MAX_DEPTH} levels")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse_entity(*declaration: object) -> NoReturn:
        raise _RefusedError("it declares entities (<!ENTITY ...>), which are not read; remove them")

    def refuse_reference(*reference: object) -> NoReturn:
        raise _RefusedError("it refers to an entity of its own or to another file, which is not read; remove that")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse_entity
    parser.ExternalEntityRefHandler = parser.SkippedEntityHandler = refuse_reference
    try:
        parser.Parse(data, True)
        return builder.close()
    except _RefusedError as error:
        raise InputError(f"{path}:{parser.CurrentLineNumber}: {error}") from None
    except (expat.ExpatError, ValueError, LookupError) as error:
        reason = expat.ErrorString(error.code) if isinstance(error, expat.ExpatError) else str(error)
        raise InputError(f"{path}:{parser.ErrorLineNumber}: not valid XML: {reason}") from None


def _decoded(data: bytes, path: str | Path) -> tuple[bytes, str | None]:
    """The data in an encoding that expat knows (it knows no Chinese ones), and its name if it is not the stated one."""
    declared = _ENCODING.match(data.removeprefix(codecs.BOM_UTF8).lstrip())
    name = declared[1].decode() if declared else "utf-8"
    try:
        info = codecs.lookup(name)
        if info.name in _BY_EXPAT:
            return data, None
        return data.decode(info.name).encode(), "utf-8"
    except (LookupError, UnicodeError) as error:
        raise InputError(f"{path}: cannot be read as {shown(name)} ({error}); save it as UTF-8") from None
