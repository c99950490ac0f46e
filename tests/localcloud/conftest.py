"""One local cloud and one Prefect for all tests here; what ran before goes on running after."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.localcloud.stack import Stack
from workstation import localcloud
from workstation.setup import set_up, take_down
from workstation.targets import LOCAL_CREDENTIALS, environment_of


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Local cloud and Prefect; afterwards the tests' labs are gone, and set-up if it was ours."""
    ran_before = localcloud.is_answering()

    def log(text: str) -> None:
        sys.stderr.write(f"· {text}\n")

    set_up("local", log)
    with environment_of("local", LOCAL_CREDENTIALS):
        stack = Stack()
        known = set(stack.cloud().list_labs(stack.bucket))
        yield stack
        for lab in sorted(set(stack.cloud().list_labs(stack.bucket)) - known):
            stack.down(lab)
    if not ran_before:
        take_down(log)
