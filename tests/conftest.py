"""One local cloud, one Prefect and one engine for all tests; what ran before goes on running after.

Unit tests read this file too and need none of it, so a fixture imports what it needs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import docker

    from bench.containers import Gateway
    from tests.gateway import Inputs
    from tests.lived import Lived
    from tests.shared_lab import SharedLab
    from tests.stack import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Local cloud and Prefect; afterwards the tests' labs are gone, and set-up if it was ours.

    Labs that the tests did not make are left alone: somebody else may be at work at the same time.
    Whatever the flows asked of the cloud meanwhile was allowed to the deployer, and is recorded.
    """
    from tests.stack import Stack
    from workstation import localcloud
    from workstation.setup import set_up, take_down
    from workstation.targets import LOCAL_CREDENTIALS, environment_of

    def log(text: str) -> None:
        sys.stderr.write(f"· {text}\n")

    # The cloud's own stop soon after the end, and notices to where a test can hear them.
    os.environ |= {
        "LAB_STOP_GRACE": "PT1M",
        "LAB_NOTIFY_BLOCK": "custom-webhook/gateway-lab-tests",
    }
    ran_before = localcloud.is_answering()
    set_up("local", log)
    with environment_of("local", LOCAL_CREDENTIALS):
        stack = Stack()
        known = set(stack.bucket.list_labs())
        yield stack
        for lab in sorted(stack.made & set(stack.bucket.list_labs()) - known):
            stack.down(lab)
        assert stack.unexpected() == []
    if not ran_before:
        take_down(log)


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """A Docker engine."""
    from tests import gateway

    yield from gateway.engine()


@pytest.fixture(scope="session")
def inputs(engine: docker.DockerClient) -> Inputs:
    """What goes into the gateway's image."""
    from tests import gateway

    return gateway.inputs(engine)


@pytest.fixture(scope="session")
def image(
    engine: docker.DockerClient, inputs: Inputs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The gateway's image, by name."""
    from tests import gateway

    yield from gateway.image(engine, inputs, tmp_path_factory.mktemp("contexts"))


@pytest.fixture(scope="module")
def running(engine: docker.DockerClient, image: str) -> Iterator[Gateway]:
    """A gateway in its container, ready."""
    from tests import gateway

    yield from gateway.running(engine, image)


@pytest.fixture(scope="session")
def shared(stack: Stack) -> SharedLab:
    """The lab that tests share; the first that needs it brings it up."""
    from tests.shared_lab import SharedLab

    return SharedLab(stack)


@pytest.fixture(scope="session")
def lived(shared: SharedLab) -> Lived:
    """The shared lab with its second key, and its secrets to search for."""
    from tests.lived import live_and_watch

    return live_and_watch(shared)
