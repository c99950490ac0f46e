"""Prefect's server on SQLite, where nobody waits for longer than the database is busy.

**Garbage has a thread of its own.** Python collects garbage in whichever thread happens to
allocate, mostly in the event loop's. Among the server's garbage are SQLite statements, left by a
transaction that found the database locked. SQLite frees a statement under the lock of its
connection. Where another thread waits on that connection for the database, which may take a minute,
the event loop would wait with it; but who holds the database needs the event loop to commit. So the
server answered nobody for a minute when many runs began at once. A thread with nothing else to do
may wait.

**Who will write says so before it reads.** Prefect's transactions begin as readers. One that wants
to write after another has written is refused by SQLite at once, whatever its timeout: it has read
what is no longer so. Prefect's client then waits two seconds before it asks again, which was the
longest stage of many a run. A transaction that begins as a writer waits for its turn instead, some
milliseconds.

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
#: One collection in so many also looks at what is old, which takes long.
OLD_EVERY = 60


def collect_apart() -> threading.Thread:
    """On return no other thread of this process collects garbage; the thread that does."""
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

    Reads that are no transaction wait for nobody, as before.
    """

    @asynccontextmanager
    async def begin_transaction(
        self,
        session: AsyncSession,
        with_for_update: bool = False,  # Prefect's signature: here it always is
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
