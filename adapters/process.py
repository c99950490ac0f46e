"""Child processes that end when their work must end: at a deadline, on cancellation, on our death.

Each child leads its own process group, so that a terminal's Ctrl-C reaches it once, through us.
All code that starts a long child uses :func:`run_child`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from lab.durations import format_duration
from lab.errors import DeadlineError, InterruptedWorkError, PermanentError

#: How long a child may take to end by itself after the first signal (Terraform finishes the calls
#: under way and releases its lock), in seconds. Prefect gives a cancelled flow 30.
GRACE = 25.0
#: How much a child may still write after our death; writing more would block it.
PIPE_BYTES = 1 << 20

_running: set[subprocess.Popen[bytes]] = set()
_lock = threading.Lock()
_interrupted = threading.Event()


@dataclass(frozen=True)
class Finished:
    """A child that ended by itself: its exit code and everything it wrote."""

    code: int
    stdout: str
    stderr: str


def run_child(
    argv: Sequence[str],
    *,
    deadline: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_stdout: Callable[[str], None] | None = None,
    on_stderr: Callable[[str], None] | None = None,
) -> Finished:
    """Run ``argv`` to its end and return it, whatever its exit code.

    ``env`` is the whole environment (default: ours). The callbacks get each line as it comes, from
    a thread of their own. When this returns or raises, no process of the child's group runs.
    Raises DeadlineError after ``deadline`` seconds, InterruptedWorkError after
    :func:`interrupt_children`, PermanentError when the program is not there.
    """
    name = Path(argv[0]).name
    if shutil.which(argv[0], path=(env or os.environ).get("PATH")) is None:
        raise PermanentError(f"{name} is not on PATH", f"Install {name}.")
    with _lock:
        if _interrupted.is_set():
            raise InterruptedWorkError(f"{name} was not started: the run is ending")
        (out_end, child_out), (err_end, child_err) = _roomy_pipe(), _roomy_pipe()
        try:
            child = subprocess.Popen(
                [*_end_with_us(), *argv],
                cwd=cwd,
                env=None if env is None else dict(env),
                stdin=subprocess.DEVNULL,
                stdout=child_out,
                stderr=child_err,
                # The child reads nothing. It holds these ends so that, if we are killed, its last
                # output breaks no pipe: that would kill Terraform while it holds its lock.
                pass_fds=(out_end.fileno(), err_end.fileno()),
                start_new_session=True,
            )
        finally:
            os.close(child_out)
            os.close(child_err)
        _running.add(child)
    out, err = _Pump(out_end, on_stdout), _Pump(err_end, on_stderr)
    try:
        try:
            code = _await_end(child, deadline)
        except subprocess.TimeoutExpired:
            end_process(child)
            raise DeadlineError(
                f"{name} did not end within {format_duration(deadline)} and was stopped",
                "Run the command again; it goes on from what exists.",
            ) from None
        if _interrupted.is_set():
            raise InterruptedWorkError(f"{name} was interrupted: the run is ending")
        return Finished(code, out.text(), err.text())
    finally:
        end_process(child)
        out.text()
        err.text()
        with _lock:
            _running.discard(child)


def _await_end(child: subprocess.Popen[bytes], deadline: float) -> int:
    """The exit code of ``child``; TimeoutExpired after ``deadline`` seconds.

    An interrupted child has GRACE seconds from then on, and gets no second signal: a second SIGINT
    would make Terraform drop its lock and its state.
    """
    end = time.monotonic() + deadline
    while True:
        try:
            return child.wait(timeout=max(0.0, min(0.25, end - time.monotonic())))
        except subprocess.TimeoutExpired:
            if _interrupted.is_set():
                return _leave_grace(child)
            if time.monotonic() >= end:
                raise


def _leave_grace(child: subprocess.Popen[bytes]) -> int:
    try:
        return child.wait(timeout=GRACE)
    except subprocess.TimeoutExpired:
        _kill_group(child)
        return child.wait()


def end_process(child: subprocess.Popen[bytes]) -> None:
    """End ``child`` and its group: SIGINT, GRACE seconds, SIGKILL. Safe on an ended child."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        _leave_grace(child)
    _kill_group(child)


def interrupt_children() -> None:
    """Ask every child to end, and let no new one start. Returns at once."""
    with _lock:
        _interrupted.set()
        for child in _running:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)


def raise_if_interrupted(what: str) -> None:
    """Raise InterruptedWorkError if the run is ending; for work that is not a child process."""
    if _interrupted.is_set():
        raise InterruptedWorkError(f"{what} was interrupted: the run is ending")


@contextmanager
def interruptible() -> Iterator[None]:
    """Within this block an exception in the calling thread ends the children of all threads.

    A flow's cancellation is raised in its main thread, while the children run for its tasks; the
    tasks' threads only end once their children do.
    """
    _interrupted.clear()
    try:
        yield
    except Exception:
        raise
    except BaseException:
        interrupt_children()
        raise


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


@cache
def hear_interrupts() -> tuple[str, ...]:
    """A wrapper that makes a program react to interrupts.

    A job that was started in the background ignores them, and its children would inherit that.
    """
    hear = ("env", "--default-signal=INT")
    return hear if shutil.which("env") and _works(*hear, "true") else ()


@cache
def _end_with_us() -> tuple[str, ...]:
    """Wrappers that make a child react to interrupts, and interrupt it if we are killed."""
    die = ("setpriv", "--pdeathsig", "INT", "--") if shutil.which("setpriv") else ()
    return (*hear_interrupts(), *die)


def _roomy_pipe() -> tuple[IO[str], int]:
    """A pipe's reading end as text, and its writing end, with room for output nobody reads."""
    reading, writing = os.pipe()
    with suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return os.fdopen(reading, encoding="utf-8", errors="replace"), writing


def _works(*argv: str) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


class _Pump:
    """Reads a stream to its end in a thread, so that neither of two pipes can fill up."""

    def __init__(self, stream: IO[str], on_line: Callable[[str], None] | None) -> None:
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._read, args=(stream, on_line), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[str], on_line: Callable[[str], None] | None) -> None:
        with stream:
            for line in stream:
                self._lines.append(line)
                if on_line:
                    on_line(line.rstrip("\n"))

    def text(self) -> str:
        # A grandchild that escaped the group could hold the pipe open forever.
        self._thread.join(timeout=5)
        return "".join(self._lines)


def process_alive(pid: int) -> bool:
    """Whether a process ``pid`` exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rsplit(")", 1)[-1].split()[0] != "Z"


def wait_gone(pid: int, deadline: float) -> bool:
    """Whether process ``pid`` is gone within ``deadline`` seconds."""
    end = time.monotonic() + deadline
    while process_alive(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
