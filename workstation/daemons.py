"""The project's background processes: they outlive the command that starts them, and can be found.

A pid file holds the process's number and its start time: a reused number is never mistaken for the
process.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from adapters.process import hear_interrupts, process_alive, wait_gone
from lab.errors import PermanentError

LAST_WORDS = 15
STOP_SECONDS = 40.0


@dataclass(frozen=True)
class Daemon:
    """A named background process whose pid file and log are in ``folder``."""

    name: str
    folder: Path

    @property
    def log_path(self) -> Path:
        """The file that the process writes to."""
        return self.folder / f"{self.name}.log"

    def pid(self) -> int | None:
        """The process's number if it lives, else ``None``."""
        try:
            number, started = self._pid_path.read_text(encoding="ascii").split()
            pid = int(number)
        except (OSError, ValueError):
            return None
        return pid if process_alive(pid) and _start_time(pid) == started else None

    def start(self, argv: Sequence[str], env: Mapping[str, str]) -> int:
        """Start ``argv`` detached from this process and its terminal; return its number.

        A process that lives already is left as it is.
        """
        running = self.pid()
        if running is not None:
            return running
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as output:
            process = subprocess.Popen(
                [*hear_interrupts(), *argv],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._pid_path.write_text(f"{process.pid} {_start_time(process.pid)}", encoding="ascii")
        return process.pid

    def check_alive(self) -> None:
        """Raise PermanentError with the log's last lines if the process is gone."""
        if self.pid() is None:
            raise PermanentError(
                f"{self.name} ended at once. Its last words:\n{self.last_words()}",
                f"The whole log is {self.log_path}.",
            )

    def stop(self, log: Callable[[str], None]) -> None:
        """On return the process and its group are gone. Safe when it does not run."""
        pid = self.pid()
        if pid is not None:
            log(f"Stopping {self.name}")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            if not wait_gone(pid, STOP_SECONDS):
                log(f"{self.name} does not end by itself; killing it")
            # Also if it ended by itself: it may have left processes of its group behind.
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            wait_gone(pid, STOP_SECONDS)
        self._pid_path.unlink(missing_ok=True)

    def last_words(self) -> str:
        """The end of the log."""
        try:
            with self.log_path.open(encoding="utf-8", errors="replace") as file:
                return "".join(deque(file, maxlen=LAST_WORDS)).rstrip()
        except OSError:
            return ""

    @property
    def _pid_path(self) -> Path:
        return self.folder / f"{self.name}.pid"


def _start_time(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return stat.rsplit(")", 1)[-1].split()[19]
