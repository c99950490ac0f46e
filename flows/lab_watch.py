"""``lab-watch``: reports in time what has changed in each live lab."""

from __future__ import annotations

from typing import Annotated

from prefect import flow, unmapped
from prefect.task_runners import ThreadPoolTaskRunner

from lab.durations import now
from lab.spec import LabName, described
from tasks.allow import follow_deployer, to_follow
from tasks.futures import collect_failures, gather
from tasks.hold import hold_lab, never_wait
from tasks.site import open_site
from tasks.survey import choose, survey
from tasks.watch import watch_lab


@flow(
    name="lab-watch",
    flow_run_name="watch",
    task_runner=ThreadPoolTaskRunner(max_workers=8),  # type: ignore[arg-type]
    persist_result=False,
)
def lab_watch(
    lab: Annotated[LabName | None, described("Only this lab; all of them if unset.")] = None,
) -> None:
    """Look at every live lab: readiness, address, firewall, cost, time left; send due notices.

    With ``LAB_FOLLOW_ADDRESS`` the firewall follows the deployer, after a look at all labs.
    """
    with open_site() as site:
        at = now()
        seen = choose(survey(site, at, deep=False), lab)
        looks = gather(*watch_lab.map(seen, unmapped(site), unmapped(at)))
        with collect_failures("not followed", "The next watch tries again.") as failures:
            for live in to_follow(list(zip(seen, looks, strict=True)), site):
                with failures.of(live.lab), hold_lab(live.lab, site, "lab-watch", never_wait):
                    follow_deployer(live, site)
