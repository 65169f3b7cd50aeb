from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.checkpoint import Checkpointer, io
from engine.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two checkpoints, 1 and 2."""
    checkpointer = Checkpointer(tmp_path)
    for i in (1, 2):
        checkpointer.save(f"model_{i:07d}", {"model": {"w": torch.full((2000,), float(i))}, "iteration": i})
    return tmp_path


def test_nothing_saved_yet(tmp_path: Path) -> None:
    assert Checkpointer(tmp_path).last() is None
    assert Checkpointer(tmp_path / "nowhere").load_last() is None


def test_save_and_load(folder: Path, said: pytest.LogCaptureFixture) -> None:
    assert (folder / "last_checkpoint").read_text() == "model_0000002.pth"
    path, state = Checkpointer(folder).load_last()
    assert path == Checkpointer(folder).last() == folder / "model_0000002.pth"
    assert state["iteration"] == 2
    assert not said.messages


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    if how == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "missing":
        path.unlink()
    else:
        path.write_bytes(whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:])


@pytest.mark.parametrize("how", ["truncated", "empty", "flipped", "missing"])
def test_damaged_last_falls_back_aloud(folder: Path, how: str, said: pytest.LogCaptureFixture) -> None:
    damage(folder / "model_0000002.pth", how)
    path, state = Checkpointer(folder).load_last()
    assert path.name == "model_0000001.pth" and state["iteration"] == 1
    assert "model_0000002.pth" in said.messages[0]
    assert "falling back" in said.messages[-1] and "model_0000001.pth" in said.messages[-1]


def test_a_damaged_final_falls_back_to_the_highest_number(folder: Path) -> None:
    Checkpointer(folder).save("model_final", {"model": {}, "iteration": 3})
    damage(folder / "model_final.pth", "truncated")
    assert Checkpointer(folder).load_last()[1]["iteration"] == 2


def test_none_can_be_read(folder: Path) -> None:
    for path in folder.glob("*.pth"):
        damage(path, "flipped")
    with pytest.raises(InputError, match=r"(?s)^(?!.*\n).*0000002.*0000001.*start again"):
        Checkpointer(folder).load_last()


@pytest.mark.parametrize("content", ["", "\0\0\0"])
def test_an_empty_pointer_is_not_the_start_of_a_run(folder: Path, content: str) -> None:
    (folder / "last_checkpoint").write_text(content)
    assert Checkpointer(folder).last() is None
    assert Checkpointer(folder).load_last()[1]["iteration"] == 2


def test_pointers_of_the_reference(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The reference wrote the path as given: absolute, or relative to the working directory; folders may be moved."""
    pointer, expected = folder / "last_checkpoint", folder / "model_0000001.pth"
    for named in ("output/run/model_0000001.pth", "/gone/model_0000001.pth", str(expected), "model_0000001.pth\n"):
        pointer.write_text(named)
        assert Checkpointer(folder).last() == expected
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "other.pth"
    io.save(elsewhere, {"iteration": 9})
    pointer.write_text(str(elsewhere))
    assert Checkpointer(folder).last() == elsewhere
    pointer.write_text("gone.pth")
    assert Checkpointer(folder).last() is None


def test_a_failed_save_keeps_the_pointer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "_seal", lambda path: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match="No space left.*free some space"):
        Checkpointer(folder).save("model_0000003", {"model": {}})
    assert Checkpointer(folder).load_last()[1]["iteration"] == 2
    assert sorted(path.name for path in folder.iterdir()) == [
        "last_checkpoint",
        "model_0000001.pth",
        "model_0000002.pth",
    ]


def test_prune(folder: Path) -> None:
    checkpointer = Checkpointer(folder)
    checkpointer.save("model_0000003", {"iteration": 3})
    assert [path.name for path in checkpointer.prune(keep=2)] == ["model_0000001.pth"]
    (folder / "last_checkpoint").write_text("model_0000002.pth")
    checkpointer.prune(keep=0)
    assert sorted(path.name for path in folder.glob("*.pth")) == ["model_0000002.pth", "model_0000003.pth"]


