"""The Docker engine: does it answer, what does it hold. prefect-docker builds and pushes."""

from __future__ import annotations

from docker.errors import DockerException, ImageNotFound

import docker
from lab.errors import PermanentError


def connect() -> docker.DockerClient:
    """A client of the engine in the environment; PermanentError if none answers."""
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        raise PermanentError(
            f"no Docker engine answers: {error}",
            "Start Docker, or name another engine in DOCKER_HOST. `make demo` starts one itself.",
        ) from error
    return client


def has_image(client: docker.DockerClient, reference: str) -> bool:
    """Whether the engine holds ``reference``."""
    try:
        client.images.get(reference)
    except ImageNotFound:
        return False
    return True
