"""``lab-up``: from a few parameters to a gateway that has answered for every model."""

from __future__ import annotations

from datetime import datetime

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.parameters import takes_lab_spec
from lab.durations import now
from lab.plan import PreflightResult
from lab.spec import LabSpec
from tasks.futures import gather
from tasks.hold import hold_lab, refuse_same_kind
from tasks.image import plan_image, submit_image
from tasks.lifetime import schedule_end
from tasks.outcome import destroyed_on_failure, reporting
from tasks.preflight import preflight
from tasks.prove import prove_lab
from tasks.provision import provision_foundation, provision_lab
from tasks.rollout import roll_out
from tasks.site import Site, open_site


@flow(
    name="lab-up",
    flow_run_name="up {lab}",
    # All models are asked at once: the slowest one decides how long it takes, not their number.
    task_runner=ThreadPoolTaskRunner(max_workers=96),  # type: ignore[arg-type]
    persist_result=False,
)
@takes_lab_spec
def lab_up(spec: LabSpec) -> None:
    """Bring a lab up, or change a live one to what is asked; ask every model and check the lab.

    The lab's end is registered before anything billable exists. The report is published in every
    case. Fails unless every model answers and every check passes.
    """
    ends_at = now() + spec.lifetime
    with reporting(spec, ends_at), open_site() as site:
        checked = preflight(spec, site)
        with (
            hold_lab(spec.lab, site, "lab-up", refuse_same_kind("lab-up")),
            destroyed_on_failure(spec, site),
        ):
            bring_up(spec, site, checked, ends_at)


def bring_up(spec: LabSpec, site: Site, checked: PreflightResult, ends_at: datetime) -> None:
    """The story of an up, for a run that holds the lab."""
    planned = plan_image.submit(site, checked)
    record = schedule_end(spec, site, checked, ends_at)
    (plan,) = gather(planned)

    foundation = provision_foundation.submit(site)
    image = submit_image(spec.lab, site, checked, plan, after=foundation)
    lab = provision_lab.submit(spec, site, checked, plan, record)
    made, pushed = gather(lab, image)

    live = roll_out(spec.lab, site, made, pushed)
    prove_lab(spec.lab, site, live, made, checked.models)
