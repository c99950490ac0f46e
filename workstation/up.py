"""The main job as a person starts it: set-up, ``lab-up`` through Prefect, and the result."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from rich.console import Console
from rich.markup import escape

from lab.errors import LabError
from lab.models.catalog import load_catalog
from lab.report.model import LabReport, read_report
from lab.settings import read_settings
from lab.spec import LabSpec, OnRetired, read_spec
from workstation import prefect_api
from workstation.exit_codes import ExitCode
from workstation.setup import check_platform, set_up
from workstation.targets import state_home, target_environment, target_names
from workstation.view import follow, show_report


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line of ``demo.py`` and ``demo.sh``."""
    parser = argparse.ArgumentParser(
        prog="demo", description="Bring a gateway lab up and ask every model."
    )
    parser.add_argument("--lab", default="demo", help="the lab's name (default: demo)")
    parser.add_argument(
        "--ttl", default="2h", help="destroy the lab after this time, as in 1h30m (default: 2h)"
    )
    parser.add_argument(
        "--models", help="aliases, separated by commas (default: those that are enabled)"
    )
    parser.add_argument(
        "--on-retired",
        default="fail",
        metavar="|".join(OnRetired),
        help="what to do with a model that Bedrock refuses (default: fail)",
    )
    parser.add_argument(
        "--target", default="local", metavar="|".join(target_names()), help="where (default: local)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Return 0 only if the lab is up and models and checks are good; 2 for a refused value."""
    console = Console(highlight=False)
    options = parse(arguments)
    try:
        spec = _checked_spec(options)
        return bring_up(spec, options.target, console)
    except LabError as error:
        Console(stderr=True, highlight=False).print(
            f"[red]✗[/] {escape(str(error))}", soft_wrap=True
        )
        return ExitCode.REFUSED
    except KeyboardInterrupt:
        console.print("Interrupted.")
        return ExitCode.INTERRUPTED


def bring_up(spec: LabSpec, target: str, console: Console) -> int:
    """Set up, run ``lab-up/<target>`` and show it; return the exit code."""
    set_up(target, lambda text: console.print(f"[dim]·[/] {escape(text)}", soft_wrap=True))
    parameters = spec.model_dump(mode="json", exclude_none=True)
    deployment = f"lab-up/{target}"
    with prefect_api.Api() as api:
        run_id = api.start_run(deployment, parameters, [f"lab:{spec.lab}"])
        console.print(
            f"prefect deployment run '{deployment}' ({prefect_api.ui_url()}/runs/flow-run/{run_id})"
        )
        try:
            run = follow(api, run_id, f"Lab {spec.lab} up", console)
        except KeyboardInterrupt:
            _cancel(api, run_id, spec.lab, console)
            return ExitCode.INTERRUPTED
    report = read_report(state_home() / "labs" / spec.lab)
    if report:
        show_report(report, prefect_api.ui_url(), console)
    return _verdict(run, report, console)


def _checked_spec(options: argparse.Namespace) -> LabSpec:
    """The spec of the command line; a value that is refused here costs nothing."""
    check_platform()
    target_environment(options.target)
    values: dict[str, object] = {
        "lab": options.lab,
        "ttl": options.ttl,
        "on_retired": options.on_retired,
    }
    if options.models is not None:
        values["models"] = [alias for alias in options.models.split(",") if alias]
    spec = read_spec(values)
    load_catalog(read_settings().catalog_path).choose(spec.models)
    return spec


def _cancel(api: prefect_api.Api, run_id: str, lab: str, console: Console) -> None:
    """Cancel the run after a Ctrl-C and wait for its end, so that Terraform releases its lock."""
    console.print("Cancelling; Terraform finishes what it has begun. Ctrl-C again stops waiting.")
    api.cancel(run_id)

    def leave(_: int, __: FrameType | None) -> None:
        sys.exit(ExitCode.INTERRUPTED)

    signal.signal(signal.SIGINT, leave)
    for run in api.final_states(run_id):
        if run["state_type"] == "CANCELLED":
            break
    console.print(
        f"Cancelled. The parts of lab {lab} that exist stay until its end; run the same command to "
        "go on, or `make down` to remove them."
    )


def _verdict(run: dict[str, object], report: LabReport | None, console: Console) -> int:
    if run["state_type"] == "COMPLETED" and report and report.passed:
        console.print("[green]✓[/] The lab is up, every model answered, and every check passed.")
        return ExitCode.OK
    why = report.error if report and report.error else prefect_api.why(run)
    Console(stderr=True, highlight=False).print(
        f"[red]✗[/] lab-up ended as {run['state_name']}: {escape(str(why))}",
        soft_wrap=True,
        markup=True,
    )
    return ExitCode.FAILED
