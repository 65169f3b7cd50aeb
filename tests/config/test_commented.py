from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.commented import Setting, commented_yaml
from engine.config.yaml_file import Group, read_chain
from engine.errors import InputError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
VALUES = st.one_of(
    TEXT, st.integers(-(10**9), 10**9), st.booleans(), st.floats(1e-6, 1e6).map(lambda x: round(x, 8)), st.lists(TEXT)
)


def read(tmp_path: Path, text: str) -> list[tuple]:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")

    def plain(group: Group) -> list[tuple]:
        return [(each.name, plain(each.value) if isinstance(each.value, Group) else each.value) for each in group]

    (file,) = read_chain(str(path))
    assert not file.mistakes
    return plain(Group(file.entries))


@given(VALUES, TEXT, TEXT, TEXT)
def test_values_names_and_comments_survive(
    tmp_path_factory: pytest.TempPathFactory, value: object, reason: str, name: str, head: str
) -> None:
    folder = tmp_path_factory.mktemp("yaml")
    setting = Setting("A_B.C_D", {name: value, "img_dir": name} if name != "img_dir" else value, reason)
    text = commented_yaml([head], Setting("X_Y", 1, reason), [setting, Setting("A_B.E_F", value)])
    text = text.replace("_BASE_:", "X_Y:", 1)
    assert len(text.splitlines()) >= 4
    found = dict(dict(read(folder, text))["A_B"])
    assert found["E_F"] == value
    if name != "img_dir":
        assert dict(found["C_D"]) == {name: value, "img_dir": name}


@pytest.mark.parametrize(
    "name", ["no", "on", "1", "1:30", "null", "~", "x: y", "a#b", "- a", "'", '"', "défaut", "断纱"]
)
def test_names_of_data_sets_stay_text(tmp_path: Path, name: str) -> None:
    text = commented_yaml([], Setting("_BASE_", "x"), [Setting(f"CATALOG.{name}", name)]).replace("_BASE_", "BASE")
    assert dict(read(tmp_path, text))["CATALOG"] == [(name, name)]


def test_half_a_character_is_refused() -> None:
    with pytest.raises(InputError, match="half a character"):
        commented_yaml([], Setting("_BASE_", "x"), [Setting("A.B", "\ud83d")])
