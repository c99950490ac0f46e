"""The table of all labs."""

from __future__ import annotations

from datetime import datetime

from lab import names
from lab.durations import format_duration, to_rfc3339
from lab.live import LabSeen
from lab.report.cost import load_prices
from tasks.publish import publish_labs
from tasks.site import Site
from tasks.stage import stage


@stage("list labs", run_name="list-labs")
def list_labs(seen: list[LabSeen], site: Site, at: datetime) -> list[dict[str, str]]:
    """Publish and return one row for each lab."""
    prices = load_prices(site.settings.prices_path)
    rows = []
    for lab in seen:
        row = {"lab": lab.lab, "state": lab.state.value, "held by": lab.held_by or "-"}
        if lab.record:
            record = lab.record
            row |= {
                "owner": record.owner,
                "endpoint": f"{names.endpoint_of(lab.task.address)}/v1" if lab.task else "-",
                "ends": to_rfc3339(record.expires_at),
                "left": format_duration(record.expires_at - at),
                "age": format_duration(at - record.created_at),
                f"{prices.currency} an hour": f"{prices.lab_hourly(record):.4f}",
                f"{prices.currency} so far": f"{prices.lab_so_far(record, at):.4f}",
            }
        rows.append(row)
    publish_labs(rows)
    return rows
