"""Children end when their work must end: at a deadline, on an interruption, on our own death."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters import process
from adapters.process import (
    Finished,
    interrupt_children,
    interruptible,
    process_alive,
    raise_if_interrupted,
    run_child,
    wait_gone,
)
from lab.errors import DeadlineError, InterruptedWorkError, PermanentError
from lab.settings import ROOT
from lab.waiting import wait_for

LONG = 30.0
#: Prints `int` for each SIGINT, and goes on.
STUBBORN = "trap 'echo int' INT; echo $$; while :; do sleep 0.02; done"
#: A background child of a shell ignores SIGINT: only its group can end it.
WITH_GRANDCHILD = "trap 'exit 7' INT; sleep 300 & echo $$; echo $!; wait"


@pytest.fixture(autouse=True)
def _nothing_is_interrupted() -> Iterator[None]:
    with interruptible():
        yield
    with interruptible():
        pass


class Heard:
    """Lines as they come; ``at_least`` waits for them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._more = threading.Condition()

    def __call__(self, line: str) -> None:
        with self._more:
            self.lines.append(line)
            self._more.notify_all()

    def at_least(self, count: int) -> list[str]:
        with self._more:
            assert self._more.wait_for(lambda: len(self.lines) >= count, timeout=LONG)
        return self.lines


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=4) as pool:
        yield pool
        interrupt_children()


def start(pool: ThreadPoolExecutor, heard: Heard, script: str) -> Future[Finished]:
    return pool.submit(run_child, ["sh", "-c", script], deadline=LONG, on_stdout=heard)


def test_returns_code_and_both_streams() -> None:
    """should return the exit code, whatever it is, and both streams separately"""
    done = run_child(["sh", "-c", "echo out; echo err >&2; exit 3"], deadline=LONG)
    assert done == Finished(3, "out\n", "err\n")


def test_lines_come_in_order_per_stream() -> None:
    """should neither lose, mix nor block on output that fills both pipes"""
    count = 20000
    script = f"import sys\nfor n in range({count}): print(n); print(-n, file=sys.stderr)"
    out, err = Heard(), Heard()
    done = run_child(
        [sys.executable, "-S", "-c", script], deadline=LONG, on_stdout=out, on_stderr=err
    )
    assert out.lines == [str(n) for n in range(count)] == done.stdout.splitlines()
    assert err.lines == [str(-n) for n in range(count)] == done.stderr.splitlines()


def test_bytes_that_are_no_text_are_shown() -> None:
    """should mark what it cannot decode, and go on"""
    assert "\ufffd" in run_child(["printf", r"\377"], deadline=LONG).stdout


def test_environment_and_folder_are_the_given_ones(tmp_path: Path) -> None:
    """should use ``env`` as the whole environment"""
    env = {"PATH": os.environ["PATH"], "ONLY": "this"}
    done = run_child(["sh", "-c", "pwd; echo $ONLY$HOME"], deadline=LONG, cwd=tmp_path, env=env)
    assert done.stdout.splitlines() == [str(tmp_path), "this"]


def test_a_missing_program_is_named() -> None:
    """should say which program to install"""
    with pytest.raises(PermanentError, match="no-such-program is not on PATH"):
        run_child(["no-such-program"], deadline=LONG)


def test_the_program_is_found_in_the_given_environment(tmp_path: Path) -> None:
    """should search the child's PATH, not ours"""
    with pytest.raises(PermanentError, match="sh is not on PATH"):
        run_child(["sh", "-c", "true"], deadline=LONG, env={"PATH": str(tmp_path)})


def test_the_deadline_ends_child_and_grandchild(heard: Heard) -> None:
    """should leave no process of the child's group, not even one that ignores the signal"""
    with pytest.raises(DeadlineError, match="sh did not end within 1s"):
        run_child(["sh", "-c", WITH_GRANDCHILD], deadline=1, on_stdout=heard)
    child, grandchild = map(int, heard.lines)
    assert not process_alive(child)
    assert wait_gone(grandchild, LONG)


def test_a_grandchild_does_not_outlive_a_child_that_ended(heard: Heard) -> None:
    """should end the processes that a finished child left running"""
    done = run_child(
        ["sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $!"], deadline=LONG, on_stdout=heard
    )
    assert done.code == 0
    assert wait_gone(int(heard.lines[0]), LONG)