def test_prune_counts_the_own_run_only(folder: Path) -> None:
    """After a new run has started in the folder of a longer one."""
    checkpointer = Checkpointer(folder)
    for done in (9, 8, 3):
        checkpointer.save(f"model_{done:07d}", {"iteration": done})
    assert [path.name for path in checkpointer.prune(keep=2)] == ["model_0000001.pth"]
    assert len(list(folder.glob("*.pth"))) == 4


def test_the_best_is_never_the_last_and_never_pruned(folder: Path) -> None:
    checkpointer = Checkpointer(folder)
    path = checkpointer.save("model_best", {"iteration": 1}, is_last=False)
    assert checkpointer.load_last()[1]["iteration"] == 2
    checkpointer.prune(keep=1)
    assert path.exists() and checkpointer.last().name == "model_0000002.pth"
    checkpointer.last().write_bytes(b"")  # damaged, and there is no other
    with pytest.raises(InputError):
        checkpointer.load_last()


def test_a_new_run_moves_the_old_one_aside(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    checkpointer = Checkpointer(tmp_path)
    checkpointer.set_aside(["config.yaml"])  # no checkpoint, no log line
    assert not said.messages and not list(tmp_path.iterdir())
    for name in ("model_0000005", "model_best", "model_final"):
        checkpointer.save(name, {"iteration": 5}, is_last=name == "model_final")
    for name in ("config.yaml", "log.txt", "model_zoo.pth"):
        (tmp_path / name).write_text(name)
    for number in (1, 2):
        checkpointer.set_aside(["config.yaml", "metrics.jsonl"])
        assert checkpointer.load_last() is None and f"OUTPUT_DIR {tmp_path / f'previous-{number}'}" in said.messages[-1]
        assert {path.name for path in tmp_path.glob("*.*")} == {"log.txt", "model_zoo.pth"}
        if number == 1:
            checkpointer.save("model_0000002", {"iteration": 2})
    old = Checkpointer(tmp_path / "previous-1")
    names = {"model_0000005.pth", "model_best.pth", "model_final.pth", "config.yaml", "last_checkpoint"}
    assert {path.name for path in old.output_dir.iterdir()} == names
    assert old.load_last()[0].name == "model_final.pth"
    assert Checkpointer(tmp_path / "previous-2").load_last()[1]["iteration"] == 2


def test_what_a_killed_process_began_to_move_is_moved_on(folder: Path) -> None:
    (folder / ".previous").mkdir()
    (folder / "model_0000001.pth").rename(folder / ".previous" / "model_0000001.pth")
    assert Checkpointer(folder).set_aside() == folder / "previous-1"
    names = {"model_0000001.pth", "model_0000002.pth", "last_checkpoint"}
    assert {path.name for path in (folder / "previous-1").iterdir()} == names
    assert {path.name for path in folder.iterdir()} == {"previous-1"}


def test_a_lost_pointer_is_no_lost_run(folder: Path, said: pytest.LogCaptureFixture) -> None:
    """The process was killed between the first checkpoint and its pointer, or the pointer was deleted."""
    (folder / "last_checkpoint").unlink()
    assert Checkpointer(folder).load_last()[1]["iteration"] == 2
    assert "last_checkpoint: does not exist" in said.messages[0]


def test_a_bare_name_is_of_this_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    io.save(elsewhere / "model_0000009.pth", {"iteration": 9})
    monkeypatch.chdir(elsewhere)
    (folder / "last_checkpoint").write_text("model_0000009.pth")
    assert Checkpointer(folder).last() is None


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_last_checkpoint_names_what_cannot_be_a_file(folder: Path, name: str, said: pytest.LogCaptureFixture) -> None:
    (folder / "last_checkpoint").write_text(name)
    path, state = Checkpointer(folder).load_last()
    assert path.name == "model_0000002.pth" and "does not exist" in said.messages[0]
