from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.inference.items import Item
from engine.inference.records import RecordFile, read_records
from engine.inference.run_folder import RunFolder, Shard, merged

FACTS = {"weights": "w.pth 12", "inputs": "3 (ab)"}
ITEMS = [
    Item("image", "a.png", Path("a.png")),
    Item("video", "v.mp4", Path("v.mp4")),
    Item("image", "b.png", Path("b")),
]


def begun(folder: Path, resume: bool = True, overwrite: bool = False, **facts: Any) -> RunFolder:
    run = RunFolder(folder, Shard(), FACTS | facts, 1, resume, overwrite)
    try:
        run.claim(ITEMS)
        run.begin()
    finally:
        run.release()
    return run


def write(path: Path, *records: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def frames(count: int, is_whole: bool = False) -> list[dict[str, Any]]:
    last = {"last": True} if is_whole else {}
    return [{"image": "v.mp4", "frame": k, **(last if k == count - 1 else {})} for k in range(count)]


def test_a_run_that_ends_before_it_begins_changes_nothing(tmp_path: Path) -> None:
    """Such as one whose model does not load."""
    for folder in (tmp_path / "new/deep", tmp_path / "old"):
        if folder.name == "old":
            write(folder / "predictions.jsonl", {"image": "a.png"})
        run = RunFolder(folder, Shard(), FACTS, 1, resume=False, overwrite=True)
        run.claim(ITEMS)
        run.release()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "old",
        "old/predictions.jsonl",
    ]
    assert (tmp_path / "old/predictions.jsonl").read_text() == '{"image": "a.png"}\n'


def test_a_run_goes_on_behind_its_last_whole_line(tmp_path: Path) -> None:
    run = begun(tmp_path)
    write(run.records, {"image": "a.png"}, *frames(2, is_whole=True))
    with open(run.records, "ab") as file:
        file.write(b'{"image": "b.pn')
    run = begun(tmp_path)
    assert list(run.done) == ["a.png", "v.mp4"] and "not written to its end" in run.notes[0]
    assert run.records.read_bytes().endswith(b'"last": true}\n')


@pytest.mark.parametrize("tail", [b"\0" * 40, b"\0\0\n", b"{"])
def test_torn_tails(tmp_path: Path, tail: bytes) -> None:
    run = begun(tmp_path)
    run.records.write_bytes(b'{"image": "a.png"}\n' + tail)
    assert list(begun(tmp_path).done) == ["a.png"] and run.records.read_bytes() == b'{"image": "a.png"}\n'


def test_an_unfinished_video_begins_anew(tmp_path: Path) -> None:
    run = begun(tmp_path)
    write(run.records, {"image": "a.png"}, *frames(7))
    run = begun(tmp_path)
    assert list(run.done) == ["a.png"] and run.notes == ["v.mp4: was not finished and begins anew"]
    assert [record["image"] for record in read_records(run.records)] == ["a.png"]


def test_a_video_that_cannot_be_read_is_done(tmp_path: Path) -> None:
    run = begun(tmp_path)
    write(run.records, {"image": "v.mp4", "error": "damaged"})
    assert list(begun(tmp_path).done) == ["v.mp4"]


def test_records_are_not_overwritten_unasked(tmp_path: Path) -> None:
    run = begun(tmp_path, resume=False)
    write(run.records, {"image": "a.png"})
    with pytest.raises(InputError, match="add --resume to go on with it, --overwrite to replace it"):
        begun(tmp_path, resume=False)
    assert list(begun(tmp_path).done) == ["a.png"]
    begun(tmp_path, resume=False, overwrite=True)
    assert not run.records.exists()


def test_what_changed_is_said(tmp_path: Path) -> None:
    run = begun(tmp_path)
    write(run.records, {"image": "a.png"})
    with pytest.raises(InputError, match=r"of another run \(weights: w.pth 12, now other\)"):
        begun(tmp_path, weights="other")
    assert begun(tmp_path, inputs="4 (cd)").notes == ["the inputs are not those of the earlier run, whose records stay"]


def test_a_file_of_something_else(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.records.write_text('{"image": "a.png"}\n[1, 2]\n{"image": "b.png"}\n')
    with pytest.raises(InputError, match=r"predictions.jsonl:2: is not a record"):
        begun(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written to"):
        begun(tmp_path / "file")


# ---------------------------------------------------------------- several processes


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/4/2", "-1/4", "1/0", ""])
def test_bad_shards(text: str) -> None:
    with pytest.raises(InputError, match="write I/N, such as 1/4"):
        Shard.parse(text)


@given(st.lists(st.integers(1, 3), max_size=30), st.integers(1, 5), st.integers(1, 4))
def test_parts_together_are_the_whole(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], num_parts: int, block: int
) -> None:
    """`counts`: the records (frames) of each item."""
    folder = tmp_path_factory.mktemp("parts")
    records = [[{"image": f"{k}", "frame": f} for f in range(count)] for k, count in enumerate(counts)]
    parts = [Shard(index, num_parts).part(records, block) for index in range(num_parts)]
    assert max(map(len, parts)) - min(map(len, parts)) <= block
    for index, part in enumerate(parts):
        write(folder / str(index), *(record for item in part for record in item))
    whole = list(merged([folder / str(index) for index in range(num_parts)], block))
    assert whole == [record for item in records for record in item]


def test_the_last_process_to_end_merges(tmp_path: Path) -> None:
    runs = [RunFolder(tmp_path, Shard(index, 2), FACTS, 1, False, False) for index in range(2)]
    for run, place in zip(runs, ("a.png", "b.png"), strict=True):
        run.claim(ITEMS)
        run.begin()
        records = RecordFile(run.records)
        records.write({"image": place})
        records.close()
    runs[1].complete()
    assert runs[1].merge() is None
    runs[0].complete()
    assert [record["image"] for record in read_records(runs[0].merge())] == ["a.png", "b.png"]
    for run in runs:
        run.release()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "predictions-00000-of-00002.jsonl",
        "predictions-00001-of-00002.jsonl",
        "predictions.jsonl",
        "run-00000-of-00002.json",
        "run-00001-of-00002.json",
    ]


def test_parts_of_two_runs_are_not_merged(tmp_path: Path) -> None:
    for index, weights in enumerate(("one", "two")):
        run = RunFolder(tmp_path, Shard(index, 2), FACTS | {"weights": weights}, 1, False, False)
        run.claim(ITEMS)
        run.begin()
        run.complete()
        run.release()
    with pytest.raises(InputError, match="run-00000-of-00002.json: is of another run than"):
        run.merge()


def test_records_hold_what_json_can(tmp_path: Path) -> None:
    records = RecordFile(tmp_path / "r.jsonl")
    records.write({"image": "布\n\udce4.png"})
    with pytest.raises(ValueError):
        records.write({"image": "a", "detections": [math.nan]})
    records.close()
    assert len((tmp_path / "r.jsonl").read_bytes().splitlines()) == 1
    assert list(read_records(tmp_path / "r.jsonl"))[0]["image"] == "布\n\udce4.png"
