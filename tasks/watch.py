"""Reports what has changed in a live lab since the last look, and that its end is near."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from prefect.blocks.core import Block
from prefect.events import emit_event
from prefect.variables import Variable

from adapters.gateway.client import why_not_ready
from adapters.public_address import find_address
from lab import names
from lab.durations import format_duration, to_rfc3339
from lab.endpoint import Endpoint
from lab.errors import LabError, PermanentError
from lab.live import LabSeen, LiveLab
from lab.record import LabRecord
from lab.report.cost import load_prices
from lab.settings import Settings
from tasks.publish import publish_live, publish_notice
from tasks.records import note_notice
from tasks.site import Site
from tasks.stage import run_log, stage


@stage("watch", run_name="watch-{seen.lab}")
def watch_lab(seen: LabSeen, site: Site, at: datetime) -> LiveLab | None:
    """Look at a live lab: publish its endpoint, report changes, send the notices that are due.

    Returns what was seen, or ``None`` for a lab without a record.
    """
    if seen.record is None:
        return None
    record = seen.record
    live = _look(seen, record, site, at)
    publish_live(live)
    _report_changes(live)
    for minutes in record.due_notices(at, site.settings.notices):
        if note_notice(record, minutes, site):
            give_notice(live, site.settings)
    return live


def _look(seen: LabSeen, record: LabRecord, site: Site, at: datetime) -> LiveLab:
    endpoint, settings = _endpoint(seen, record), site.settings
    prices = load_prices(settings.prices_path)
    allowed = site.service(seen.lab).allowed_cidrs()
    deployer = _deployer(settings)
    return LiveLab(
        lab=seen.lab,
        owner=record.owner,
        endpoint=endpoint,
        ready=bool(endpoint and _is_ready(endpoint, site, seen.lab)),
        created_at=record.created_at,
        expires_at=record.expires_at,
        left=format_duration(record.expires_at - at),
        models=record.models,
        ending=record.ending_models(settings.warn_of_models_until(at)),
        allowed=allowed,
        deployer=deployer,
        deployer_allowed=None if deployer is None else deployer in allowed,
        cost=prices.report(record, at),
        deployer_rule=record.deployer,
    )


def _endpoint(seen: LabSeen, record: LabRecord) -> Endpoint | None:
    """Where the lab answers; ``None`` for a lab without a task or without a certificate."""
    if seen.task is None or record.trust is None:
        return None
    return Endpoint.of(seen.lab, seen.task.address, record.trust.ca)


def _is_ready(endpoint: Endpoint, site: Site, lab: str) -> bool:
    try:
        key = site.secrets.require(names.key_secret(lab))
        why_not = why_not_ready(endpoint, key)
    except PermanentError as error:
        why_not = error.message
    if why_not:
        run_log()(f"lab {lab} is not ready: {why_not}")
    return why_not is None


def _deployer(settings: Settings) -> str | None:
    if settings.deployer_address:
        return settings.deployer_address
    try:
        return find_address(settings.address_sources, log=run_log())
    except LabError as error:
        run_log()(f"the deployer's address is not known now: {error.message}")
        return None


def _report_changes(live: LiveLab) -> None:
    """Emit an event if something of the lab differs from what was last seen."""
    now_seen = {
        "endpoint": live.endpoint.url if live.endpoint else None,
        "ready": live.ready,
        "deployer_allowed": live.deployer_allowed,
        "ending_models": live.ending,
    }
    variable = names.variable(live.lab, "seen")
    before: Any = Variable.get(variable, default={})
    if before == now_seen:
        return
    Variable.set(variable, now_seen, overwrite=True)
    Variable.set(names.variable(live.lab, "endpoint"), now_seen["endpoint"] or "", overwrite=True)
    if not before:
        return
    changed = {k: v for k, v in now_seen.items() if before.get(k) != v}
    run_log()(f"lab {live.lab} changed: {changed}")
    emit_event(
        event="lab.changed",
        resource={"prefect.resource.id": f"lab.{live.lab}", "prefect.resource.name": live.lab},
        payload={"before": before, "now": now_seen},
    )


def give_notice(live: LiveLab, settings: Settings) -> None:
    """Announce that the lab ends soon: by an event, and the notification block if there is one."""
    text = (
        f"Lab {live.lab} ends in {live.left}, at {to_rfc3339(live.expires_at)}. To keep it: "
        f"prefect deployment run 'lab-extend/{settings.target}' --param lab={live.lab} "
        "--param ends_in=2h"
    )
    run_log()(text)
    publish_notice(live.lab, text)
    emit_event(
        event="lab.ends-soon",
        resource={"prefect.resource.id": f"lab.{live.lab}", "prefect.resource.name": live.lab},
        payload={"expires_at": to_rfc3339(live.expires_at), "left": live.left},
    )
    if settings.notify_block:
        try:
            block: Any = Block.load(settings.notify_block)
            block.notify(body=text, subject=f"Lab {live.lab} ends in {live.left}")
        except Exception as error:
            # A receiver that is down must not stop the watch.
            run_log()(f"the notice could not be sent through {settings.notify_block}: {error}")
