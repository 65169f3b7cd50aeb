"""Weights of installed packages, by packages made for the tests; none of their code may run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from engine.checkpoint import sources
from engine.checkpoint.obtainable import why_not_obtainable
from engine.checkpoint.weights import read_weights
from engine.errors import InputError

BOMB = "raise SystemExit('the package was imported')\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages.

    `my-weights` imports as `my_net` and has two weights files; `tiny.one` has one and no RECORD; `bare` is a module.
    """
    site = tmp_path / "site"
    _install(site, "my-weights", "my_net", ["models/a-small.pth", "models/b.safetensors", "models/readme.txt"])
    _install(site, "tiny.one", "tiny_one", ["w.pt"], record=False)
    _install(site, "other", "other", ["secret.pth"])
    (site / "bare.py").write_text(BOMB)
    (site / "bare-1.0.dist-info").mkdir()
    (site / "bare-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: bare\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(site)
    return site


def _install(site: Path, name: str, top: str, files: list[str], record: bool = True) -> None:
    for file in files:
        path = site / top / file
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"weight": torch.ones(2)}, path)
    (site / top / "__init__.py").write_text(BOMB)
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    if record:
        (info / "RECORD").write_text("".join(f"{top}/{file},,\n" for file in [*files, "__init__.py"]))
    else:
        (info / "top_level.txt").write_text(f"{top}\n")


@pytest.mark.parametrize(
    "uri",
    [
        "package://my-weights/models/a-small.pth",
        "package://My_Weights/models/a-small.pth",
        "package://my_net/models/a-small.pth",
        "package://my-net/models/a-small.pth",
        "package://my-weights/my_net/models/a-small.pth",
        "package://my_net/./models//a-small.pth",
        "package://my_net/models/a%2Dsmall.pth",
    ],
)
def test_by_any_spelling_of_its_name(site: Path, uri: str) -> None:
    assert sources.resolve(uri) == site / "my_net" / "models" / "a-small.pth"
    assert "my_net" not in sys.modules


def test_the_file_is_read_as_any_other(site: Path) -> None:
    file = read_weights("package://my-weights/models/a-small.pth")
    assert file.source.startswith("package://") and file.tensors["weight"].tolist() == [1, 1]
    (site / "my_net" / "models" / "a-small.pth").write_bytes(b"cos\nsystem\n(S'touch /tmp/ran'\ntR.")
    with pytest.raises(InputError, match=r"a-small.pth: .*os\.system|a-small.pth: .*code"):
        read_weights("package://my-weights/models/a-small.pth")


@pytest.mark.parametrize("name", ["tiny.one", "tiny-one", "Tiny_One"])
def test_the_only_file_needs_no_path(site: Path, name: str) -> None:
    for uri in (f"package://{name}", f"package://{name}/"):
        assert sources.resolve(uri) == site / "tiny_one" / "w.pt"


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("my-weights", "names no file; its weights files: 'models/a-small.pth', 'models/b.safetensors'"),
        ("my-weights/models/a-smal.pth", "has no such file; did you mean package://my-weights/models/a-small.pth?"),
        ("my-weights/a-small.pth", "has no such file; did you mean package://my-weights/models/a-small.pth?"),
        ("my-weights/zzz", "has no such file; its weights files: 'models/a-small.pth', 'models/b.safetensors'"),
        ("my-weights/models", "is a folder; give a weights file, such as package://my-weights/models/a-small.pth"),
        ("my-weights/../other/secret.pth", "the path leaves the package"),
        ("my-weights/%2e%2e/other/secret.pth", "the path leaves the package"),
        ("my-weights/..\\other\\secret.pth", "the path leaves the package"),
        ("my-weights//etc/passwd", "the path leaves the package"),
        ("my-weights/other/secret.pth", "has no such file"),
        ("my-weights/a%00b", "the path leaves the package"),
        ("my-weight/models/a-small.pth", "is installed: pip install my-weight; did you mean package://my-weights?"),
        ("no_such_thing/w.pth", "no package of this name is installed: pip install no-such-thing"),
        ("bare/w.pth", "the package has no folder for weights"),
        ("os/w.pth", "is a module of Python itself"),
        ("", "names no package"),
        ("/w.pth", "names no package"),
        ("../w.pth", "names no package"),
        ("a b/w.pth", "names no package"),
    ],
)
def test_what_cannot_be_found_is_one_line(site: Path, uri: str, line: str) -> None:
    with pytest.raises(InputError) as error:
        sources.resolve(f"package://{uri}")
    assert line in str(error.value) and str(error.value).startswith(f"package://{uri.replace(chr(0), '')}"[:14])
    assert "\n" not in str(error.value)
    assert line in why_not_obtainable(f"package://{uri}")


def test_links_out_of_the_package_are_refused(site: Path) -> None:
    models = site / "my_net" / "models"
    (models / "link.pth").symlink_to(site / "other" / "secret.pth")
    (models / "folder").symlink_to(site / "other")
    (models / "fine.pth").symlink_to(models / "a-small.pth")
    for path in ("models/link.pth", "models/folder/secret.pth"):
        with pytest.raises(InputError, match="is a link to .*secret.pth, outside the package"):
            sources.resolve(f"package://my_net/{path}")
    assert sources.resolve("package://my_net/models/fine.pth").is_file()


def test_a_package_that_ships_none(site: Path) -> None:
    _install(site, "empty-one", "empty_one", ["readme.md"])
    with pytest.raises(InputError, match="names no file; it ships no weights files"):
        sources.resolve("package://empty-one")
