"""A story for each test, and nothing of this machine in it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from adapters.process import interruptible
from tests.flows.recorder import Story
from tests.isolation import no_network, own_environment

__all__ = ["no_network", "own_environment"]


@pytest.fixture
def story(own_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    # No flow writes here by itself, and the stages are recorders.
    monkeypatch.setenv("LAB_HOME", os.devnull)
    yield Story(monkeypatch)
    # A run that was interrupted lets no child of this process begin, until the next one begins.
    with interruptible():
        pass