def test_the_deadline_kills_a_child_that_ignores_the_signal(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """should signal once, wait for the grace period, then kill"""
    monkeypatch.setattr(process, "GRACE", 0.5)
    with pytest.raises(DeadlineError):
        run_child(["sh", "-c", STUBBORN], deadline=0.5, on_stdout=heard)
    assert not process_alive(int(heard.lines[0]))
    assert heard.lines[1:] == ["int"]


def test_an_interruption_ends_every_child_by_signal(
    threads: ThreadPoolExecutor, heard: Heard
) -> None:
    """should let each child end by itself, and raise for each that it was interrupted"""
    runs = [start(threads, heard, WITH_GRANDCHILD) for _ in range(2)]
    pids = [int(line) for line in heard.at_least(4)]
    interrupt_children()
    for run in runs:
        with pytest.raises(InterruptedWorkError, match="sh was interrupted"):
            run.result(timeout=LONG)
    assert all(wait_gone(pid, LONG) for pid in pids)


def test_an_interruption_kills_a_child_that_ignores_it(
    threads: ThreadPoolExecutor, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """should neither wait for the child's deadline nor signal twice"""
    monkeypatch.setattr(process, "GRACE", 0.5)
    run = start(threads, heard, STUBBORN)
    (pid,) = heard.at_least(1)
    interrupt_children()
    with pytest.raises(InterruptedWorkError):
        run.result(timeout=LONG / 2)
    assert not process_alive(int(pid))
    assert heard.lines[1:] == ["int"]


def test_no_child_starts_after_an_interruption(tmp_path: Path) -> None:
    """should refuse new work while the run ends, and accept it again in the next run"""
    interrupt_children()
    with pytest.raises(InterruptedWorkError, match="touch was not started"):
        run_child(["touch", str(tmp_path / "made")], deadline=LONG)
    assert not (tmp_path / "made").exists()
    with pytest.raises(InterruptedWorkError, match="the push was interrupted"):
        raise_if_interrupted("the push")
    with interruptible():
        raise_if_interrupted("the push")
        assert run_child(["true"], deadline=LONG).code == 0


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_an_ending_run_interrupts_the_children_of_other_threads(
    threads: ThreadPoolExecutor, heard: Heard, ending: type[BaseException]
) -> None:
    """should reach children whose tasks run in other threads"""
    run = start(threads, heard, WITH_GRANDCHILD)
    heard.at_least(2)
    with pytest.raises(ending), interruptible():
        raise ending
    with pytest.raises(InterruptedWorkError):
        run.result(timeout=LONG)


def test_a_failed_task_does_not_interrupt_the_others() -> None:
    """should leave other children alone after an ordinary error"""
    with pytest.raises(ValueError, match="wrong"), interruptible():
        raise ValueError("wrong")
    raise_if_interrupted("the work")


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not on this machine")
def test_a_child_is_interrupted_when_we_are_killed(tmp_path: Path) -> None:
    """should let it end gracefully, last output included, although no code of the project runs"""
    last_words = f"echo stopping; echo stopping >&2; echo > {tmp_path}/ended; exit"
    script = (
        f"trap '{last_words}' INT; echo $$ > {tmp_path}/draft;"
        f"mv {tmp_path}/draft {tmp_path}/pid; while :; do sleep 0.02; done"
    )
    code = (
        "import sys; from adapters.process import run_child;"
        "run_child(['sh', '-c', sys.argv[1]], deadline=60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, script], cwd=ROOT)
    try:
        pid_path = tmp_path / "pid"
        wait_for("the child", lambda: pid_path.exists() or None, deadline=LONG, longest_pause=0.05)
        parent.send_signal(signal.SIGKILL)
        assert wait_gone(int(pid_path.read_text()), LONG)
        assert (tmp_path / "ended").exists()
    finally:
        parent.kill()
        parent.wait()


def test_a_zombie_is_not_alive() -> None:
    """should not take a dead child that nobody reaped for a running one"""
    child = subprocess.Popen(["true"])
    assert wait_gone(child.pid, LONG)
    child.wait()
