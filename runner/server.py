"""Prefect's server on SQLite, where no request waits for longer than the database is busy.

**Garbage has a thread of its own.** Python collects garbage in the thread that happens to allocate,
mostly in the event loop's. Among the server's garbage are SQLite statements, left by a transaction
that found the database locked. SQLite frees a statement under the lock of its connection. If
another thread waits on that connection for the database, which may take a minute, the event loop
waits too; but the transaction that holds the database needs the event loop to commit. Therefore the
server answered no request for a minute when many runs began at once. A thread with nothing else to
do may wait.

**Transactions begin as writers.** Prefect's begin as readers. SQLite refuses a reader that wants to
write after another transaction has written, at once and whatever its timeout, because what it has
read is out of date. Prefect's client then waits two seconds before it asks again, which was the
longest stage of many runs. A transaction that begins as a writer waits for its turn instead, for
some milliseconds.

Run as ``python -m runner.server``, with the arguments of ``prefect server start``.
"""

from __future__ import annotations

import gc
import runpy
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import NoReturn

from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import temporary_database_config
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

YOUNG_SECONDS = 1.0
#: One in this many collections also covers old objects, which takes long.
OLD_EVERY = 60


def collect_apart() -> threading.Thread:
    """On return no other thread of this process collects garbage; return the one that does."""
    gc.disable()
    thread = threading.Thread(target=_collect, name="garbage", daemon=True)
    thread.start()
    return thread


def _collect() -> NoReturn:
    pause, count = threading.Event(), 0
    while True:
        pause.wait(YOUNG_SECONDS)
        count += 1
        gc.collect(1 if count % OLD_EVERY else 2)


class WritersInTurn(AioSqliteConfiguration):
    """Prefect's SQLite, whose transactions hold the database from their first statement on.

    Reads outside a transaction do not wait, as before.
    """

    @asynccontextmanager
    async def begin_transaction(
        self,
        session: AsyncSession,
        with_for_update: bool = False,  # Prefect's signature; here it is always true
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        """A transaction that ends with the block."""
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def main() -> None:
    """Serve until the process is ended."""
    collect_apart()
    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    with temporary_database_config(WritersInTurn(PREFECT_API_DATABASE_CONNECTION_URL.value())):
        runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
