"""One mutating run per lab: a run holds its lab while it works on it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from prefect.runtime import flow_run

from adapters.aws.bucket import StateBucket
from adapters.aws.lease import Holder, hold_lease
from adapters.process import interrupt_children
from lab.durations import now, to_rfc3339
from tasks.site import Site
from tasks.stage import run_log, timed

#: How long a run waits for another one that holds the lab, in seconds.
PATIENCE = 1800.0
_MAKING = {"lab-up", "lab-rebuild"}


def always_wait(_: Holder) -> float:
    """Wait for any run that holds the lab, and do the work after it."""
    return PATIENCE


def refuse_same_kind(doing: str) -> Callable[[Holder], float]:
    """Wait for a run that does something else; be refused by a live run that does the same."""
    return lambda holder: 0.0 if holder.doing == doing else PATIENCE


def never_wait(_: Holder) -> float:
    """Be refused by any live run that holds the lab."""
    return 0.0


@contextmanager
def hold_lab(
    lab: str,
    site: Site,
    doing: str,
    patience: Callable[[Holder], float] = always_wait,
) -> Iterator[None]:
    """Hold ``lab`` within the block; LabHeldError names the run that holds it instead.

    If the lease is lost, the child processes of this run are interrupted.
    """
    log = run_log()
    if doing in _MAKING:
        with timed("hold lab"):
            if site.bucket.ensure():
                log(f"made the state bucket {site.bucket.name}")
    elif not site.bucket.exists():
        # No lab was ever brought up here, and a run that destroys should not make a bucket.
        yield
        return
    holder = Holder(
        doing=doing,
        run=str(flow_run.id),
        host=socket.gethostname(),
        since=to_rfc3339(now()),
    )
    lease = hold_lease(
        StateBucket(site.cloud.with_short_timeouts(), site.bucket.name),
        lab,
        holder,
        patience=patience,
        on_lost=interrupt_children,
        log=log,
    )
    with ExitStack() as held:
        with timed("hold lab"):
            held.enter_context(lease)
        yield
