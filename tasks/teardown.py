"""The end of a lab: destroyed, forgotten, and looked for once more."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from prefect.variables import Variable

from adapters.aws.sweep import Leftover, Sweeper
from adapters.aws.user_agent import carried
from lab import names
from lab.durations import now, to_rfc3339
from lab.errors import LabError, PermanentError
from lab.plan import Place
from lab.record import Reason
from lab.report.cost import CostReport, load_prices
from lab.settings import Settings
from tasks.lifetime import cancel_scheduled_ends, read_record
from tasks.preflight import find_place
from tasks.provision import destroy_foundation, destroy_lab_resources
from tasks.publish import publish_teardown
from tasks.site import open_cloud
from tasks.stage import run_log, stage

#: So long before its time may a run begin: Prefect's server rounds to the second, and its clock is
#: not this one. Who came too early for the lab's end would leave the lab to the reaper.
EARLY = timedelta(seconds=10)


@stage("find place", run_name="find-place")
def locate(settings: Settings) -> Place:
    """The account and region that ``settings`` lead to."""
    return find_place(settings)


@stage("check reason", run_name="check-reason-{lab}")
def reason_holds(
    lab: str, settings: Settings, place: Place, reason: Reason, of_run: str | None
) -> bool:
    """Whether the lab is to be destroyed for ``reason`` now. A lab without a record always is.

    An end that is seconds away is waited for.
    """
    record = read_record(lab, settings, place)
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
def destroy_lab(lab: str, settings: Settings, place: Place) -> None:
    """On return nothing of the lab is in its Terraform state. Already gone is success."""
    cloud, log = open_cloud(settings), run_log()

    def stop_task(name: str) -> None:
        try:
            if cloud.service(name, name) is not None:
                cloud.stop_service(name, name)
        except LabError as error:
            # Terraform stops it too, and says why if it cannot.
            log(f"the task of {name} was not stopped beforehand: {error.message}")

    name = names.resource_name(lab)
    with ThreadPoolExecutor(1) as beside:
        # A task takes longer to go than anything else, and Terraform seconds to begin.
        stopping = beside.submit(carried(stop_task), name)
        if cloud.has_bucket(place.bucket):
            destroy_lab_resources(lab, settings, place)
        stopping.result()
    cloud.forget_task_definitions(name)


@stage("look for leftovers", run_name="look-for-leftovers-{lab}")
def check_nothing_left(
    lab: str, settings: Settings, place: Place, *, to_return: bool = False
) -> None:
    """Publish what was looked at. Raises TeardownIncompleteError naming what still exists.

    What Terraform's state did not know is removed here. Only when nothing is left is the lab
    forgotten: its record, its state, its scheduled ends. One that is to return at once keeps what
    this machine has of it: the image's bill of materials, what Terraform has initialised.
    """
    log = run_log()
    cloud = open_cloud(settings)
    sweeper = Sweeper(cloud)
    looked_at, left = sweeper.look(lab)
    if left:
        log(f"{len(left)} things of lab {lab} were in no Terraform state")
        sweeper.remove(left, log)
        looked_at, left = sweeper.look(lab)
    publish_teardown(lab, looked_at, left, _cost_until_now(lab, settings, place))
    if left:
        raise TeardownIncompleteError(lab, left)
    cloud.delete_prefix(place.bucket, names.lab_prefix(lab))
    cancel_scheduled_ends(lab, settings)
    for what in ("endpoint", "seen"):
        Variable.unset(names.variable(lab, what))
    if not to_return:
        shutil.rmtree(settings.lab_home(lab), ignore_errors=True)
        terraform = settings.home / "terraform" / settings.target / "labs" / lab
        shutil.rmtree(terraform, ignore_errors=True)
    log(f"nothing of lab {lab} is left")


def _cost_until_now(lab: str, settings: Settings, place: Place) -> CostReport | None:
    """What the lab has cost, if it has a record: its end is now, whatever was planned."""
    record = read_record(lab, settings, place)
    if record is None:
        return None
    try:
        prices = load_prices(settings.prices_path)
    except LabError as error:
        # A lab goes whether or not its cost can be told.
        run_log()(f"the cost of lab {lab} cannot be told: {error.message}")
        return None
    at = now()
    return prices.report(record.model_copy(update={"expires_at": at}), at)


@stage("purge", run_name="purge-{place.region}")
def purge_foundation(settings: Settings, place: Place) -> None:
    """Remove what labs share: the repository with its images, and the state bucket.

    Raises PermanentError while any lab has state, because its state would be lost.
    """
    cloud = open_cloud(settings)
    labs = cloud.list_labs(place.bucket)
    if labs:
        raise PermanentError(
            f"the foundation still serves {', '.join(labs)}", "Destroy these labs first."
        )
    if cloud.has_bucket(place.bucket):
        destroy_foundation(settings, place)
        cloud.delete_bucket(place.bucket)
    shutil.rmtree(settings.home / "terraform" / settings.target, ignore_errors=True)


class TeardownIncompleteError(PermanentError):
    """Something of a lab survived its destruction."""

    def __init__(self, lab: str, left: list[Leftover]) -> None:
        what = "; ".join(f"{item.kind} {item.name}" for item in left)
        how = "\n".join(f"    {item.command}" for item in left)
        super().__init__(
            f"lab {lab} is not gone: {what}", f"Run lab-down again, or remove by hand:\n{how}"
        )
