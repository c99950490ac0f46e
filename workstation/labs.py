"""Prints all labs as a table: runs ``lab-list`` through Prefect, and shows what it publishes."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from lab.errors import PermanentError
from workstation import prefect, prefect_api
from workstation.targets import target_environment

#: Columns that would not fit into the terminal's 80 characters.
_IN_THE_UI_ONLY = {"held by", "owner", "ends", "age"}


def show_labs(target: str, console: Console) -> int:
    """Run ``lab-list`` and print its table; PermanentError while Prefect does not run."""
    target_environment(target)
    if not prefect.is_running():
        raise PermanentError("Prefect does not run, so no lab is looked after", "Run `make demo`.")
    with prefect_api.Api() as api:
        run_id = api.start_run(f"lab-list/{target}", {}, [])
        (*_, run) = api.final_states(run_id)
        if run["state_type"] != "COMPLETED":
            raise PermanentError(f"lab-list ended as {run['state_name']}: {prefect_api.why(run)}")
        artifact = api.artifact("labs")
    rows = json.loads(artifact["data"]) if artifact else []
    columns = [c for c in (rows[0] if rows else []) if c not in _IN_THE_UI_ONLY]
    table = Table(title=f"Labs on {target}", title_justify="left")
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*(str(row.get(column, "-")) for column in columns))
    console.print(table)
    console.print(f"More columns: {prefect_api.ui_url()}/artifacts/key/labs")
    return 0
