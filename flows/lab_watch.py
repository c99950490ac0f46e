"""``lab-watch``: what changed of each live lab, told in time."""

from __future__ import annotations

from prefect import flow, unmapped
from prefect.task_runners import ThreadPoolTaskRunner

from lab.durations import now
from lab.settings import read_settings
from lab.spec import LabName
from tasks.outcome import gather
from tasks.survey import choose, survey
from tasks.teardown import locate
from tasks.watch import watch_lab


@flow(
    name="lab-watch",
    flow_run_name="watch",
    task_runner=ThreadPoolTaskRunner(max_workers=8),  # type: ignore[arg-type]
    persist_result=False,
)
def lab_watch(lab: LabName | None = None) -> None:
    """Look at every live lab: readiness, address, firewall, cost, time left; give due notices."""
    settings = read_settings()
    place = locate(settings)
    at = now()
    seen = choose(survey(settings, place, at, deep=False), lab)
    gather(*watch_lab.map(seen, unmapped(settings), unmapped(place), unmapped(at)))
