"""``python -m workstation COMMAND``: what the Makefile calls besides the main job."""

from __future__ import annotations

import argparse
import os
import sys

from rich.console import Console

from lab.errors import LabError
from workstation.down import bring_down
from workstation.env import print_environment
from workstation.labs import show_labs


def main() -> int:
    """Run one command; exit code 2 for an error that is told in words."""
    parser = argparse.ArgumentParser(prog="python -m workstation")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("down", help="destroy every local lab and stop what set-up started")
    labs = commands.add_parser("labs", help="list the labs")
    labs.add_argument("--target", default=os.environ.get("LAB_TARGET") or "local")
    env = commands.add_parser("env", help="print what an application needs, for eval")
    env.add_argument("--lab", default=os.environ.get("LAB") or "demo")
    env.add_argument("--target", default=os.environ.get("LAB_TARGET") or "local")
    options = parser.parse_args()
    try:
        if options.command == "down":
            return bring_down(Console(highlight=False))
        if options.command == "labs":
            return show_labs(options.target, Console(highlight=False))
        return print_environment(options.lab, options.target)
    except LabError as error:
        Console(stderr=True, highlight=False).print(f"[red]✗[/] {error}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
