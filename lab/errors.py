"""Every error that a user can see, in two kinds: another try may help, or not.

Adapters translate each vendor's errors into these. :func:`is_transient` is the one place
that decides what is retried.
"""

from __future__ import annotations


class LabError(Exception):
    """Something went wrong that a user can read and act on.

    ``message`` names the value or the thing that failed and says what is allowed;
    ``hint`` says what to do next.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  What to do: {self.hint}" if self.hint else self.message


class TransientError(LabError):
    """The same call may succeed later: throttling, a lost connection, a service starting."""


class PermanentError(LabError):
    """The same call will fail again until something changes."""


class InvalidInputError(PermanentError):
    """A value given by the user was refused before anything was touched."""


class DeadlineError(PermanentError):
    """A wait ended without the state it waited for."""


class InterruptedWorkError(PermanentError):
    """A child process was stopped because its run was cancelled or interrupted."""


def is_transient(error: BaseException | None) -> bool:
    """Whether ``error`` is worth another try. The only retry decision in the project."""
    return isinstance(error, TransientError)
