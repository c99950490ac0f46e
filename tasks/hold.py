"""One mutating run per lab: a run holds its lab while it works on it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from prefect.runtime import flow_run

from adapters.aws import lease
from adapters.aws.lease import Holder
from adapters.process import interrupt_children
from lab.durations import now, to_rfc3339
from lab.plan import Place
from lab.settings import Settings
from tasks.site import open_cloud
from tasks.stage import run_log, timed

#: How long a run waits for another to be done with its lab, in seconds.
PATIENCE = 1800.0
_MAKING = {"lab-up", "lab-rebuild"}


def wait_for_all(_: Holder) -> float:
    """Wait for whoever holds the lab: what must happen, happens after them."""
    return PATIENCE


def wait_for_others(doing: str) -> Callable[[Holder], float]:
    """Wait for runs that do something else; be refused by a living one that does the same."""
    return lambda holder: 0.0 if holder.doing == doing else PATIENCE


def wait_for_none(_: Holder) -> float:
    """Be refused by whoever holds the lab and is alive."""
    return 0.0


@contextmanager
def hold_lab(
    lab: str,
    settings: Settings,
    place: Place,
    doing: str,
    patience: Callable[[Holder], float] = wait_for_all,
) -> Iterator[None]:
    """Hold ``lab`` within the block; LabHeldError names the run that holds it instead.

    Should the lease be lost, what the run has started is interrupted.
    """
    log = run_log()
    cloud = open_cloud(settings)
    if doing in _MAKING:
        with timed("hold lab"):
            if cloud.ensure_state_bucket(place.bucket):
                log(f"made the state bucket {place.bucket}")
    elif not cloud.has_bucket(place.bucket):
        # Nothing was ever brought up here, and a run that takes away should leave nothing either.
        yield
        return
    holder = Holder(
        doing=doing,
        run=str(flow_run.id),
        host=socket.gethostname(),
        since=to_rfc3339(now()),
    )
    hold = lease.hold_lab(
        cloud.in_a_hurry(),
        place.bucket,
        lab,
        holder,
        patience=patience,
        on_lost=interrupt_children,
        log=log,
    )
    with ExitStack() as held:
        with timed("hold lab"):
            held.enter_context(hold)
        yield
