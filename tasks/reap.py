"""Which labs the reaper takes, and how it tells of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect import get_client
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run

from adapters.aws.lease import LabHeldError
from lab.durations import now
from lab.errors import LabError, PermanentError
from lab.plan import Place
from lab.record import Reason
from lab.settings import Settings
from tasks.lifetime import read_record
from tasks.stage import run_log
from tasks.survey import LabSeen, LabState


def to_reap(seen: list[LabSeen]) -> list[LabSeen]:
    """The labs past their end, and those that nothing remembers."""
    return [s for s in seen if s.state in {LabState.EXPIRED, LabState.ORPHANED}]


def name_run(doomed: list[LabSeen], *, dry_run: bool) -> None:
    """Say in the run's name and an artifact what the reaper does, or would do."""
    labs = ", ".join(s.lab for s in doomed) or "nothing"
    name = f"would reap {labs}" if dry_run else f"reap {labs}"
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, name=name[:200])
    run_log()(name)
    if doomed or dry_run:
        create_table_artifact(
            [
                {"lab": s.lab, "why": f"{s.state}: {s.why}", "held by": s.held_by or "-"}
                for s in doomed
            ]
            or [{"lab": "nothing to reap"}],
            key="reaper",
            description="What the reaper would destroy." if dry_run else "What the reaper took.",
        )


def still_to_reap(seen: LabSeen, settings: Settings, place: Place) -> bool:
    """Whether ``seen`` is still past its end now that it is held: an up may have been faster."""
    record = read_record(seen.lab, settings, place)
    return record is None or record.to_be_destroyed(Reason.END, now())


class Failures:
    """The labs that something could not be done to; one does not keep the others from it."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @contextmanager
    def of(self, lab: str) -> Iterator[None]:
        """Within this block it is done to ``lab``."""
        try:
            yield
        except LabHeldError as error:
            run_log()(f"left for the next time: {error.message}")
        except LabError as error:
            self.told.append(f"{lab}: {error.message}")


@contextmanager
def collect_failures(
    what: str = "not reaped",
    hint: str = "The reaper tries again; see the labs' teardown artifacts.",
) -> Iterator[Failures]:
    """Raise PermanentError, which begins with ``what``, at the block's end if any lab failed."""
    failures = Failures()
    yield failures
    if failures.told:
        raise PermanentError(f"{what}: {'; '.join(failures.told)}", hint)
