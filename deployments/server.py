"""Prefect's server, whose garbage is collected in a thread of its own.

Python collects garbage in whichever thread happens to allocate, mostly in the event loop's. Among
the server's garbage are SQLite statements, left by a transaction that found the database locked.
SQLite frees a statement under the lock of its connection. Where another thread waits on that
connection for the database, which may take a minute, the event loop would wait with it; but who
holds the database needs the event loop to commit. So the server answered nobody for a minute when
many runs began at once. A thread with nothing else to do may wait.

Run as ``python -m deployments.server``, with the arguments of ``prefect server start``.
"""

from __future__ import annotations

import gc
import runpy
import sys
import threading
from typing import NoReturn

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


def main() -> None:
    """Serve until the process is ended."""
    collect_apart()
    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
