"""Prefect's server waits for SQLite only as long as the database is busy."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from lab.settings import ROOT
from runner.server import WritersInTurn

#: A statement becomes garbage while its connection waits, in a thread, for the database. This
#: thread holds the database until it has allocated so much that Python's collection starts.
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
APART = "from runner.server import collect_apart\ncollect_apart()\n"


def run_code(code: str, database: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, str(database)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_a_holder_of_the_database_does_not_wait_for_others(tmp_path: Path) -> None:
    """should let the holder go on to its commit, which Python's own collection does not."""
    assert run_code(HOLDER, tmp_path / "one") == "database is locked"
    assert run_code(APART + HOLDER, tmp_path / "two") == "the database came free"


async def read_then_write(config: AioSqliteConfiguration, database: Path) -> bool:
    """One transaction that reads and then writes; whether another could write in between."""
    engine = await config.engine()
    try:
        async with await config.session(engine) as session, config.begin_transaction(session):
            await session.execute(text("select count(*) from row"))
            with closing(sqlite3.connect(database, timeout=0)) as other, other:
                try:
                    other.execute("insert into row values ('other')")
                    came_between = True
                except sqlite3.OperationalError:
                    came_between = False
            await session.execute(text("insert into row values ('ours')"))
    finally:
        await engine.dispose()
    return came_between


def test_a_transaction_that_reads_and_then_writes_is_not_refused(tmp_path: Path) -> None:
    """should keep other writers waiting from the first read on, which Prefect's own does not."""
    database = tmp_path / "prefect.db"
    url = f"sqlite+aiosqlite:///{database}"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table row (text)")
    with pytest.raises(OperationalError, match="database is locked"):
        asyncio.run(read_then_write(AioSqliteConfiguration(url), database))
    assert not asyncio.run(read_then_write(WritersInTurn(url), database))
