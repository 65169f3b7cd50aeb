"""Checkpoint files: round trips, every kind of damage, and pickles that would run code."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.checkpoint import io
from engine.errors import InputError


def state() -> dict:
    return {
        "format": "engine-1",
        "model": OrderedDict(weight=torch.arange(6.0).reshape(2, 3), count=torch.tensor(7)),
        "class_names": ["scratch", "dent"],
        "thresholds": None,
        "iteration": 3,
    }


def assert_same(a: object, b: object) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b) and a.dtype == b.dtype
    elif isinstance(a, dict):
        assert set(a) == set(b)
        for key in a:
            assert_same(a[key], b[key])
    else:
        assert a == b


class Attack:
    """A pickle that creates a file when it is loaded without restrictions."""

    def __init__(self, marker: Path, how: str = "system") -> None:
        self.marker, self.how = marker, how

    def __reduce__(self) -> tuple:
        if self.how == "system":
            return os.system, (f"touch {self.marker}",)
        if self.how == "eval":
            return eval, (f"open({str(self.marker)!r}, 'w')",)
        return open, (str(self.marker), "w")


def one_line(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        io.load(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "deep" / f"model{suffix}"
    io.save(path, state())
    assert_same(io.load(path), state())
    assert_same(io.load(path, mmap=True), state())
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_random_states_and_numpy_values_pass(tmp_path: Path) -> None:
    given = {
        "numpy": np.random.get_state(),
        "python": random.getstate(),
        "torch": torch.get_rng_state(),
        "scalar": np.float64(0.5),
    }
    io.save(tmp_path / "rng.pth", given)
    back = io.load(tmp_path / "rng.pth")
    np.random.set_state(back["numpy"])
    random.setstate(back["python"])
    torch.set_rng_state(back["torch"])
    assert back["scalar"] == 0.5


def test_what_load_would_refuse_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    io.save(path, state())
    before = path.read_bytes()
    with pytest.raises(TypeError, match="pathlib"):
        io.save(path, {"where": tmp_path})
    with pytest.raises(TypeError, match="optimizer"):
        io.save(tmp_path / "w.safetensors", {**state(), "optimizer": {"momentum": torch.ones(2)}})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_safetensors_of_others_are_plain_tensors(tmp_path: Path) -> None:
    import safetensors.torch

    safetensors.torch.save_file({"a.weight": torch.ones(2)}, tmp_path / "x.safetensors")
    assert_same(io.load(tmp_path / "x.safetensors"), {"a.weight": torch.ones(2)})


def test_files_of_old_torch(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_same(io.load(tmp_path / "old.pth"), state())


@pytest.mark.parametrize("how", ["system", "eval", "open"])
@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth", "weights.pkl", "disguised.pth"])
def test_attack_is_refused_by_name(tmp_path: Path, name: str, how: str) -> None:
    path, marker = tmp_path / name, tmp_path / "marker"
    content = {"blobs": {"conv1_w": Attack(marker, how)}}
    if name in ("zip.pth", "legacy.pth"):
        torch.save(content, path, _use_new_zipfile_serialization=name == "zip.pth")
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    message = one_line(path)
    assert "refused" in message and how in message
    assert not marker.exists()


HOSTILE = {
    # what: pickle opcodes, each asking for something beyond arrays
    "os.system": b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
    "builtins.getattr": b"\x80\x02c__builtin__\ngetattr\nX\x01\x00\x00\x00aX\x01\x00\x00\x00b\x86R.",
    "numpy.load": b"\x80\x02cnumpy\nload\nX\x01\x00\x00\x00a\x85R.",
    "numpy.f2py.crackfortran.myeval": b"\x80\x02cnumpy.f2py.crackfortran\nmyeval\nX\x01\x00\x00\x001\x85R.",
    # setting attributes of what find_class returns
    "attribute": b"\x80\x02ccollections\nOrderedDict\n(N}X\x07\x00\x00\x00__doc__K\x01stb.",
    # dotted names that walk from an allowed object to another one (protocol 4)
    "collections.OrderedDict.fromkeys": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93)R.",
    # object arrays
    "'O8'": b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00O8K\x00K\x01\x87R.",
    "_codecs.encode": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_opcodes_are_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "weights.pkl"
    path.write_bytes(HOSTILE[what])
    message = one_line(path)
    assert "refused" in message
    # Python maps names of version 2 (`__builtin__`) before asking
    assert what in message or what.replace("builtins", "__builtin__") in message


def test_huge_claims_do_not_allocate(tmp_path: Path) -> None:
    """An array that claims 10**12 elements but has four bytes."""
    array = pickle.dumps(np.zeros(1, np.float32), protocol=2)
    bad = array.replace(b"K\x01K\x01\x85", b"K\x01\x8a\x05\x00\x10\xa5\xd4\xe8\x85")
    assert bad != array
    (tmp_path / "w.pkl").write_bytes(bad)
    one_line(tmp_path / "w.pkl")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_of_any_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    blobs = {
        "a_w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "f_w": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">i4"),
        "bool": np.array([True, False]),
        "scalar": np.float32(2.5),
        "empty": np.zeros((0, 4), np.float32),
    }
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(OrderedDict(blobs=blobs, cfg="yaml"), protocol))
    back = io.load(tmp_path / "w.pkl")
    assert back["cfg"] == "yaml"
    for name, array in blobs.items():
        assert np.array_equal(back["blobs"][name].numpy(), array), name


def test_python_2_pickle(tmp_path: Path) -> None:
    """Written as Python 2 did: byte strings under the name `str`, array data as latin-1."""
    data = np.array([1.5, -2.0], np.float32).tobytes()
    short = b"U" + bytes([len(data)]) + data
    path = tmp_path / "R-50.pkl"
    path.write_bytes(
        b"\x80\x02}q\x01U\x05blobsq\x02}q\x03U\x07conv1_wq\x04"
        b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89" + short + b"tbss."
    )
    assert io.load(path)["blobs"]["conv1_w"].tolist() == [1.5, -2.0]


DAMAGE = {
    "empty": b"",
    "web page": b"\n<!DOCTYPE html>\n<html><title>Google Drive - Virus scan warning</title></html>",
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n",
    "zeros": b"\0" * 1000,
    "not a checkpoint": b"hello, I am a text file\n",
    "not a dictionary": pickle.dumps([1, 2]),
    "a zip archive": b"PK\x05\x06" + b"\0" * 18,
}


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_what_is_no_checkpoint_is_said(tmp_path: Path, what: str, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(DAMAGE[what])
    message = one_line(path)
    assert what.split()[-1] in message or "not a checkpoint" in message


def test_missing_folder_and_whole_model(tmp_path: Path) -> None:
    io.save(tmp_path / "model_0000100.pth", state())
    assert "did you mean" in one_line(tmp_path / "model_000100.pth")
    assert "no folder" in one_line(tmp_path / "nowhere" / "model.pth")
    assert "model_0000100.pth" in one_line(tmp_path)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    assert "state_dict" in one_line(tmp_path / "whole.pth")
    torch.save([1], tmp_path / "list.pth")
    assert "list" in one_line(tmp_path / "list.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".legacy", ".pkl"])
def test_truncation_is_noticed_anywhere(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix)
    whole = path.read_bytes()
    end = len(whole) - (23 if suffix == ".pth" else 0)  # the next test is about the checksum
    for length in range(0, end, max(1, end // 60)):
        path.write_bytes(whole[:length])
        one_line(path)


def test_cut_in_the_checksum_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = write(tmp_path, ".pth")
    whole = path.read_bytes()
    for missing in range(1, 24):
        path.write_bytes(whole[:-missing])
        try:
            assert_same(io.load(path), state())
        except InputError:
            continue
        assert 8 < missing < 23  # no digest and no marker, but all of the archive


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_bit_flip_is_noticed_or_harmless(tmp_path: Path, suffix: str) -> None:
    """Flip a bit in each byte in turn: the result is either an error or exactly the same content."""
    path = write(tmp_path, suffix)
    whole = path.read_bytes()
    expected = io.load(path)
    noticed = 0
    step = 1 if suffix == ".safetensors" else 3
    for at in range(0, len(whole), step):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at % 8)
        path.write_bytes(damaged)
        try:
            assert_same(io.load(path), expected)
        except InputError:
            noticed += 1
    assert noticed > 0


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"model{suffix}"
    if suffix == ".legacy":
        torch.save(state(), path, _use_new_zipfile_serialization=False)
    elif suffix == ".pkl":
        path.write_bytes(pickle.dumps({"blobs": {"conv1_w": np.ones(50, np.float32)}}, protocol=2))
    else:
        io.save(path, state())
    return path


FULL_DISK = """
import resource, signal, sys, torch
from engine.checkpoint import io
from engine.errors import InputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    io.save(sys.argv[1], {"model": {"w": torch.zeros(int(sys.argv[2]))}})
except InputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_full_disk_keeps_the_good_file(tmp_path: Path, suffix: str) -> None:
    """A limit on file size simulates a full disk: the write fails half-way."""
    path = tmp_path / f"model{suffix}"
    io.save(path, state())
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), "2000000"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.count("\n") == 1 and "cannot be written" in done.stdout
    assert "previous file is kept" in done.stdout
    assert_same(io.load(path), state())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_interrupt_while_writing_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pth"
    io.save(path, state())

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        io.save(path, {"model": {}})
    assert_same(io.load(path), state())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_a_file_says_cannot_break_the_line(tmp_path: Path) -> None:
    name = b"posix\n\x1b[2J"
    path = tmp_path / "w.pkl"
    path.write_bytes(b"\x80\x04\x8c" + bytes([len(name)]) + name + b"\x8c\x06system\x93.")
    message = one_line(path)
    assert "\x1b" not in message and r"posix\n\x1b[2J.system" in message


def test_a_memo_index_does_not_allocate(tmp_path: Path) -> None:
    (tmp_path / "w.pkl").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    assert io.load(tmp_path / "w.pkl") == {}


KILLED = """
import sys, torch
from engine.checkpoint import Checkpointer
checkpointer, state = Checkpointer(sys.argv[1]), {"model": {"w": torch.arange(1_000_000)}}
print("ready", flush=True)
for i in range(10**6):
    checkpointer.save(f"model_{i % 3:07d}", {**state, "iteration": i})
"""


def test_a_kill_at_any_moment_leaves_whole_files(tmp_path: Path) -> None:
    from engine.checkpoint import Checkpointer

    for wait in (0.05, 0.23):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        process.stdout.readline()
        time.sleep(wait)
        process.kill()
        process.wait()
        process.stdout.close()
    for path in tmp_path.glob("model_*.pth"):
        assert len(io.load(path)["model"]["w"]) == 1_000_000
    path, _ = Checkpointer(tmp_path).load_last()
    assert path == Checkpointer(tmp_path).last()
