"""``python -m workstation COMMAND``: what the Makefile calls besides the main job."""

from __future__ import annotations

import argparse
import os
import sys

from rich.console import Console

from lab.errors import LabError
from workstation.down import bring_down
from workstation.env import print_environment
from workstation.exit_codes import ExitCode
from workstation.labs import show_labs
from workstation.policy import write_filled, write_policies
from workstation.targets import state_home


def main() -> int:
    """Run one command; return its :class:`ExitCode`."""
    parser = argparse.ArgumentParser(prog="python -m workstation")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("down", help="destroy every local lab and stop what set-up started")
    labs = commands.add_parser("labs", help="list the labs")
    labs.add_argument("--target", default=os.environ.get("LAB_TARGET") or "local")
    env = commands.add_parser("env", help="print what an application needs, for eval")
    env.add_argument("--lab", default=os.environ.get("LAB") or "demo")
    env.add_argument("--target", default=os.environ.get("LAB_TARGET") or "local")
    policy = commands.add_parser("policy", help="the deployer's policies, for an account")
    policy.add_argument(
        "--account", help="12 digits; without it the project's files are made again"
    )
    policy.add_argument("--region", default="us-east-1")
    options = parser.parse_args()
    try:
        if options.command == "down":
            return bring_down(Console(highlight=False))
        if options.command == "policy":
            return _policy(options.account, options.region)
        if options.command == "labs":
            return show_labs(options.target, Console(highlight=False))
        return print_environment(options.lab, options.target)
    except LabError as error:
        Console(stderr=True, highlight=False).print(f"[red]✗[/] {error}", soft_wrap=True)
        return ExitCode.REFUSED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def _policy(account: str | None, region: str) -> int:
    if account is None:
        write_policies()
        return ExitCode.OK
    for command in write_filled(account, region, state_home() / "policy" / f"{account}-{region}"):
        sys.stdout.write(command + "\n")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
