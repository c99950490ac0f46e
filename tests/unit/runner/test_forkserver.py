"""The fork server and its client, with a small engine in the place of Prefect's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from lab.settings import ROOT
from lab.waiting import wait_for
from runner import forkserver

#: If the fork server has imported it, `IMPORTED_BY` is that process, else the run's own.
ENGINE = """
import os, pathlib, signal, sys, time
if __name__ != "__main__":
    import prefect.context
    prefect.context.IMPORTED_BY = os.getpid()
else:
    import prefect.context
    forked = prefect.context.IMPORTED_BY not in (None, os.getpid())
    print("forked" if forked else "begun", os.getcwd(), os.environ.get("RUN"), flush=True)
    print(prefect.context.REFRESHED, file=sys.stderr, flush=True)
    if os.environ.get("WAIT"):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        pathlib.Path(os.environ["WAIT"]).write_text(str(os.getpid()))
        time.sleep(60)
    if os.environ.get("KILL"):
        os.kill(os.getpid(), int(os.environ["KILL"]))
    sys.exit(int(os.environ.get("EXIT", "0")))
"""
CONTEXT = """
IMPORTED_BY, REFRESHED = None, "as imported"
def refresh_global_settings_context():
    global REFRESHED
    REFRESHED = "refreshed"
"""
SERVER = """
import sys
from runner import forkserver
def preload():
    import prefect.engine
    return {f: forkserver._stamp(f) for f in (prefect.engine.__file__,)}
forkserver.preload = preload
forkserver.main()
"""


class Runs:
    """Starts the client as the worker does, with the small engine on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / ("a-home-whose-path-is-longer-than-a-socket-may-have-" * 3)
        (self.home / "prefect").mkdir(parents=True)
        (folder / "prefect").mkdir()
        for name, text in {"__init__": "", "engine": ENGINE, "context": CONTEXT}.items():
            (folder / "prefect" / f"{name}.py").write_text(text)
        self.socket = self.home / "prefect" / "forkserver.sock"

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.folder}:{ROOT}"
        return {"PATH": os.environ["PATH"], "PYTHONPATH": path, "LAB_HOME": str(self.home)}

    def begin(self, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(ROOT / "runner" / "flow_run.py")],
            env=self.environment | environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, **environment: str) -> tuple[int, str, str]:
        process = self.begin(**environment)
        out, err = process.communicate(timeout=30)
        return process.returncode, out.strip(), err.strip()

    def begin_waiting(self) -> tuple[subprocess.Popen[str], int]:
        """A run that waits, and the process that it runs in."""
        pid_file = self.folder / "pid"
        process = self.begin(WAIT=str(pid_file))
        wait_for(
            "the run", lambda: (pid_file.exists() and pid_file.read_text()) or None, deadline=20
        )
        return process, int(pid_file.read_text())


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


@pytest.fixture
def server(runs: Runs) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", SERVER], env=runs.environment)
    wait_for("the socket", lambda: runs.socket.exists() or None, deadline=20)
    yield process
    end(process, signal.SIGTERM)


def end(process: subprocess.Popen[bytes], by: signal.Signals) -> None:
    process.send_signal(by)
    process.wait(timeout=20)


def gone(pid: int) -> Callable[[], bool | None]:
    return lambda: None if Path(f"/proc/{pid}").exists() else True


@pytest.mark.usefixtures("server")
def test_a_run_begins_in_a_fork_with_its_own_settings(runs: Runs) -> None:
    """should have the run's environment, folder, output and exit code, and fresh settings."""
    assert runs.run(RUN="one", EXIT="3") == (3, f"forked {runs.folder} one", "refreshed")
    assert runs.run(RUN="two") == (0, f"forked {runs.folder} two", "refreshed")


def test_without_a_fork_server_a_run_begins_as_prefect_begins_it(runs: Runs) -> None:
    """should become the engine itself, even if a dead server has left its socket."""
    expected = (4, f"begun {runs.folder} one", "as imported")
    assert runs.run(RUN="one", EXIT="4") == expected
    runs.socket.touch()
    assert runs.run(RUN="one", EXIT="4") == expected
    assert runs.run(RUN="one", EXIT="4", LAB_HOME="/nowhere") == expected


@pytest.mark.usefixtures("server")
def test_changed_code_is_loaded_again(runs: Runs) -> None:
    """should begin the run in a fresh process when a file has changed since its import."""
    assert runs.run()[1].startswith("forked")
    engine = runs.folder / "prefect" / "engine.py"
    engine.write_text(ENGINE.replace('"begun"', '"begun again"'))
    assert runs.run()[1].startswith("begun again")


@pytest.mark.usefixtures("server")
def test_a_signal_reaches_the_run_and_its_exit_code_is_returned(runs: Runs) -> None:
    """should let a cancelled run end by its own handler, and return its exit code."""
    process, pid = runs.begin_waiting()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 7
    wait_for("the end of the run", gone(pid), deadline=20)
    assert runs.run(KILL=str(int(signal.SIGKILL)))[0] == -signal.SIGKILL


@pytest.mark.usefixtures("server")
def test_a_killed_run_leaves_no_process(runs: Runs) -> None:
    """should kill the process of a run whose command was killed, as the worker kills it."""
    process, pid = runs.begin_waiting()
    process.kill()
    wait_for("the end of the run", gone(pid), deadline=20)
    assert runs.run(EXIT="5")[0] == 5, "the server goes on"


def test_a_run_outlives_a_fork_server_that_is_killed(
    runs: Runs, server: subprocess.Popen[bytes]
) -> None:
    """should let work in progress come to its end."""
    process, pid = runs.begin_waiting()
    end(server, signal.SIGKILL)
    os.kill(pid, signal.SIGTERM)
    assert process.wait(timeout=20) == 1
    assert "goes on to its end" in (process.stderr.read() if process.stderr else "")


def test_a_fork_server_that_is_stopped_ends_its_runs(
    runs: Runs, server: subprocess.Popen[bytes]
) -> None:
    """should leave neither process nor socket."""
    _, pid = runs.begin_waiting()
    end(server, signal.SIGTERM)
    wait_for("the end of the run", gone(pid), deadline=20)
    assert not runs.socket.exists()


def test_preloaded_modules_exist() -> None:
    """should name existing modules: without one of them the fork server would not begin"""
    assert [name for name in forkserver.PRELOADED if find_spec(name) is None] == []
