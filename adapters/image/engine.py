"""The Docker engine: whether it answers, the images it holds, and pushes. prefect-docker builds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import docker
from docker.errors import APIError, DockerException, ImageNotFound

from adapters.aws.denial import find_denial
from adapters.aws.registry import RegistryLogin
from adapters.process import raise_if_interrupted
from lab.errors import PermanentError, TransientError


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


def has_image(client: docker.DockerClient, reference: str, labels: Mapping[str, str]) -> bool:
    """Whether the engine holds ``reference`` with these labels: a name alone proves nothing."""
    try:
        found = client.images.get(reference)
    except ImageNotFound:
        return False
    return labels.items() <= found.labels.items()


def image_id(client: docker.DockerClient, reference: str) -> str:
    """The engine's own digest of ``reference``: of its configuration, or of its manifest.

    Which of the two depends on how the engine stores images. PermanentError if it has none.
    """
    try:
        return str(client.images.get(reference).id)
    except ImageNotFound as error:
        raise PermanentError(
            f"the engine no longer holds {reference}", "Run the command again; it builds another."
        ) from error


def push(
    client: docker.DockerClient, reference: str, login: RegistryLogin, log: Callable[[str], None]
) -> None:
    """Push ``reference`` and log the progress.

    On return the registry has confirmed the image; layers that it holds are not sent again.
    Raises PermanentError for what the registry refuses, TransientError where the transfer broke.
    """
    logged: dict[str, str] = {}
    try:
        for event in client.api.push(
            reference,
            stream=True,
            decode=True,
            auth_config={"username": login.username, "password": login.password},
        ):
            raise_if_interrupted("the push")
            if "error" in event:
                _raise_push_error(reference, str(event["error"]))
            _log_event(event, logged, log)
    except APIError as error:
        _raise_push_error(reference, str(error.explanation or error))
    except (DockerException, OSError) as error:
        raise TransientError(f"pushing {reference} broke off: {error}") from error


def _log_event(event: dict[str, Any], logged: dict[str, str], log: Callable[[str], None]) -> None:
    layer, status = event.get("id"), event.get("status", "")
    if not layer:
        return
    detail = event.get("progressDetail") or {}
    if status == "Pushing" and detail.get("total"):
        # Log each tenth only; the engine reports every few kilobytes.
        tenths = min(10, 10 * detail["current"] // detail["total"])
        status = f"{tenths * 10} % of {detail['total'] / 1e6:.1f} MB"
    elif status not in {"Pushed", "Layer already exists"}:
        return
    if logged.get(layer) != status:
        logged[layer] = status
        log(f"push: layer {layer}: {status}")


def _raise_push_error(reference: str, said: str) -> NoReturn:
    passing = ("timeout", "connection", "eof", "unavailable", "503")
    if any(word in said.lower() for word in passing):
        raise TransientError(f"pushing {reference} broke off: {said}")
    denial = find_denial(said)
    raise PermanentError(
        f"the registry refuses {reference}: {said}",
        denial.hint
        if denial
        else "Check that the repository exists and that the credentials may push to it.",
    )
