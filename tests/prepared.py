"""A process that has imported what every command imports, and forks itself for each command that a test runs.

Importing torch and the engine takes a command two to four seconds of CPU, more than most tests need for the rest. What
only a fresh process shows (order and time of imports, warnings on import, the locale, signals, launchers) is tested
with `start` or `run(..., fresh=True)` of `tests/end_to_end/conftest.py`.
"""

from __future__ import annotations

import array
import contextlib
import functools
import gc
import json
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


class PreparedProcess:
    """Runs scripts one after the other, each in a fork of a process that has imported the engine.

    Args:
        env: its environment, as far as Python reads it when it starts.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._socket, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(other.fileno())],
                cwd=REPOSITORY,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
            )

    def run(
        self, command: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """What `python command...` in `cwd` prints and returns.

        Raises:
            subprocess.TimeoutExpired: it was killed.
        """
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            request = json.dumps({"command": list(command), "cwd": str(cwd), "env": dict(env)}).encode()
            fds = array.array("i", [out.fileno(), err.fileno()])
            self._socket.settimeout(None)
            self._socket.sendmsg([len(request).to_bytes(8, "little")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            self._socket.sendall(request)
            pid = self._number()
            self._socket.settimeout(timeout)
            try:
                status = self._number()
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self._socket.settimeout(None)
                self._number()
                raise subprocess.TimeoutExpired(list(command), timeout) from None
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="backslashreplace").replace("\r\n", "\n"))
        return subprocess.CompletedProcess(list(command), os.waitstatus_to_exitcode(status), *texts)

    def _number(self) -> int:
        data = _receive(self._socket, 8)
        if not data:
            raise RuntimeError("the prepared process has ended")
        return int.from_bytes(data, "little")


@functools.cache
def prepared_process() -> PreparedProcess | None:
    """The one of this test process; None where there is no fork."""
    if not hasattr(os, "fork"):
        return None
    return PreparedProcess(clean_environment())


def clean_environment() -> dict[str, str]:
    """That of a user's shell: without what launchers and test runs add.

    `ENGINE_TESTS_KEEP_PYTHONPATH` is set where the packages that the engine needs are not installed.
    """
    left_out = {"LOCAL_RANK", "WORLD_SIZE"} | ({"PYTHONPATH"} - _kept())
    clean = {key: value for key, value in os.environ.items() if key not in left_out}
    return {**clean, "OMP_NUM_THREADS": "1"}


def _kept() -> set[str]:
    return {"PYTHONPATH"} if os.environ.get("ENGINE_TESTS_KEEP_PYTHONPATH") else set()


def _receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            return b""
        data += more
    return data


def _serve(connection: socket.socket) -> list[str] | None:
    """Fork for each request. Returns the command in the forks, None in the process itself when no more come."""
    while True:
        head, fds, _, _ = socket.recv_fds(connection, 8, 2)
        if not head:
            return None
        request = json.loads(_receive(connection, int.from_bytes(head, "little")))
        pid = os.fork()
        if not pid:
            connection.close()
            _become(request, fds)
            return request["command"]
        for fd in fds:
            os.close(fd)
        connection.sendall(pid.to_bytes(8, "little"))
        connection.sendall(os.waitpid(pid, 0)[1].to_bytes(8, "little"))


def _become(request: dict, fds: Sequence[int]) -> None:
    for number, fd in enumerate(fds, 1):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    random.seed()
    import numpy as np

    np.random.seed()


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(connection.fileno(), False)
    sys.path[0] = str(REPOSITORY)
    import engine.assembly.analysis
    import engine.assembly.detector
    import engine.assembly.predicting
    import engine.assembly.testing
    import engine.assembly.training
    import engine.inference.drawing  # noqa: F401

    gc.freeze()
    with contextlib.suppress(KeyboardInterrupt):
        command = _serve(connection)
        if command is None:
            return
    sys.argv = command
    sys.path[0] = str(Path(command[0]).resolve().parent)
    gc.enable()
    runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    main()
