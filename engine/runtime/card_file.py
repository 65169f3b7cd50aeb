"""The card of an exported file, read and replaced without loading the network."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from engine.errors import InputError
from engine.files import replacing
from engine.runtime.card import CARD_KEY, ModelCard
from engine.runtime.onnx_file import read_onnx, write_metadata

SUFFIXES = (".onnx", ".xml")
"""Of the files that the runtime opens."""


def is_exported(path: str | Path) -> bool:
    """Whether the name is that of an exported file, which the runtime opens, and not of a checkpoint.

    Example:
        >>> is_exported("runs/model.onnx"), is_exported("runs/model_final.pth")
        (True, False)
    """
    return Path(path).suffix.lower() in SUFFIXES


def model_files(weights: str | Path) -> list[Path]:
    """The files that a checkpoint or exported model consists of: an OpenVINO model has its weights in a second one.

    Those that do not exist are left out; so is a URL.

    Example:
        >>> model_files("no/such/model.xml")
        []
    """
    path = Path(weights)
    files = [path, path.with_suffix(".bin")] if path.suffix.lower() == ".xml" else [path]
    return [each for each in files if each.is_file()]


def read_card(path: Path) -> ModelCard:
    """The card of an ONNX file or an OpenVINO model.

    Raises:
        InputError: the file is missing or damaged, or was not exported by this engine.
    """
    if path.suffix.lower() == ".onnx":
        return card_of(path, read_onnx(path)[1].get(CARD_KEY))
    return card_of(path, _entry(_tree(path)).get("value"))


def write_card(path: Path, card: ModelCard) -> None:
    """Give an exported file another card, atomically; its network is not touched.

    Raises:
        InputError: see `read_card`, or the file cannot be written.
    """
    read_card(path)
    if path.suffix.lower() == ".onnx":
        write_metadata(path, CARD_KEY, card.to_json())
        return
    tree = _tree(path)
    _entry(tree).set("value", card.to_json())
    with replacing(path) as file:
        tree.write(file, encoding="utf-8", xml_declaration=True)


def card_of(path: Path, text: str | None) -> ModelCard:
    """The card that stands in the metadata of a file as `text`."""
    if text is None:
        raise InputError(f"{path}: not exported by this engine (it has no model card); use tools/export_model.py")
    return ModelCard.from_json(text, str(path))


def _tree(path: Path) -> ElementTree.ElementTree:
    try:
        return ElementTree.parse(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name an exported model") from None
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise InputError(f"{path}: damaged, or not an OpenVINO model ({error}); export the model again") from None


def _entry(tree: ElementTree.ElementTree) -> ElementTree.Element:
    found = tree.find(f"rt_info/{CARD_KEY}")
    return ElementTree.Element(CARD_KEY) if found is None else found
