"""Changes without a rebuild which hosts may reach a live lab, and follows the deployer's address.

Nothing here touches the lab's task.
"""

from __future__ import annotations

from collections.abc import Collection

from prefect.events import emit_event

from lab.errors import PermanentError
from lab.live import LabSeen, LabState, LiveLab
from tasks.provision import apply_firewall
from tasks.publish import publish_live
from tasks.records import change_record, require_record
from tasks.site import Site
from tasks.stage import run_log, stage


@stage("allow", run_name="allow-{lab}")
def change_allowed(
    lab: str, site: Site, add: Collection[str], remove: Collection[str]
) -> list[str]:
    """On return the lab's firewall and record let in ``add`` and not ``remove``.

    Returns all hosts that it lets in. It succeeds if nothing has to change. Raises PermanentError
    for a lab that is not up and InvalidInputError for a firewall that would be open to nobody or to
    too many, both before anything is touched.
    """
    check_is_up(lab, site)
    # The record first: if the run dies in between, the next run that comes here shuts out the hosts
    # that this one should have shut out.
    record = change_record(lab, site, lambda known: known.allowing(add, remove))
    apply_firewall(record, site)
    run_log()(f"the firewall of lab {lab} is open to {', '.join(record.cidrs)}")
    return record.cidrs


def check_is_up(lab: str, site: Site) -> None:
    """Raise PermanentError unless the lab has a record and a service."""
    require_record(lab, site)
    if site.service(lab).describe() is None:
        raise PermanentError(f"lab {lab} has not come up yet", "Bring it up with lab-up.")


def to_follow(looks: list[tuple[LabSeen, LiveLab | None]], site: Site) -> list[LiveLab]:
    """The labs whose firewall has to follow the deployer, if the settings ask for that.

    A lab that another run holds is left for the next time, and so is a lab whose end has come.
    """
    found = []
    for seen, live in looks:
        if not site.settings.follow_address or live is None or not live.has_lost_deployer:
            continue
        if seen.held_by:
            run_log()(f"the firewall of {seen.lab} is left for the next time: {seen.held_by}")
        elif seen.state is not LabState.EXPIRED:
            found.append(live)
    return found


@stage("follow deployer", run_name="follow-deployer-{live.lab}")
def follow_deployer(live: LiveLab, site: Site) -> bool:
    """On return the lab lets the deployer in at its present address, and not at its former one.

    Returns False and does nothing if the lab no longer follows its deployer, or has done so
    already. Addresses that a person gave stay. For a run that holds the lab.
    """
    lab, address = live.lab, live.deployer
    known = require_record(lab, site)
    if address is None or known.deployer in {None, address}:
        return False
    check_is_up(lab, site)
    wanted = known.following(address)
    apply_firewall(wanted, site)
    # The record last: until it names the new address, the next watch does all of this again.
    change_record(lab, site, lambda record: record.following(address))
    shut_out = sorted({*known.cidrs} - {*wanted.cidrs})
    run_log()(f"lab {lab} lets the deployer in at {address}, not at {known.deployer} any more")
    publish_live(
        live.model_copy(
            update={
                "allowed": wanted.cidrs,
                "deployer_allowed": True,
                "deployer_rule": address,
                "moved_from": known.deployer,
            }
        )
    )
    emit_event(
        event="lab.deployer-followed",
        resource={"prefect.resource.id": f"lab.{lab}", "prefect.resource.name": lab},
        payload={"before": known.deployer, "now": address, "shut_out": shut_out},
    )
    return True
