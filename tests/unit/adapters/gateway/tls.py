"""Certificates and TLS servers like those of a lab's gateway, on loopback."""

from __future__ import annotations

import functools
import importlib.util
from datetime import UTC, datetime, timedelta
from types import ModuleType

from lab import names
from lab.certificate import Certificate, make_certificate
from lab.endpoint import Endpoint
from lab.image.recipe import GATEWAY

LAB = "demo"
NAME = names.tls_name(LAB)


def image_program(name: str) -> ModuleType:
    """A program of the gateway's image as a module."""
    spec = importlib.util.spec_from_file_location(name, GATEWAY.folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def certificate(name: str = NAME, hours: int = 1) -> Certificate:
    """A certificate for ``name``, until ``hours`` from now; in the past if negative."""
    at = datetime.now(UTC)
    # A certificate lasts a day longer than requested.
    until = at + timedelta(hours=hours) - timedelta(days=1)
    return make_certificate(name, min(at, until), until)


def endpoint(port: int, of: Certificate | None = None, tls_name: str = NAME) -> Endpoint:
    ca = (of or certificate()).trust.ca
    return Endpoint(url=f"https://127.0.0.1:{port}", tls_name=tls_name, ca=ca)
