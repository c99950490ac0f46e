"""The end of a lab: it is destroyed, looked for once more, and forgotten."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from prefect.variables import Variable

from adapters.aws.service import LabService
from adapters.aws.sweep import Leftover, Sweeper
from adapters.aws.user_agent import propagate_stage
from lab import names
from lab.durations import now, to_rfc3339
from lab.errors import LabError, PermanentError
from lab.record import Reason
from lab.report.cost import CostReport, load_prices
from tasks.lifetime import cancel_scheduled_ends
from tasks.provision import destroy_foundation, destroy_lab_resources
from tasks.publish import publish_teardown
from tasks.records import read_record
from tasks.site import Site
from tasks.stage import run_log, stage

#: A run may begin this long before its time: Prefect's server rounds to the second, and its clock
#: may differ. A run that came too early for the lab's end would leave the lab to the reaper.
EARLY = timedelta(seconds=10)


@stage("check reason", run_name="check-reason-{lab}")
def reason_holds(lab: str, site: Site, reason: Reason, of_run: str | None) -> bool:
    """Whether the lab is to be destroyed for ``reason`` now. A lab without a record always is.

    Waits for an end that is seconds away.
    """
    record = read_record(lab, site)
    if record is None:
        return True
    if reason is Reason.END and record.expires_at - now() <= EARLY:
        while (left := record.expires_at - now()) > timedelta():
            time.sleep(left.total_seconds())
    if record.to_be_destroyed(reason, now(), of_run):
        return True
    run_log()(
        f"lab {lab} stays: its end is {to_rfc3339(record.expires_at)}, and a failed up is to be "
        f"{record.on_failure}"
    )
    return False


@stage("destroy", run_name="destroy-{lab}")
def destroy_lab(lab: str, site: Site) -> None:
    """On return nothing of the lab is in its Terraform state. It succeeds if the lab is gone."""
    service, log = site.service(lab), run_log()

    def stop_task(service: LabService) -> None:
        try:
            if service.describe() is not None:
                service.stop()
        except LabError as error:
            # Terraform also stops it, and says why if it cannot.
            log(f"the task of {service.name} was not stopped beforehand: {error.message}")

    with ThreadPoolExecutor(1) as pool:
        # A task takes longer to stop than anything else, and Terraform takes seconds to start.
        stopping = pool.submit(propagate_stage(stop_task), service)
        if site.bucket.exists():
            destroy_lab_resources(lab, site)
        stopping.result()
    service.forget_task_definitions()


@stage("look for leftovers", run_name="look-for-leftovers-{lab}")
def check_nothing_left(lab: str, site: Site, *, to_return: bool = False) -> None:
    """Publish what was looked at. Raises TeardownIncompleteError with what still exists.

    Removes what was not in Terraform's state. The lab is forgotten only when nothing is left: its
    record, its state, its scheduled ends. With ``to_return``, this machine's files of the lab stay:
    the image's bill of materials, and what Terraform has initialised.
    """
    log, settings = run_log(), site.settings
    sweeper = Sweeper(site.cloud)
    looked_at, left = sweeper.look(lab)
    if left:
        log(f"{len(left)} things of lab {lab} were in no Terraform state")
        sweeper.remove(left, log)
        looked_at, left = sweeper.look(lab)
    publish_teardown(lab, looked_at, left, _cost_until_now(lab, site))
    if left:
        raise TeardownIncompleteError(lab, left)
    site.bucket.delete_prefix(names.lab_prefix(lab))
    cancel_scheduled_ends(lab, settings)
    for what in ("endpoint", "seen"):
        Variable.unset(names.variable(lab, what))
    if not to_return:
        shutil.rmtree(settings.lab_home(lab), ignore_errors=True)
        terraform = settings.home / "terraform" / settings.target / "labs" / lab
        shutil.rmtree(terraform, ignore_errors=True)
    log(f"nothing of lab {lab} is left")


def _cost_until_now(lab: str, site: Site) -> CostReport | None:
    """What the lab has cost, if it has a record: its end is now, whatever was planned."""
    record = read_record(lab, site)
    if record is None:
        return None
    try:
        prices = load_prices(site.settings.prices_path)
    except LabError as error:
        # A lab is destroyed whether or not its cost is known.
        run_log()(f"the cost of lab {lab} is not known: {error.message}")
        return None
    at = now()
    return prices.report(record.model_copy(update={"expires_at": at}), at)


@stage("purge", run_name="purge-{site.place.region}")
def purge_foundation(site: Site) -> None:
    """Remove what labs share: the repository with its images, and the state bucket.

    Raises PermanentError while any lab has state, because its state would be lost.
    """
    labs = site.bucket.list_labs()
    if labs:
        raise PermanentError(
            f"the foundation still serves {', '.join(labs)}", "Destroy these labs first."
        )
    if site.bucket.exists():
        destroy_foundation(site)
        site.bucket.delete()
    shutil.rmtree(site.settings.home / "terraform" / site.settings.target, ignore_errors=True)


class TeardownIncompleteError(PermanentError):
    """Something of a lab survived its destruction."""

    def __init__(self, lab: str, left: list[Leftover]) -> None:
        what = "; ".join(f"{item.kind} {item.name}" for item in left)
        how = "\n".join(f"    {item.command}" for item in left)
        super().__init__(
            f"lab {lab} is not gone: {what}", f"Run lab-down again, or remove by hand:\n{how}"
        )
