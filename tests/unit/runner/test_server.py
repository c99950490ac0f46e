"""Prefect's server waits for SQLite only as long as the database is busy."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from runner.server import WritersInTurn


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
