"""``lab-reap``: destroys labs past their end, and resources that belong to no lab."""

from __future__ import annotations

from typing import Annotated

from prefect import flow

from flows.lab_down import take_down
from lab.durations import now
from lab.spec import described
from tasks.futures import collect_failures
from tasks.hold import hold_lab, never_wait
from tasks.reap import name_run, still_to_reap, to_reap
from tasks.site import open_site
from tasks.survey import survey


@flow(name="lab-reap", flow_run_name="reap", persist_result=False)
def lab_reap(
    dry_run: Annotated[bool, described("Only report what would be destroyed.")] = False,
) -> None:
    """Find labs past their end and the project's resources that belong to no lab; destroy them.

    Looks only at the cloud, so it also works without Prefect's database. ``dry_run`` only reports.
    A lab that another run holds is left for the next time.
    """
    with open_site() as site:
        doomed = to_reap(survey(site, now(), deep=True))
        name_run(doomed, dry_run=dry_run)
        if dry_run:
            return
        with collect_failures() as failures:
            for seen in doomed:
                with failures.of(seen.lab), hold_lab(seen.lab, site, "lab-reap", never_wait):
                    if still_to_reap(seen, site):
                        take_down(seen.lab, site)
