"""The server's event loop never waits for SQLite on behalf of garbage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lab.settings import ROOT

#: A statement becomes garbage whose connection waits, in a thread, for the database. This thread
#: holds the database, and lets go after it has allocated so much that Python collects by itself.
HOLDER = """
import sqlite3, sys, threading

holder = sqlite3.connect(sys.argv[1], isolation_level=None)
holder.execute("pragma journal_mode = wal")
waiting = sqlite3.connect(sys.argv[1], isolation_level=None, check_same_thread=False)
waiting.execute("pragma busy_timeout = 4000")

class Garbage:
    pass

garbage = Garbage()
garbage.itself, garbage.statement = garbage, waiting.execute("select 1")
holder.execute("begin immediate")

def wait():
    try:
        waiting.execute("begin immediate")
    except sqlite3.OperationalError as error:
        print(error)
    else:
        print("the database came free")

thread = threading.Thread(target=wait)
thread.start()
CLOCK_NANOSLEEP = {"230", "115"}  # on x86-64 and on arm64
while open(f"/proc/self/task/{thread.native_id}/syscall").read().split()[0] not in CLOCK_NANOSLEEP:
    pass
del garbage
kept = [[] for _ in range(500_000)]
holder.execute("commit")
thread.join()
"""
APART = "from deployments.server import collect_apart\ncollect_apart()\n"


def told(code: str, database: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, str(database)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_who_holds_the_database_does_not_wait_for_who_wants_it(tmp_path: Path) -> None:
    """should let the holder go on to its commit, which Python's own collection does not."""
    assert told(HOLDER, tmp_path / "one") == "database is locked"
    assert told(APART + HOLDER, tmp_path / "two") == "the database came free"
