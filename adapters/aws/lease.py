"""One mutating run per lab at a time, in every Prefect and on every machine: a lease in S3.

The lease is an object that only conditional writes change. Its holder renews it. A run that waits
watches it, and takes it over when it has not changed for a minute by that run's own clock, so no
two clocks need agree. Prefect's concurrency limits end at its own server; see
docs/decisions/0010-lease-in-s3.md.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from lab.errors import LabError, PermanentError
from lab.waiting import wait_for

#: Seconds without renewal after which a holder counts as dead, and seconds between renewals.
LEASE_SECONDS = 60.0
RENEW_SECONDS = 15.0


class Holder(BaseModel):
    """The run that holds a lab."""

    model_config = ConfigDict(extra="ignore")

    doing: str
    run: str
    host: str
    since: str

    def __str__(self) -> str:
        return f"{self.doing} (run {self.run} on {self.host}, since {self.since})"


class LabHeldError(PermanentError):
    """Another run holds the lab."""

    def __init__(self, lab: str, holder: Holder) -> None:
        super().__init__(
            f"lab {lab} is held by {holder}",
            "Wait for that run to end, or cancel it, and run the command again.",
        )
        self.holder = holder


class LeaseLostError(PermanentError):
    """The lease could not be renewed: another run may work on the lab now."""


class Store(Protocol):
    """What a lease needs of an object store: conditional writes, ``None`` for a lost race."""

    def read(self, key: str) -> tuple[bytes, str] | None:
        """The object and its ETag."""
        ...

    def write(self, key: str, body: bytes, replacing: str | None) -> str | None:
        """Write if the object still has the ETag ``replacing`` (``None``: if there is none)."""
        ...


@contextmanager
def hold_lease(
    store: Store,
    lab: str,
    holder: Holder,
    *,
    patience: Callable[[Holder], float],
    on_lost: Callable[[], None],
    log: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    renew_every: float = RENEW_SECONDS,
) -> Iterator[None]:
    """Hold ``lab`` within the block.

    ``patience`` says for how many seconds to wait for a given holder. After that LabHeldError is
    raised, but only if the holder has renewed meanwhile: the lease of a dead one is taken over.
    ``on_lost`` is called from another thread when the lease cannot be renewed any more; then the
    block's end raises LeaseLostError, unless the block raised something itself.
    """
    key = lease_key(lab)
    etag = _acquire(store, key, lab, holder, patience, log, sleep, clock)
    keeper = _Keeper(store, key, holder, etag, on_lost, log, clock, renew_every)
    keeper.start()
    try:
        yield
    finally:
        keeper.stop()
    if keeper.lost:
        raise LeaseLostError(
            f"the lease of lab {lab} could not be kept", "Run the command again to go on."
        )


def lease_key(lab: str) -> str:
    """The lease's object, outside the lab's own folder: it outlives the lab."""
    return f"leases/{lab}.json"


def current_holder(store: Store, lab: str) -> Holder | None:
    """The run that holds ``lab``, or held it when it died; ``None`` when it is free."""
    found = store.read(lease_key(lab))
    return _holder_of(found[0]) if found else None


def _acquire(
    store: Store,
    key: str,
    lab: str,
    holder: Holder,
    patience: Callable[[Holder], float],
    log: Callable[[str], None],
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> str:
    started = clock()
    seen: dict[str, float] = {}
    first: dict[str, str] = {}
    logged: set[str] = set()

    def check() -> str | None:
        found = store.read(key)
        if found is None:
            return store.write(key, _body(holder, 0), None)
        body, etag = found
        other = _holder_of(body)
        if other is None or other.run == holder.run:
            return store.write(key, _body(holder, 0), etag)
        if clock() - seen.setdefault(etag, clock()) >= LEASE_SECONDS:
            log(f"taking lab {lab} over from {other}, which has not renewed for a minute")
            return store.write(key, _body(holder, 0), etag)
        # Only a holder that has renewed refuses others. Otherwise a dead one would refuse every
        # run without patience, and none would watch it long enough to take over.
        heard = first.setdefault(other.run, etag) != etag
        if heard and clock() - started >= patience(other):
            raise LabHeldError(lab, other)
        if other.run not in logged:
            logged.add(other.run)
            log(f"waiting: lab {lab} is held by {other}")
        return None

    return wait_for(
        f"lab {lab} to be free", check, deadline=86400, sleep=sleep, clock=clock, log=log
    )


class _Keeper:
    """Renews the lease in a thread of its own until it is stopped."""

    def __init__(
        self,
        store: Store,
        key: str,
        holder: Holder,
        etag: str,
        on_lost: Callable[[], None],
        log: Callable[[str], None],
        clock: Callable[[], float],
        every: float,
    ) -> None:
        self._store, self._key, self._holder = store, key, holder
        self._etag, self._on_lost, self._log = etag, on_lost, log
        self._clock, self._every = clock, every
        self._renewals, self._renewed = 0, clock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name=f"lease {key}")
        self.lost = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Give the lease back, if this run still holds it."""
        self._ending.set()
        self._thread.join(timeout=LEASE_SECONDS)
        if not self.lost:
            try:
                self._store.write(self._key, _FREE, self._etag)
            except LabError as error:
                self._log(f"the lease could not be given back, it ends in a minute: {error}")

    def _keep(self) -> None:
        while not self._ending.wait(self._every):
            self._renewals += 1
            # Others count from when they see the renewal, which may be before its answer arrives.
            begun = self._clock()
            try:
                etag = self._store.write(self._key, _body(self._holder, self._renewals), self._etag)
                etag = etag or self._still_ours()
            except Exception as error:  # renewing must go on after any error
                self._log(f"the lease could not be renewed yet: {error}")
                # Others take over after LEASE_SECONDS; this run must stop before they do.
                if self._clock() - self._renewed < LEASE_SECONDS - self._every:
                    continue
                etag = None
            if etag is None:
                self.lost = True
                self._log("the lease was lost: another run may work on this lab")
                self._on_lost()
                return
            self._etag, self._renewed = etag, begun

    def _still_ours(self) -> str | None:
        """The ETag after a renewal that was written, although its answer was lost."""
        found = self._store.read(self._key)
        holder = _holder_of(found[0]) if found else None
        return found[1] if found and holder and holder.run == self._holder.run else None


_FREE = b'{"holder": null}'


def _body(holder: Holder, renewals: int) -> bytes:
    return json.dumps({"holder": holder.model_dump(), "renewals": renewals}).encode()


def _holder_of(body: bytes) -> Holder | None:
    try:
        found = json.loads(body).get("holder")
        return Holder.model_validate(found) if found else None
    except (ValueError, AttributeError):
        return None
