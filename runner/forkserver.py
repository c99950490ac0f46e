"""Begins flow runs in processes forked from one that has imported Prefect and the flows already.

These imports take seconds before a run's first task, and as much processor time. The worker begins
each run with ``runner/flow_run.py``, which asks this server. If the server does not answer, or an
imported file has changed since, the run begins as Prefect begins it.

Run as ``python -m runner.forkserver``. It has only one thread, so that no fork copies a lock
that another thread holds.
"""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from adapters.aws.session import read_descriptions
from lab.settings import ROOT
from runner.flow_run import address, receive, send, socket_path
from workstation.targets import state_home

#: What a run imports besides its flow, before its first task or later.
PRELOADED = (
    "prefect.main",
    "prefect.engine",
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect_aws",
    "prefect_docker.deployments.steps",
    "openai",
    "lab.image.sbom",
    # The modules above import these when they are first used, which happens in every run.
    "anyio._backends._asyncio",
    "cryptography.hazmat.backends.openssl.backend",
    "cyclonedx.output.json",
    "httpcore2",
    "openai.lib.streaming.chat",
    "openai.resources.chat.completions.completions",
    "openai.resources.models",
    "prefect._internal.pytz",
    "prefect.utilities.visualization",
    "rich._emoji_codes",
)
ENGINE = "prefect.engine"
REQUEST_SECONDS = 10.0
QUEUE = 64
STANDARD_FILES = 3


@dataclass(frozen=True)
class Request:
    """A run to begin: its whole environment, its folder, its standard input, output and error."""

    environment: dict[str, str]
    folder: str
    files: Sequence[int]


@dataclass
class Server:
    """The fork server that listens at ``listener``, with the files that it has ``imported``."""

    listener: socket.socket
    imported: dict[str, tuple[int, int]]
    #: For each process, the connection that waits for its end.
    waiting: dict[int, socket.socket] = field(default_factory=dict)

    def serve(self) -> Request:
        """Answer forever; return only in a forked process, with the request that it is to run."""
        wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        with selectors.DefaultSelector() as selector:
            selector.register(self.listener, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self.listener:
                        connection, _ = self.listener.accept()
                        request = self._answer(connection)
                        if request is not None:
                            self._leave(wake, woken)
                            return request
                        if connection in self.waiting.values():
                            selector.register(connection, selectors.EVENT_READ)
                    elif key.fileobj == wake:
                        signals = os.read(wake, 512)
                        for connection in self._reap():
                            selector.unregister(connection)
                            connection.close()
                        if signal.SIGTERM in signals or signal.SIGINT in signals:
                            self._end()
                    elif key.fileobj in self.waiting.values():
                        # The process that asked for the run has gone: its end would be unknown.
                        assert isinstance(key.fileobj, socket.socket)
                        selector.unregister(key.fileobj)
                        self._kill_process(key.fileobj)
                if not self.waiting and self._stale():
                    _restart()

    def _answer(self, connection: socket.socket) -> Request | None:
        """Fork for a new connection; return its request in the new process, ``None`` in this."""
        connection.settimeout(REQUEST_SECONDS)
        try:
            fresh = not self._stale()
            send(connection, {"ready": fresh})
            if not fresh:
                connection.close()
                return None
            content, files = receive(connection, STANDARD_FILES)
            request = Request(content["environment"], content["folder"], files)
            pid = os.fork()
        except (OSError, EOFError, ValueError, KeyError) as error:
            sys.stderr.write(f"no process was begun: {error!r}\n")
            connection.close()
            return None
        if pid == 0:
            connection.close()
            return request
        for number in files:
            os.close(number)
        self.waiting[pid] = connection
        # The process that asked may have gone meanwhile; the selector will report it.
        with suppress(OSError):
            send(connection, {"pid": pid})
        return None

    def _reap(self) -> Iterator[socket.socket]:
        """Report the status of each process that has ended; yield the connection that waited."""
        while self.waiting:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            connection = self.waiting.pop(pid)
            with suppress(OSError):
                send(connection, {"status": status})
            yield connection

    def _kill_process(self, connection: socket.socket) -> None:
        """Kill the process that ``connection`` waits for: the process that asked was killed."""
        for pid in [pid for pid, one in self.waiting.items() if one is connection]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            del self.waiting[pid]
        connection.close()

    def _end(self) -> NoReturn:
        for connection in list(self.waiting.values()):
            self._kill_process(connection)
        socket_path(state_home()).unlink(missing_ok=True)
        sys.exit(0)

    def _leave(self, *pipe: int) -> None:
        """Close, in a forked process, everything that belongs to the server."""
        for connection in (self.listener, *self.waiting.values()):
            connection.close()
        signal.set_wakeup_fd(-1)
        for number in pipe:
            os.close(number)

    def _stale(self) -> bool:
        return any(_stamp(path) != stamp for path, stamp in self.imported.items())


def listen(path: Path) -> socket.socket:
    """A socket at ``path`` for this user alone; a connection waits until it is accepted."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        with address(path) as name:
            listener.bind(name)
    finally:
        os.umask(before)
    listener.listen(QUEUE)
    return listener


def preload() -> dict[str, tuple[int, int]]:
    """Import and read what runs need; return the modules' files with their times and sizes.

    Raises RuntimeError if an import has started a thread.
    """
    flows = sorted(path.stem for path in (ROOT / "flows").glob("lab_*.py"))
    for name in (*PRELOADED, *(f"flows.{flow}" for flow in flows)):
        importlib.import_module(name)
    read_descriptions()
    if threading.active_count() != 1:
        raise RuntimeError(f"an import has started threads: {threading.enumerate()}")
    # Later collections skip the objects that exist now, and so do not copy their pages.
    gc.collect()
    gc.freeze()
    modules = list(sys.modules.values())
    files = {str(file) for module in modules if (file := getattr(module, "__file__", None))}
    return {file: _stamp(file) for file in files}


def _stamp(path: str) -> tuple[int, int]:
    try:
        found = Path(path).stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


def _restart() -> NoReturn:
    """Import everything again, as a new program in the same process: no run waits for it."""
    os.execv(sys.executable, [sys.executable, "-m", "runner.forkserver"])  # noqa: S606


def _become(request: Request) -> None:
    """Turn this forked process into the one that the worker would have started by itself."""
    from prefect.context import refresh_global_settings_context

    os.setsid()
    for usual in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(usual, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for standard, number in enumerate(request.files):
        os.dup2(number, standard)
        os.close(number)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    sys.argv = [ENGINE]
    refresh_global_settings_context()


def main() -> None:
    """Serve; in each forked process, run the flow run that was asked for."""
    listener = listen(socket_path(state_home()))
    request = Server(listener, preload()).serve()
    _become(request)
    sys.modules.pop(ENGINE, None)
    runpy.run_module(ENGINE, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
