"""TrueType fonts of this machine, chosen by the characters of a text."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

from PIL import ImageFont

from engine.log import get_logger

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# File names without suffix, in lower case; the first font that has all characters of a text is used.
LATIN = ("dejavusans", "notosans-regular", "liberationsans-regular", "arial", "segoeui", "helvetica")
NOTO_CHINESE = ("notosanscjk-regular", "notosanscjksc-regular", "notosanssc-regular")
LINUX_CHINESE = ("sourcehansans-regular", "sourcehansanssc-regular", "wqy-microhei", "wqy-zenhei")
ANDROID_AND_MACOS = ("droidsansfallbackfull", "pingfang", "hiragino sans gb", "stheiti light", "arial unicode")
WINDOWS = ("msyh", "simhei", "simsun", "msgothic", "malgun")  # Chinese, Japanese, Korean
PREFERRED = (*LATIN, *NOTO_CHINESE, *LINUX_CHINESE, *ANDROID_AND_MACOS, *WINDOWS)
FOLDERS = (
    "~/.local/share/fonts",
    "~/.fonts",
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/Library/Fonts",  # macOS
    "/Library/Fonts",
    "/System/Library/Fonts",
    "~/AppData/Local/Microsoft/Windows/Fonts",
    "${WINDIR}/Fonts",
)
"""Searched with their subfolders, where they exist."""
SUFFIXES = {".ttf", ".otf", ".ttc", ".otc"}
PROBE_SIZE = 16
NO_SUCH_CHARACTER = "\U000effff"  # a private code point, for which a font draws its "missing character" box


def font_for(text: str, size: int) -> Font:
    """A font of `size` pixels with the characters of `text`, or the one with most of them.

    If no font has some characters, one log line names them and the fonts to install.
    """
    shapes = frozenset(char for char in text if char.isprintable() and not char.isspace())
    return _loaded(_font_path(shapes), size)


@functools.lru_cache(maxsize=1)
def font_files() -> tuple[Path, ...]:
    """All font files found, preferred ones first, then by name."""
    found = {path for path in _from_fontconfig() if path.suffix.lower() in SUFFIXES}
    for folder in FOLDERS:
        files = Path(os.path.expandvars(os.path.expanduser(folder))).rglob("*")  # none if there is no such folder
        found.update(file.resolve() for file in files if file.suffix.lower() in SUFFIXES)
    rank = {name: index for index, name in enumerate(PREFERRED)}
    return tuple(sorted(found, key=lambda p: (rank.get(p.stem.lower(), len(rank)), p.name, str(p))))


def missing_characters(path: Path | None, characters: frozenset[str]) -> frozenset[str]:
    """The characters for which the font draws its "missing character" box."""
    try:
        font = _loaded(path, PROBE_SIZE)
        absent = _drawn(font, NO_SUCH_CHARACTER)
        return frozenset(char for char in characters if _drawn(font, char) == absent)
    except (OSError, UnicodeError):  # a broken font file, or a bitmap font
        return characters


@functools.lru_cache(maxsize=4096)
def _font_path(characters: frozenset[str]) -> Path | None:
    """The file of the first font with all `characters`; None is Pillow's own Latin font."""
    best: tuple[frozenset[str], Path | None] | None = None
    for path in (*font_files(), None):
        missing = missing_characters(path, characters)
        if not missing:
            return path
        if best is None or len(missing) < len(best[0]):
            best = missing, path
    _warn_once("".join(sorted(best[0])[:10]))
    return best[1]


_warned: list[str] = []


def _warn_once(characters: str) -> None:
    if _warned:
        return
    _warned.append(characters)
    get_logger(__name__).warning(
        "no font on this machine has %s: such characters are drawn as boxes. Install one, for example with "
        "apt-get install fonts-noto-cjk (Chinese, Japanese, Korean) or fonts-noto-core (other scripts), or put a .ttf "
        "file into %s",
        characters,
        "~/.local/share/fonts",
    )


@functools.lru_cache(maxsize=64)
def _loaded(path: Path | None, size: int) -> Font:
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(str(path), size)


def _drawn(font: Font, char: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(char)
    return mask.size, bytes(mask)


def _from_fontconfig() -> list[Path]:
    """The fonts listed by `fc-list`, which include folders configured by the user; none where it is not installed."""
    command = ["fc-list", "--format", "%{file}\n"]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [Path(line).resolve() for line in os.fsdecode(answer.stdout).splitlines() if line]
