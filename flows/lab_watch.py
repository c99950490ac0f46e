"""``lab-watch``: what changed of each live lab, told in time."""

from __future__ import annotations

from prefect import flow, unmapped
from prefect.task_runners import ThreadPoolTaskRunner

from adapters.process import interruptible
from lab.durations import now
from lab.settings import read_settings
from lab.spec import LabName
from tasks.allow import follow_deployer, to_follow
from tasks.hold import hold_lab, wait_for_none
from tasks.outcome import gather
from tasks.reap import collect_failures
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
    """Look at every live lab: readiness, address, firewall, cost, time left; give due notices.

    With ``LAB_FOLLOW_ADDRESS`` the firewall moves with the deployer, once all labs were looked at.
    """
    settings = read_settings()
    with interruptible():
        place = locate(settings)
        at = now()
        seen = choose(survey(settings, place, at, deep=False), lab)
        looks = gather(*watch_lab.map(seen, unmapped(settings), unmapped(place), unmapped(at)))
        with collect_failures("not followed", "The next watch tries again.") as failures:
            for live in to_follow(list(zip(seen, looks, strict=True)), settings):
                with (
                    failures.of(live.lab),
                    hold_lab(live.lab, settings, place, "lab-watch", wait_for_none),
                ):
                    follow_deployer(live, settings, place)
