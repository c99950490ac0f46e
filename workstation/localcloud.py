"""Starts, awaits and stops the local cloud: MiniStack in a container, with a real engine.

Exists because MiniStack works as a cloud for ECS tasks only at one address of one network,
and must keep its labs over a restart. It may not know labs, Terraform or Prefect: other modules
reach the cloud through the constants below and the usual AWS clients.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import IPAMConfig, IPAMPool, LogConfig

from adapters.image.base_image import PUBLIC_PYTHON, BaseImage, ensure_base_image
from adapters.image.wheel_check import check_wheels, load_wheel_rules
from adapters.image.wheels import fetch_wheels, read_lock, releases
from lab.errors import DeadlineError, PermanentError
from lab.image.advisories import load_advisories
from lab.image.recipe import LOCAL_CLOUD, build_arguments, image_tag, prepare_context
from lab.settings import ADVISORIES_PATH, WHEEL_RULES_PATH
from lab.waiting import wait_for

PORT = 4566
ENDPOINT_URL = f"http://127.0.0.1:{PORT}"
# The engine trusts a registry on a loopback name without TLS.
REGISTRY_HOST = f"localhost:{PORT}"
REGION = "us-east-1"

# botocore accepts container credentials only from this address, so the cloud must have it.
NETWORK = "gateway-lab"
SUBNET = "169.254.170.0/24"
NETWORK_GATEWAY = "169.254.170.1"
ADDRESS = "169.254.170.2"
TASK_ENDPOINT = f"http://{ADDRESS}:{PORT}"

CONTAINER = "gateway-lab-localcloud"
IMAGE_REPOSITORY = "gateway-lab-localcloud"
# MiniStack's own label on each container that it starts.
OWNED_LABEL = f"ministack.instance={CONTAINER}:{PORT}"
SETTINGS_LABEL = "gateway-lab.localcloud.settings"

START_DEADLINE_SECONDS = 60.0
# A stop writes the state of every service and ends every task.
STOP_GRACE_SECONDS = 60
# The engine releases the address of an ended container a moment after its end.
NETWORK_DEADLINE_SECONDS = 15.0
LAST_WORDS = 20

Log = Callable[[str], None]


@dataclass(frozen=True)
class LocalCloud:
    """A local cloud that answers."""

    endpoint_url: str
    registry_host: str
    task_endpoint: str
    region: str
    container_id: str
    image: str


def start_local_cloud(home: Path, log: Log) -> LocalCloud:
    """On return the local cloud runs and answers, with its state in ``home/localcloud``.

    May be called any number of times: a cloud that runs as asked is left alone; one with
    another image or state is stopped cleanly and started again, with its labs. A restart
    starts each service's tasks again, at new addresses. Raises :class:`PermanentError` when
    the engine does not answer, the port or the addresses are taken or the cloud dies,
    :class:`DeadlineError` when it does not answer in a minute, and the errors of fetching its
    wheels and building its image.
    """
    client = connect()
    state = (home / "localcloud").resolve()
    image = _ensure_image(client, home, log)
    settings = json.dumps({"image": image, "state": str(state)})
    container = _find(client)
    if container is not None:
        if container.status == "running" and container.labels.get(SETTINGS_LABEL) == settings:
            log("Local cloud: already running")
            return _await(container, image, log)
        _stop_container(container, log)
    _ensure_network(client, log)
    _check_port(client)
    state.mkdir(parents=True, exist_ok=True)
    log(f"Starting the local cloud at {ENDPOINT_URL}")
    try:
        container = client.containers.run(
            image,
            name=CONTAINER,
            # MiniStack finds its own network by its host name, which also labels what it
            # starts: the name must be the same when the container is made again.
            hostname=CONTAINER,
            environment={
                "HOSTNAME": CONTAINER,
                "MINISTACK_REGION": REGION,
            },
            labels={SETTINGS_LABEL: settings},
            ports={f"{PORT}/tcp": ("127.0.0.1", PORT)},
            volumes={
                _engine_socket(): {"bind": "/var/run/docker.sock", "mode": "rw"},
                str(state): {"bind": "/state", "mode": "rw"},
            },
            network=NETWORK,
            networking_config={
                NETWORK: client.api.create_endpoint_config(ipv4_address=ADDRESS),
            },
            log_config=LogConfig(type="json-file", config={"max-size": "10m", "max-file": "2"}),
            detach=True,
        )
    except APIError as error:
        raise PermanentError(
            f"The engine could not start the local cloud: {error.explanation}",
            "Run make down to clear what is left of an earlier one, then start again.",
        ) from error
    return _await(container, image, log)


def stop_local_cloud(home: Path, log: Log, *, forget: bool = False) -> None:
    """On return nothing of the local cloud is left: no container, task container or network.

    Its state is saved first and, unless ``forget``, kept, so that the next start brings its
    labs back. May be called when nothing runs. Raises :class:`PermanentError` when the engine
    refuses.
    """
    try:
        client = connect()
    except PermanentError:
        log("Local cloud: no Docker engine answers, so none runs")
    else:
        container = _find(client)
        if container is not None:
            _stop_container(container, log)
        _remove_tasks(client, log)
        _remove_network(client, log)
    if forget:
        _forget(home / "localcloud", log)


def connect() -> docker.DockerClient:
    """A client of the engine that answers. Raises :class:`PermanentError` when none does."""
    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except (DockerException, requests.RequestException) as error:
        raise PermanentError(
            f"No Docker engine answers: {error}", "Start Docker, or let make demo install one."
        ) from error
    return client


def _ensure_image(client: docker.DockerClient, home: Path, log: Log) -> str:
    architecture = {"amd64": "x86_64", "arm64": "arm64"}.get(str(client.version().get("Arch")), "")
    if not architecture:
        raise PermanentError(
            f"The local cloud does not run on {client.version().get('Arch')}",
            "Use a machine with an x86_64 or arm64 processor.",
        )
    base = ensure_base_image(client, architecture, public_reference=PUBLIC_PYTHON, log=log)
    tag = image_tag(LOCAL_CLOUD, base_identity=base.identity, architecture=architecture)
    image = f"{IMAGE_REPOSITORY}:{tag}"
    try:
        client.images.get(image)
    except ImageNotFound:
        _build(client, base, image, home, log)
    return image


def _build(client: docker.DockerClient, base: BaseImage, image: str, home: Path, log: Log) -> None:
    # The local cloud has the engine's socket: its wheels are checked as the gateway's are.
    advisories = load_advisories(ADVISORIES_PATH)
    locked = releases(read_lock(LOCAL_CLOUD.lock, base.architecture))
    advisories.check(advisories.find(locked), date.today())
    wheels = fetch_wheels(LOCAL_CLOUD.lock, base.architecture, home / "wheels", log)
    check_wheels(wheels, load_wheel_rules(WHEEL_RULES_PATH), log)
    context = prepare_context(LOCAL_CLOUD, home / "build" / "localcloud", wheels)
    log(f"Building {image}")
    last = ""
    try:
        for event in client.api.build(
            tag=image,
            decode=True,
            **build_arguments(
                context, base_reference=base.reference, architecture=base.architecture
            ),
        ):
            if "error" in event:
                raise PermanentError(
                    f"The local cloud's image could not be built: {str(event['error']).strip()}",
                    f"The last words of the build: {last}",
                )
            last = str(event.get("stream", "")).strip() or last
    except APIError as error:
        raise PermanentError(
            f"The engine could not build the local cloud's image: {error.explanation}",
            "Look at the engine's log, and at the free space of its disk.",
        ) from error
    finally:
        shutil.rmtree(context, ignore_errors=True)


def _find(client: docker.DockerClient) -> Container | None:
    try:
        return client.containers.get(CONTAINER)
    except NotFound:
        return None


def _await(container: Container, image: str, log: Log) -> LocalCloud:
    def answers() -> LocalCloud | None:
        container.reload()
        if container.status not in {"created", "running"}:
            words = container.logs(tail=LAST_WORDS).decode(errors="replace").strip()
            code = container.attrs.get("State", {}).get("ExitCode")
            raise PermanentError(
                f"The local cloud ended with exit code {code}. Its last words:\n{words}",
                "If its state is damaged, make down and start again without it.",
            )
        if not is_answering():
            return None
        return LocalCloud(
            ENDPOINT_URL,
            REGISTRY_HOST,
            TASK_ENDPOINT,
            REGION,
            str(container.id),
            image,
        )

    return wait_for(
        "the local cloud's answer",
        answers,
        deadline=START_DEADLINE_SECONDS,
        log=log,
        first_pause=0.1,
        longest_pause=1.0,
    )


def is_answering() -> bool:
    """Whether a local cloud answers at :data:`ENDPOINT_URL` now."""
    try:
        with urllib.request.urlopen(f"{ENDPOINT_URL}/_ministack/health", timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False


def _stop_container(container: Container, log: Log) -> None:
    container.reload()
    if container.status == "running":
        log("Stopping the local cloud; its state is saved")
    try:
        container.stop(timeout=STOP_GRACE_SECONDS)
        container.remove(force=True, v=True)
    except NotFound:
        return
    except APIError as error:
        raise PermanentError(
            f"The engine could not remove {CONTAINER}: {error.explanation}",
            f"Remove it by hand: docker rm --force {CONTAINER}",
        ) from error


def _remove_tasks(client: docker.DockerClient, log: Log) -> None:
    for task in client.containers.list(all=True, filters={"label": OWNED_LABEL}):
        log(f"Removing {task.name}, which the local cloud left")
        try:
            task.remove(force=True, v=True)
        except NotFound:
            continue


def _ensure_network(client: docker.DockerClient, log: Log) -> None:
    for network in client.networks.list(names=[NETWORK]):
        if network.name != NETWORK:
            continue
        pools = (network.attrs.get("IPAM") or {}).get("Config") or []
        if any(pool.get("Subnet") == SUBNET for pool in pools):
            return
        raise PermanentError(
            f"The Docker network {NETWORK} is there with other addresses than {SUBNET}",
            f"Remove it: docker network rm {NETWORK}",
        )
    log(f"Making the Docker network {NETWORK}, {SUBNET}")
    try:
        client.networks.create(
            NETWORK,
            driver="bridge",
            ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=SUBNET, gateway=NETWORK_GATEWAY)]),
        )
    except APIError as error:
        raise PermanentError(
            f"The engine cannot make a network of {SUBNET}: {error.explanation}",
            "Another network or interface has these addresses; ECS's credentials need them. "
            "Find it with: docker network ls; ip address",
        ) from error


def _remove_network(client: docker.DockerClient, log: Log) -> None:
    refusal = ""

    def gone() -> bool | None:
        nonlocal refusal
        left = [one for one in client.networks.list(names=[NETWORK]) if one.name == NETWORK]
        for network in left:
            # A task that was starting while the cloud stopped may appear only now.
            _remove_tasks(client, log)
            try:
                network.remove()
            except NotFound:
                continue
            except APIError as error:
                refusal = str(error.explanation)
                return None
            log(f"Removed the Docker network {NETWORK}")
        return True

    try:
        wait_for("the end of the Docker network", gone, deadline=NETWORK_DEADLINE_SECONDS, log=log)
    except DeadlineError as error:
        raise PermanentError(
            f"The Docker network {NETWORK} cannot be removed: {refusal}",
            f"Something else uses it: docker network inspect {NETWORK}",
        ) from error


def _forget(state: Path, log: Log) -> None:
    if not state.exists():
        return
    try:
        shutil.rmtree(state)
    except PermissionError as error:
        raise PermanentError(
            f"{state} belongs to root, because the local cloud runs as root",
            f"Remove it: sudo rm -r {state}",
        ) from error
    log("Forgot the local cloud's state")


def _engine_socket() -> str:
    address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not address.startswith("unix://"):
        raise PermanentError(
            f"The local cloud needs the engine's socket, and DOCKER_HOST is {address}",
            "Use an engine on this machine: unset DOCKER_HOST.",
        )
    return address.removeprefix("unix://")


def _check_port(client: docker.DockerClient) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError as error:
            user = _container_on_port(client) or _process_on_port(PORT)
            raise PermanentError(
                f"Port {PORT} on 127.0.0.1 is in use" + (f" by {user}" if user else ""),
                f"The local cloud needs port {PORT}; stop what uses it, then start again.",
            ) from error


def _container_on_port(client: docker.DockerClient) -> str | None:
    for container in client.containers.list():
        bindings = (container.attrs.get("NetworkSettings") or {}).get("Ports") or {}
        for addresses in bindings.values():
            if any(address.get("HostPort") == str(PORT) for address in addresses or []):
                return f"the container {container.name}"
    return None


def _process_on_port(port: int) -> str | None:
    """The process that listens on ``port``, if this user may see it."""
    inodes: set[str] = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else []:
            fields = line.split()
            # 0A: listening.
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in inodes for link in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().split(b"\0")
                command = b" ".join(words).decode(errors="replace").strip()
                return f"process {process.name} ({command[:80]})"
        except OSError:
            continue
    return None
