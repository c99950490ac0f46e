"""AWS as a unit test has it: real clients of botocore's, whose answers come from the test."""

from __future__ import annotations

import functools
from typing import Any

import boto3
from botocore.stub import Stubber

from adapters.aws.session import Cloud


@functools.cache
def session_of(region: str) -> boto3.Session:
    """One a region: reading botocore's descriptions of the services costs most of these tests."""
    return boto3.Session("AKIDEXAMPLE", "secret", region_name=region)


class Stubs:
    """A Cloud whose clients answer only what a test gave them, in that order."""

    def __init__(self, region: str) -> None:
        self.cloud = Cloud(session_of(region))
        self._stubbers: dict[str, Stubber] = {}
        make = self.cloud.client
        # One client a service, so that whoever asks for it meets the stubbed one.
        self.cloud.client = functools.cache(make)  # type: ignore[method-assign]

    def of(self, service: str) -> Stubber:
        if service not in self._stubbers:
            self._stubbers[service] = Stubber(self.cloud.client(service))
            self._stubbers[service].activate()
        return self._stubbers[service]

    def says(self, service: str, method: str, answer: dict[str, Any], /, **expected: Any) -> None:
        self.of(service).add_response(method, answer, expected or None)

    def fails(
        self,
        service: str,
        method: str,
        code: str,
        status: int = 400,
        message: str = "it is so",
    ) -> None:
        self.of(service).add_client_error(method, code, message, status)

    def all_asked(self) -> None:
        for stubber in self._stubbers.values():
            stubber.assert_no_pending_responses()
