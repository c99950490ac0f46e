"""What runs is what was pushed: ECS and the registry both have to say so."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest

from adapters.aws.session import Cloud, HeldImage, Rollout
from lab.errors import PermanentError, TransientError
from lab.image.plan import ImagePlan
from lab.live import RunningTask
from tasks import rollout

DIGEST, OTHER = "sha256:01", "sha256:02"
ROLLOUT = Rollout("cluster", "service", "definition", None, frozenset())
PLAN = ImagePlan(
    repository="registry/gateway-lab",
    tag="0123abcd",
    base_reference="base:1",
    base_source="debian",
    config="models: []",
)


def running(digest: str | None) -> RunningTask:
    return RunningTask("arn:task/0123", "203.0.113.10", digest)


def test_what_runs_is_what_was_pushed() -> None:
    """should ask ECS and the registry, and change nothing where both agree"""
    cloud = create_autospec(Cloud, instance=True)
    cloud.held_image.return_value = HeldImage(DIGEST, "sha256:0c")
    rollout.check_digests(cloud, ROLLOUT, running(DIGEST), PLAN, DIGEST)
    cloud.held_image.assert_called_once_with("gateway-lab", "0123abcd")
    cloud.stop_service.assert_not_called()


@pytest.mark.parametrize(
    ("runs", "held", "said"),
    [
        (OTHER, HeldImage(DIGEST, "c"), f"the running task has {OTHER}"),
        (DIGEST, HeldImage(OTHER, "c"), f"the registry holds {OTHER}"),
        (None, HeldImage(DIGEST, "c"), "a digest that ECS does not tell"),
        (DIGEST, None, "the registry holds nothing"),
        (OTHER, HeldImage(OTHER, "c"), f"the registry holds {OTHER}"),
    ],
)
def test_another_image_is_stopped(runs: str | None, held: HeldImage | None, said: str) -> None:
    """should tell every digest, and let no image serve that nobody here has pushed"""
    cloud = create_autospec(Cloud, instance=True)
    cloud.held_image.return_value = held
    with pytest.raises(PermanentError) as caught:
        rollout.check_digests(cloud, ROLLOUT, running(runs), PLAN, DIGEST)
    assert f"pushed was {DIGEST}" in caught.value.message
    assert said in caught.value.message
    cloud.stop_service.assert_called_once_with("cluster", "service")


def test_a_registry_that_contradicts_itself_stops_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """should raise what the registry did, also where the service cannot be stopped"""
    told: list[str] = []
    monkeypatch.setattr(rollout, "run_log", lambda: told.append)
    cloud = create_autospec(Cloud, instance=True)
    cloud.held_image.side_effect = PermanentError("the registry names another digest")
    cloud.stop_service.side_effect = TransientError("throttled")
    with pytest.raises(PermanentError, match="names another digest"):
        rollout.check_digests(cloud, ROLLOUT, running(DIGEST), PLAN, DIGEST)
    cloud.stop_service.assert_called_once_with("cluster", "service")
    assert told == ["and its service could not be stopped: throttled"]
