from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.errors import InputError, printable
from engine.files import expanded, parse_json, read_json, replacing, user_path, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"AP": 0.5})
    with pytest.raises(ValueError):
        write_json(path, {"AP": float("nan")})
    assert json.loads(path.read_text()) == {"AP": 0.5}


def test_writing_into_a_file_as_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_json(tmp_path / "file" / "metrics.json", {})


def test_several_writers_at_once(tmp_path: Path) -> None:
    """Whoever reads finds one version, whole, and no writer fails (two jobs on one OUTPUT_DIR)."""
    path = tmp_path / "metrics.json"
    write_json(path, {"of": -1})

    def write_and_read(number: int) -> int:
        write_json(path, {"of": number, "filler": ["x"] * 2000})
        return json.loads(path.read_text())["of"]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(write_and_read, range(200)))
    assert set(found) <= set(range(-1, 200)) and [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.skipif(os.name == "nt", reason="no such permissions there")
def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "metrics.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "metrics.json").stat().st_mode) == 0o640


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / ".b.tmp").symlink_to(victim)
    with replacing(tmp_path / "b") as file:
        file.write(b"new")
    assert victim.read_text() == "kept" and (tmp_path / "b").read_text() == "new"
    assert not (tmp_path / "b").is_symlink()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{\n"a": [}', ":2: not valid JSON"),
        (b"", ":1: not valid JSON"),
        (b"\xff\xfe[\x00]\x00", ": not UTF-8 text"),
        (b"[" * 100_000 + b"]" * 100_000, ": lists or objects are nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, ": lists or objects are nested too deeply"),
        (b"[1,\n\n-" + b"9" * 5000 + b"]", ": line 3: a number of more than 4300 digits"),
    ],
    ids=lambda value: str(value[:20]),
)
def test_json_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_json(tmp_path / "a.json")
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'}{message}") and "\n" not in str(caught.value)


def test_paths_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path, tmp_path / ("x" * 500), tmp_path / "a\0.json"):
        with pytest.raises(InputError) as caught:
            read_json(path)
        assert str(caught.value).startswith(printable(str(path)))


def test_json_is_read_as_written(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": [1, "\\ud83d", NaN], "a": ' + b"[" * 300 + b"]" * 300 + b"}")
    assert list(read_json(str(tmp_path / "a.json"))) == ["a"]
    assert parse_json(" [1e999] ") == [float("inf")]


def test_halves_of_characters_survive_writing(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", ["\ud83d", "\udcff", "ü"])
    assert read_json(tmp_path / "a.json") == ["\ud83d", "\udcff", "ü"]


# ---------------------------------------------------------------- paths as users write them


def test_a_path_with_a_home_folder_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("RUN_7", "b c")
    for text, expected in {
        "~": "/home/me",
        "~/a": "/home/me/a",
        "$HOME/a": "/home/me/a",
        "${HOME}s/$RUN_7": "/home/mes/b c",
        "a/${RUN_7}x": "a/b cx",
        "a/~": "a/~",
        "5$": "5$",
        "a$5/b": "a$5/b",
        "": "",
        "file://$HOME/a": "file:///home/me/a",
        "https://host/$HOME/~a": "https://host/$HOME/~a",
        "catalog://$HOME": "catalog://$HOME",
    }.items():
        assert expanded(text) == expanded(expanded(text)) == expected
    assert user_path("~/a") == Path("/home/me/a")


@pytest.mark.parametrize("text", ["a\0b", "$HOME/\ud83d", "~/a\ud800"])
def test_names_that_no_path_can_have(text: str) -> None:
    with pytest.raises(InputError, match="a path cannot hold a NUL character or half a character"):
        expanded(text)


def test_bytes_of_an_argument_without_a_locale_are_a_path() -> None:
    text = os.fsdecode("/data/\u7834\u6d1e".encode()) + "\udce5"  # a byte that is no UTF-8
    assert expanded(text) == text


def test_an_empty_home_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "")
    with pytest.raises(InputError, match="the variable HOME is empty"):
        expanded("~/runs")


@pytest.mark.parametrize(
    "text, reason",
    [
        ("$NOT_SET/a", "the variable NOT_SET is not set; "),
        ("a/${NOT_SET}", "the variable NOT_SET is not set; "),
        ("${NOT_SET:-x}", "the variable NOT_SET:-x is not set; "),
        ("file://$NOT_SET", "the variable NOT_SET is not set; "),
        ("$EMPTY/a", "the variable EMPTY is empty; "),
        ("~no-such-user/a", "there is no user no-such-user; "),
    ],
)
def test_a_path_that_cannot_be_expanded_is_one_line(monkeypatch: pytest.MonkeyPatch, text: str, reason: str) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(InputError) as caught:
        expanded(text)
    assert reason in str(caught.value) and str(caught.value).endswith("write the path itself")


def test_a_folder_with_a_dollar_sign_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the home folder, and what was expanded is expanded again when a configuration is read back."""
    home = tmp_path / "a$b"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("b", raising=False)
    assert expanded(expanded("~/new")) == f"{home}/new"
    monkeypatch.chdir(home)
    (home / "$b").mkdir()
    with pytest.raises(InputError, match="the variable b is not set"):
        expanded("$b/x")


def test_a_user_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that is started with the number of an unknown user."""
    pwd = pytest.importorskip("pwd")

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    assert expanded("a/b") == "a/b"
    with pytest.raises(
        InputError, match="^~/a: this user has no home folder .HOME is not set.; write the path itself$"
    ):
        expanded("~/a")
