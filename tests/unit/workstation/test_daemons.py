"""Background processes are found again, never confused, and gone after they are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.process import process_alive, wait_gone
from lab.errors import PermanentError
from lab.settings import ROOT
from lab.waiting import wait_for
from workstation import daemons
from workstation.daemons import Daemon

LONG = 30.0
SLEEP = ["sleep", "300"]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon("thing", tmp_path / "home")
    yield made
    made.stop(lambda _: None)


@pytest.fixture
def said() -> list[str]:
    return []


def lines(daemon: Daemon, count: int) -> list[str]:
    def check() -> list[str] | None:
        found = daemon.log_path.read_text().splitlines()
        return found if len(found) >= count else None

    return wait_for("the daemon's lines", check, deadline=LONG, first_pause=0.01)


def test_starts_and_is_found_again(daemon: Daemon) -> None:
    """should be found later by name and folder alone"""
    pid = daemon.start(SLEEP, os.environ)
    assert Daemon("thing", daemon.folder).pid() == pid
    assert Daemon("other", daemon.folder).pid() is None
    daemon.check_alive()


def test_starts_only_once(daemon: Daemon) -> None:
    """should leave a running one unchanged"""
    assert daemon.start(SLEEP, os.environ) == daemon.start(SLEEP, os.environ)


def test_receives_interrupts_if_its_parent_ignores_them(daemon: Daemon) -> None:
    """should not ignore them as a background job does: Prefect's worker ends by an interrupt"""
    start = (
        "import os, pathlib, signal, sys; from workstation.daemons import Daemon\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"Daemon('thing', pathlib.Path(sys.argv[1])).start({SLEEP}, os.environ)"
    )
    subprocess.run([sys.executable, "-c", start, str(daemon.folder)], cwd=ROOT, check=True)
    pid = daemon.pid()
    assert pid is not None
    os.kill(pid, signal.SIGINT)
    assert wait_gone(pid, LONG)


def test_is_separate_from_our_terminal(daemon: Daemon) -> None:
    """should lead its own session, so that Ctrl-C here does not reach it"""
    pid = daemon.start(SLEEP, os.environ)
    assert os.getsid(pid) == pid


def test_has_exactly_the_given_environment(daemon: Daemon) -> None:
    """should not pass ours on to it"""
    daemon.start(["/bin/sh", "-c", "echo $ONLY$HOME; exec sleep 300"], {"ONLY": "this"})
    assert lines(daemon, 1) == ["this"]


def test_stop_ends_it(daemon: Daemon, said: list[str]) -> None:
    """should be gone when stop returns, and log it once"""
    pid = daemon.start(SLEEP, os.environ)
    daemon.stop(said.append)
    assert not process_alive(pid)
    assert daemon.pid() is None
    daemon.stop(said.append)
    assert said == ["Stopping thing"]


def test_stop_ends_its_group(daemon: Daemon) -> None:
    """should also end the processes that it had started and did not end itself"""
    script = "trap 'exit 0' TERM; (trap '' TERM; exec sleep 300) & echo $!; wait"
    daemon.start(["/bin/sh", "-c", script], os.environ)
    child = int(lines(daemon, 1)[0])
    daemon.stop(lambda _: None)
    assert wait_gone(child, LONG)


def test_stop_kills_a_process_that_does_not_end(
    daemon: Daemon, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """should not hang on a process that ignores the request"""
    monkeypatch.setattr(daemons, "STOP_SECONDS", 0.3)
    script = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    pid = daemon.start(["/bin/sh", "-c", script], os.environ)
    lines(daemon, 1)
    daemon.stop(said.append)
    assert wait_gone(pid, LONG)
    assert said[-1] == "thing does not end by itself; killing it"


def test_a_reused_process_number_is_not_ours(daemon: Daemon, said: list[str]) -> None:
    """should neither find nor stop another process that now has the number"""
    other = subprocess.Popen(SLEEP)
    try:
        daemon.folder.mkdir()
        pid_path = daemon.folder / "thing.pid"
        pid_path.write_text(f"{other.pid} 1")
        assert daemon.pid() is None
        daemon.stop(said.append)
        assert process_alive(other.pid)
        assert said == []
        assert not pid_path.exists()
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("content", ["", "12", "abc def", "1 2 3", "\x00"])
def test_a_broken_pid_file_is_no_process(daemon: Daemon, content: str) -> None:
    """should take a file that was half written for no process"""
    daemon.folder.mkdir()
    (daemon.folder / "thing.pid").write_text(content)
    assert daemon.pid() is None


def test_shows_the_last_lines_of_one_that_died_at_once(daemon: Daemon) -> None:
    """should show the end of the log, and where the rest is"""
    script = "for n in range(40): print('line', n)\nraise SystemExit(3)"
    pid = daemon.start([sys.executable, "-S", "-c", script], os.environ)
    assert wait_gone(pid, LONG)
    with pytest.raises(PermanentError) as caught:
        daemon.check_alive()
    shown = caught.value.message.splitlines()
    assert shown[0] == "thing ended at once. Its last words:"
    assert shown[1:] == [f"line {n}" for n in range(25, 40)]
    assert str(daemon.log_path) in caught.value.hint


def test_shows_no_lines_if_nothing_was_written(daemon: Daemon) -> None:
    """should not fail on a log that does not exist"""
    assert daemon.last_words() == ""
