"""Removes everything: each local lab through ``lab-down``, then what set-up started."""

from __future__ import annotations

import boto3
from rich.console import Console
from rich.markup import escape

from adapters.aws.bucket import StateBucket
from adapters.aws.session import Cloud
from lab import names
from workstation import localcloud, prefect_api
from workstation.exit_codes import ExitCode
from workstation.setup import set_up, take_down
from workstation.targets import LOCAL_CREDENTIALS, environment_of
from workstation.view import follow


def bring_down(console: Console) -> int:
    """Return exit code 0 once nothing is left. May be called again, also when nothing runs.

    The local cloud keeps running if a lab could not be destroyed, so that people can look at it.
    """

    def log(text: str) -> None:
        console.print(f"[dim]·[/] {text}", soft_wrap=True)

    labs = _labs() if localcloud.is_answering() else []
    if labs:
        set_up("local", log)
    failed = [lab for lab in labs if not _down(lab, console)]
    if failed:
        console.print(
            f"[red]✗[/] Not destroyed: {', '.join(failed)}. The local cloud is left running; see "
            f"{prefect_api.ui_url()}, then run `make down` again."
        )
        return ExitCode.FAILED
    take_down(log)
    console.print("[green]✓[/] Nothing is left.")
    return ExitCode.OK


def _labs() -> list[str]:
    with environment_of("local", LOCAL_CREDENTIALS):
        cloud = Cloud(boto3.Session(region_name=localcloud.REGION))
        account, _ = cloud.account()
        return StateBucket(cloud, names.state_bucket(account, localcloud.REGION)).list_labs()


def _down(lab: str, console: Console) -> bool:
    with prefect_api.Api() as api:
        run_id = api.start_run("lab-down/local", {"lab": lab}, [f"lab:{lab}"])
        run = follow(api, run_id, f"Lab {lab} down", console)
    if run["state_type"] != "COMPLETED":
        console.print(f"[red]✗[/] {run['state_name']}: {escape(prefect_api.why(run))}")
    return bool(run["state_type"] == "COMPLETED")
