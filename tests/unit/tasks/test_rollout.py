"""The running image is the pushed one: ECS and the registry both have to confirm it."""

from __future__ import annotations

from typing import Any
from unittest.mock import create_autospec

import pytest

from adapters.aws.registry import HeldImage, Registry
from adapters.aws.rollout import Rollout
from adapters.aws.service import LabService
from lab.errors import PermanentError, TransientError
from lab.image.plan import PushedImage
from lab.live import RunningTask
from tasks import rollout
from tests.unit.tasks.sites import FakeSite

DIGEST, OTHER = "sha256:01", "sha256:02"
IMAGE = PushedImage(repository="registry/gateway-lab", tag="0123abcd", digest=DIGEST)


def running(digest: str | None) -> RunningTask:
    return RunningTask("arn:task/0123", "203.0.113.10", digest)


class World:
    """A registry and a service, whose answers a test chooses."""

    def __init__(self) -> None:
        self.registry: Any = create_autospec(Registry, instance=True)
        self.service: Any = create_autospec(LabService, instance=True)
        self._site = FakeSite(registry=self.registry)
        self._rollout = Rollout(self.service, "definition", None, frozenset())

    def check(self, runs: str | None) -> None:
        rollout.check_digests(self._site, self._rollout, running(runs), IMAGE)


def test_the_running_image_is_the_pushed_one() -> None:
    """should ask ECS and the registry, and change nothing if both agree"""
    world = World()
    world.registry.held_image.return_value = HeldImage(DIGEST, "sha256:0c")
    world.check(DIGEST)
    world.registry.held_image.assert_called_once_with("0123abcd")
    world.service.stop.assert_not_called()


@pytest.mark.parametrize(
    ("runs", "held", "said"),
    [
        (OTHER, HeldImage(DIGEST, "c"), f"the running task has {OTHER}"),
        (DIGEST, HeldImage(OTHER, "c"), f"the registry holds {OTHER}"),
        (None, HeldImage(DIGEST, "c"), "a digest that ECS does not name"),
        (DIGEST, None, "the registry holds nothing"),
        (OTHER, HeldImage(OTHER, "c"), f"the registry holds {OTHER}"),
    ],
)
def test_another_image_is_stopped(runs: str | None, held: HeldImage | None, said: str) -> None:
    """should name every digest, and let no image serve that this run has not pushed"""
    world = World()
    world.registry.held_image.return_value = held
    with pytest.raises(PermanentError) as caught:
        world.check(runs)
    assert f"pushed was {DIGEST}" in caught.value.message
    assert said in caught.value.message
    world.service.stop.assert_called_once_with()


def test_a_registry_that_contradicts_itself_stops_the_service(
    logged: list[str],
) -> None:
    """should raise the registry's error, even if the service cannot be stopped"""
    world = World()
    world.registry.held_image.side_effect = PermanentError("the registry names another digest")
    world.service.stop.side_effect = TransientError("throttled")
    with pytest.raises(PermanentError, match="names another digest"):
        world.check(DIGEST)
    world.service.stop.assert_called_once_with()
    assert logged == ["and its service could not be stopped: throttled"]
