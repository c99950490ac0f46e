"""Prefect's server on SQLite, where no request waits for longer than the database is busy.

**Transactions begin as writers.** Prefect's begin as readers. SQLite refuses a reader that wants to
write after another transaction has written, at once and whatever its timeout, because what it has
read is out of date. Prefect's client then waits two seconds before it asks again, which was the
longest stage of many runs. A transaction that begins as a writer waits for its turn instead, for
some milliseconds.

A refused transaction leaves an SQLite statement as garbage. Python collects it in the event loop's
thread, which then waits if the statement's connection waits for the database: for up to a minute,
since the transaction that holds the database needs the event loop to commit. The server
stood still so until its transactions began as writers (docs/decisions/0026).

Run as ``python -m runner.server``, with the arguments of ``prefect server start``.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import temporary_database_config
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction


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
    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    with temporary_database_config(WritersInTurn(PREFECT_API_DATABASE_CONNECTION_URL.value())):
        runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
