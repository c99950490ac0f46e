"""Runs the flow run of this environment: the command that the worker starts for each run.

It asks the fork server for a process that has imported everything; if none answers, it becomes
Prefect's own engine. It represents that process until the end: it passes signals on, and ends with
the same status. It imports only the standard library, so that it begins at once:
``python -I -S runner/flow_run.py``.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

#: How long a fork server may take to its first message, in seconds: it may still be importing.
READY_SECONDS = 30.0
LENGTH = struct.Struct("!I")
BODY_LIMIT = 1 << 20


def socket_path(home: str | Path) -> Path:
    """Where the fork server of the state folder ``home`` listens."""
    return Path(home) / "prefect" / "forkserver.sock"


@contextmanager
def address(path: Path) -> Iterator[str]:
    """Within the block, a name of the socket ``path`` that is short enough for the kernel."""
    folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def send(connection: socket.socket, content: dict[str, Any], files: tuple[int, ...] = ()) -> None:
    """Send ``content`` as JSON after its length, with copies of the open ``files``."""
    body = json.dumps(content).encode()
    socket.send_fds(connection, [LENGTH.pack(len(body))], files)
    connection.sendall(body)


def receive(connection: socket.socket, files: int = 0) -> tuple[dict[str, Any], list[int]]:
    """What :func:`send` sent, and up to ``files`` open files. EOFError once nothing more comes."""
    head, taken, _, _ = socket.recv_fds(connection, LENGTH.size, files)
    try:
        head += _exactly(connection, LENGTH.size - len(head))
        (length,) = LENGTH.unpack(head)
        if length > BODY_LIMIT:
            raise ValueError(f"{length} bytes are more than the {BODY_LIMIT} that are allowed")
        content: dict[str, Any] = json.loads(_exactly(connection, length))
    except BaseException:
        for number in taken:
            os.close(number)
        raise
    return content, taken


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = connection.recv(count - len(found))
        if not part:
            raise EOFError("the other side has gone")
        found += part
    return found


def main() -> NoReturn:
    """Does not return: ends as the run's process ends, or becomes it."""
    connection = _connect(socket_path(os.environ.get("LAB_HOME", "")))
    pid = _begin(connection) if connection is not None else None
    if connection is None or pid is None:
        os.execv(sys.executable, [sys.executable, "-m", "prefect.engine"])  # noqa: S606
    for end in (signal.SIGTERM, signal.SIGINT):
        signal.signal(end, lambda number, _: _pass_on(pid, number))
    try:
        status: int = receive(connection)[0]["status"]
    except (EOFError, OSError):
        sys.stderr.write("the fork server has gone; the run goes on to its end\n")
        _await_end(pid)
        sys.exit(1)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    sys.exit(os.waitstatus_to_exitcode(status))


def _connect(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(READY_SECONDS)
    try:
        with address(path) as name:
            connection.connect(name)
        ready, _ = receive(connection)
    except (OSError, EOFError, ValueError):
        connection.close()
        return None
    if not ready.get("ready"):
        connection.close()
        return None
    return connection


def _begin(connection: socket.socket) -> int | None:
    """The process that runs the run; ``None`` if the server could not make one."""
    request = {"environment": dict(os.environ), "folder": str(Path.cwd())}
    try:
        send(connection, request, (0, 1, 2))
        answer, _ = receive(connection)
    except (OSError, EOFError, ValueError):
        # The server closes its end of the connection only if it made no process, or kills it.
        return None
    connection.settimeout(None)
    pid = answer.get("pid")
    return int(pid) if pid else None


def _pass_on(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _await_end(pid: int) -> None:
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        select.select([handle], [], [])


if __name__ == "__main__":
    main()
