"""``lab-reap``: what is past its end, or belongs to no lab, is destroyed. Needs no memory."""

from __future__ import annotations

from prefect import flow

from adapters.process import interruptible
from flows.lab_down import take_down
from lab.durations import now
from lab.settings import read_settings
from tasks.hold import hold_lab, wait_for_none
from tasks.reap import collect_failures, name_run, still_to_reap, to_reap
from tasks.survey import survey
from tasks.teardown import locate


@flow(name="lab-reap", flow_run_name="reap", persist_result=False)
def lab_reap(dry_run: bool = False) -> None:
    """Find labs past their end and things of ours that belong to no lab, and destroy them.

    Looks at the cloud alone, so it works after Prefect's database is gone. ``dry_run`` only tells.
    A lab that another run holds is left for the next time.
    """
    settings = read_settings()
    with interruptible():
        place = locate(settings)
        doomed = to_reap(survey(settings, place, now(), deep=True))
        name_run(doomed, dry_run=dry_run)
        if dry_run:
            return
        with collect_failures() as failures:
            for seen in doomed:
                with (
                    failures.of(seen.lab),
                    hold_lab(seen.lab, settings, place, "lab-reap", wait_for_none),
                ):
                    if still_to_reap(seen, settings, place):
                        take_down(seen.lab, settings, place)
