"""The shared lab, ready for the tests of a module."""

from __future__ import annotations

import pytest

from tests.shared_lab import SharedLab


@pytest.fixture(scope="module")
def live(shared: SharedLab) -> SharedLab:
    """The shared lab, up with all models."""
    shared.ensure_up()
    return shared
