"""A lab that somebody takes down: nothing of it is left, and no secret of it anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from adapters.aws.sweep import Sweeper
from lab import names
from tests.canary import Canary, nowhere, text_secret
from tests.lived import ALLOWED, KEY, SECRETS, Lived
from tests.observe import artifact, containers, scheduled_ends, wait_until
from tests.shared_lab import LAB
from tests.stack import Ended
from workstation.targets import state_home


@dataclass
class Down:
    """The lab after ``lab-down``, and the last key that it had."""

    ended: Ended
    last: Canary


@pytest.fixture(scope="module")
def down(lived: Lived) -> Down:
    """The shared lab taken down, after all that it has lived through."""
    last = Canary([text_secret(KEY, lived.lab.key())])
    return Down(lived.lab.down(), last)


def test_down_leaves_nothing_and_may_be_repeated(lived: Lived, down: Down) -> None:
    """should destroy the lab, say what was looked at, cancel its end, and succeed once more."""
    assert down.ended.code == 0, down.ended.said
    stack = lived.lab.stack
    _, left = Sweeper(stack.cloud()).look(LAB)
    assert left == []
    assert LAB not in stack.bucket.list_labs()
    assert scheduled_ends(LAB) == []
    assert not (state_home() / "labs" / LAB).exists()
    assert "nothing left" in artifact(names.artifact_key(LAB, "teardown"))
    assert containers(LAB) == []
    again = stack.down(LAB)
    assert again.code == 0, again.said


def test_the_secrets_go_with_the_lab(lived: Lived, down: Down) -> None:
    """should be in no place at all once the lab is down."""
    canaries = (lived.canary, down.last)
    wait_until(
        lambda: not any(canary.in_path(SECRETS) for canary in canaries),
        30,
        "Secrets Manager to forget",
    )
    for canary in canaries:
        found, searched = canary.in_folder(state_home(), since=lived.began, allowed=ALLOWED)
        assert searched
        nowhere(found)
