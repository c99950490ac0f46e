"""A stubbed cloud for each test, which must ask for all the answers that the test has prepared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.adapters.aws.stubs import Stubs


@pytest.fixture(params=["us-east-1"])
def stubs(request: pytest.FixtureRequest) -> Iterator[Stubs]:
    made = Stubs(request.param)
    yield made
    made.all_asked()
