from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from engine import distributed
from engine.distributed import Notes, store_of_this_start
from engine.errors import InputError


def test_restarted_processes_do_not_meet_the_dead() -> None:
    """One store for all starts, as in torchrun; the second start must not read values of the first one."""
    server = dist.TCPStore("localhost", 0, is_master=True, timeout=timedelta(seconds=30))

    def process(rank: int) -> str:
        own = store_of_this_start(dist.TCPStore("localhost", server.port, timeout=timedelta(seconds=30)), rank, size=3)
        own.set(f"address/{rank}", f"start {start} rank {rank}")
        return ", ".join(own.get(f"address/{other}").decode() for other in range(3))

    for start in (1, 2, 3):
        with ThreadPoolExecutor(3) as threads:
            found = set(threads.map(process, range(3)))
        assert found == {f"start {start} rank 0, start {start} rank 1, start {start} rank 2"}


def test_a_start_whose_processes_died_early_does_no_harm() -> None:
    server = dist.TCPStore("localhost", 0, is_master=True, timeout=timedelta(seconds=30))
    server.set("question/1", "asked by a process that died")

    def process(rank: int) -> bytes:
        own = store_of_this_start(dist.TCPStore("localhost", server.port, timeout=timedelta(seconds=30)), rank, size=2)
        own.set(str(rank), "here")
        return own.get(str(1 - rank))

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(process, range(2))) == [b"here", b"here"]


def test_a_timeout_names_the_missing_processes() -> None:
    moment = timedelta(seconds=0.3)
    server = dist.TCPStore("localhost", 0, is_master=True, timeout=timedelta(seconds=30))
    with pytest.raises(InputError, match="timed out waiting for ranks 1, 2 of 3 processes"):
        store_of_this_start(server, 0, size=3, timeout=moment)
    with pytest.raises(InputError, match="process 2 of 3 timed out waiting for the main process"):
        store_of_this_start(server, 2, size=3, timeout=moment)


def test_notes_reach_other_processes() -> None:
    server = dist.TCPStore("localhost", 0, is_master=True, timeout=timedelta(seconds=30))
    ours, theirs = Notes(server), Notes(dist.TCPStore("localhost", server.port, timeout=timedelta(seconds=30)))
    assert theirs.read("signal") == ""
    assert ours.leave("signal", "15") and theirs.read("signal") == "15"
    assert theirs.holds("signal") and theirs.wait("signal", 0.0) and not theirs.holds("saved")
    assert not theirs.wait("saved", 0.2)


def test_one_process_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes(dist.TCPStore("localhost", 0, is_master=True, timeout=timedelta(seconds=30)))
    claims = []
    for rank in (1, 0, 1):
        monkeypatch.setattr("engine.distributed.rank", lambda rank=rank: rank)
        claims.append(notes.claim("saver"))
    assert claims == [True, False, True]


def test_a_store_that_does_not_answer_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        def check(self, keys: list[str]) -> bool:
            threading.Event().wait()

    notes = Notes(Silent())
    began = time.monotonic()
    assert notes.read("signal") == "" and not notes.wait("saved", 60.0) and notes.claim("saver")
    assert time.monotonic() - began < 4  # the main process may save; another one would not
    monkeypatch.setattr("engine.distributed.is_main", lambda: False)
    assert not notes.claim("saver") and not notes.leave("signal", "15")


def test_normalizers_do_not_depend_on_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four processes with 0.1 and 3 each: in total 0.4, which counts as 1, and 12."""
    sums = torch.tensor([0.1, 3.0])
    torch.testing.assert_close(distributed.normalizers(4 * sums), torch.tensor([1.0, 12.0]))
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: tensor.mul_(4))
    torch.testing.assert_close(4 * distributed.normalizers(sums), torch.tensor([1.0, 12.0]))
    with distributed.alone():
        torch.testing.assert_close(distributed.normalizers(sums), torch.tensor([1.0, 3.0]))
