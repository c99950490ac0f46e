"""The exit codes of the project's commands, for the programs that call them."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of ``demo.py``, ``demo.sh``, ``make demo`` and ``python -m workstation``."""

    def __new__(cls, value: int, meaning: str) -> ExitCode:
        """``meaning`` is what the code says, as the reference shows it."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    meaning: str

    OK = 0, "Success: the lab is up and every model and check is good, or nothing is left."
    FAILED = 1, "The run failed. Its report and the last lines on the terminal say at which stage."
    REFUSED = 2, "A value, or this machine, was refused before anything was touched."
    INTERRUPTED = 130, "Ctrl-C. The parts of a lab that exist stay until its end."
