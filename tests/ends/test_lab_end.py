"""The end of a lab comes, whatever breaks. The tests go in order; times are short on purpose."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from lab import names
from lab.settings import Settings
from tests.observe import (
    artifact,
    containers,
    events,
    last_message,
    scheduled_ends,
    terraform_applies,
    variable,
    wait_until,
)
from tests.shared_lab import LAB, SharedLab
from tests.stack import Ended, Stack
from workstation import prefect, prefect_api
from workstation.targets import state_home

NIGHTLY = "lab-rebuild/nightly-local"
WITHOUT_WORKER, WITHOUT_SERVER = "noworker", "noserver"
SOON = "1m"
#: From a lab's end to nothing left: the worker's poll, the run's start, Terraform's destroy.
DESTROYED = 240.0


def quiet(_: str) -> None:
    """Set-up's words are not wanted here."""


@pytest.fixture(scope="module")
def live(shared: SharedLab) -> SharedLab:
    """The shared lab up, down and up again within minutes."""
    if not shared.was_down:
        shared.ensure_up()
        assert shared.down().code == 0
    shared.ensure_up()
    return shared


class Receiver(HTTPServer):
    """Keeps what is posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.posted: list[dict[str, str]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver(stack: Stack) -> Iterator[Receiver]:
    """A local receiver, and a notification block of the configured name that posts to it."""
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        program = (
            "import sys\n"
            "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block\n"
            "Block(name='tests', url=sys.argv[1], method='POST',\n"
            "      json_data={'subject': '{{subject}}', 'body': '{{body}}'},\n"
            ").save('gateway-lab-tests', overwrite=True)\n"
        )
        url = f"http://127.0.0.1:{server.server_port}/"
        made = stack.command([sys.executable, "-c", program, url])
        assert made.code == 0, made.said
        yield server
        server.shutdown()


def test_up_down_up_still_has_one_end(live: SharedLab) -> None:
    """should have one scheduled end, that of the last up, though the key was used before."""
    (end,) = scheduled_ends(LAB)
    assert end["expected_start_time"][:19] == live.record()["expires_at"][:19]


def test_extend_moves_every_place_that_knows_the_end(live: SharedLab) -> None:
    """should move the record, Prefect's run, the cluster's tag and the cloud's own stop."""
    before = moment(live.record()["expires_at"])
    assert live.run("lab-extend", ends_in="2h").code == 0
    after = moment(live.record()["expires_at"])
    assert after > before + timedelta(hours=1)
    assert [moment(end["expected_start_time"]) for end in scheduled_ends(LAB)] == [after]
    cluster = (
        live.stack.session()
        .client("ecs")
        .describe_clusters(clusters=[names.resource_name(LAB)], include=["TAGS"])["clusters"][0]
    )
    tags = {tag["key"]: tag["value"] for tag in cluster["tags"]}
    assert moment(tags[names.TAG_EXPIRES_AT]) == after
    assert stop_time(live.stack, LAB) == after + Settings().stop_grace


def test_extend_beyond_the_cap_is_refused_and_moves_nothing(live: SharedLab) -> None:
    """should name the latest end allowed, counted from the lab's creation."""
    key = names.lab_record_key(LAB)
    old = {**live.record(), "created_at": "2020-01-01T00:00:00Z"}
    live.stack.bucket.write_json(key, old)
    before = scheduled_ends(LAB)
    ended = live.run("lab-extend", ends_in="3h")
    assert ended.code != 0
    assert "may live until 2020-01-04T00:00:00Z at the latest" in last_message("lab-extend")
    assert live.record() == old
    assert scheduled_ends(LAB) == before
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    live.stack.bucket.write_json(key, {**old, "created_at": now})


def test_a_replaced_spot_task_has_a_new_endpoint(live: SharedLab) -> None:
    """should find the new task's address and tell that the endpoint changed."""
    live.stack.guard("lab-watch/local")
    before = variable(names.variable(LAB, "endpoint"))
    assert before.startswith("https://")
    old = live.task().arn
    with killed_task(LAB):
        wait_until(lambda: live.stack.task_arn(LAB) not in (None, old), 120, "a new task")
    live.stack.guard("lab-watch/local")
    after = variable(names.variable(LAB, "endpoint"))
    assert after != before
    assert after in artifact(names.artifact_key(LAB, "endpoint"))
    wait_until(lambda: events("lab.changed", LAB), 30, "the event of the change")


def test_a_notice_comes_before_the_end(live: SharedLab, receiver: Receiver) -> None:
    """should send one notice through the block, with the end and how to move it."""
    assert live.run("lab-extend", ends_in="4m").code == 0
    live.stack.guard("lab-watch/local")
    live.stack.guard("lab-watch/local")
    assert len(receiver.posted) == 2, "one notice for 30 minutes and one for 5, each once"
    assert all(f"Lab {LAB} ends in" in posted["subject"] for posted in receiver.posted)
    assert "lab-extend/local" in receiver.posted[0]["body"]
    wait_until(lambda: events("lab.ends-soon", LAB), 30, "the event of the notice")


@pytest.fixture(scope="module")
def two_more(stack: Stack) -> Iterator[list[Future[Ended]]]:
    """Two labs that come up while a test waits for something else."""
    with ThreadPoolExecutor(2) as pool:
        yield [pool.submit(stack.up, lab) for lab in (WITHOUT_WORKER, WITHOUT_SERVER)]


def test_the_end_destroys_the_lab_by_itself(
    live: SharedLab, request: pytest.FixtureRequest
) -> None:
    """should leave nothing of the lab soon after its end, though nobody does anything."""
    assert live.run("lab-extend", ends_in=SOON).code == 0
    request.getfixturevalue("two_more")
    wait_until(lambda: gone(live.stack, LAB), 60 + DESTROYED, "the lab's end")
    live.is_gone()


def test_the_end_comes_late_when_worker_or_server_were_down(
    stack: Stack, two_more: list[Future[Ended]]
) -> None:
    """should destroy both labs once Prefect is back: one ended without worker, one without all."""
    ups = [up.result() for up in two_more]
    assert [up.code for up in ups] == [0, 0], ups
    assert extend(stack, WITHOUT_WORKER, SOON).code == 0
    assert extend(stack, WITHOUT_SERVER, "100s").code == 0
    prefect.stop_worker(quiet)
    try:
        wait_past_end(stack, WITHOUT_WORKER)
        prefect.stop_server(quiet)
        wait_past_end(stack, WITHOUT_SERVER)
        assert not gone(stack, WITHOUT_WORKER)
        assert not gone(stack, WITHOUT_SERVER)
    finally:
        prefect.start_server(quiet)
        prefect.start_worker(quiet)
    for lab in (WITHOUT_WORKER, WITHOUT_SERVER):
        wait_until(lambda lab=lab: gone(stack, lab), DESTROYED, f"the late end of {lab}")


def test_without_prefect_the_cloud_stops_the_lab_and_the_reaper_finds_it(stack: Stack) -> None:
    """should run no task soon after the end without Prefect; a new database still finds the lab."""
    lab = "alone"
    assert stack.up(lab).code == 0
    assert extend(stack, lab, SOON).code == 0
    prefect.stop(quiet)
    try:
        wait_until(lambda: desired(stack, lab) == 0, 240, "the cloud's own stop")
        wait_until(lambda: stack.task_arn(lab) is None, 60, "the task to be gone")
    finally:
        for file in (state_home() / "prefect").glob("prefect.db*"):
            file.unlink()
        prefect.start_server(quiet)
        prefect.register(quiet)
        prefect.start_worker(quiet)
    assert scheduled_ends(lab) == []
    stack.guard("lab-reap/local")
    assert gone(stack, lab)


def test_the_reaper_takes_what_belongs_to_no_lab_and_a_dry_run_takes_nothing(stack: Stack) -> None:
    """should name the orphan in the dry run, and remove it in the real one, and nothing else."""
    ec2 = stack.session().client("ec2")
    tags = [
        {"Key": names.TAG_PROJECT, "Value": names.PROJECT},
        {"Key": names.TAG_LAB, "Value": "orphan"},
    ]
    vpc = ec2.create_vpc(
        CidrBlock="10.9.0.0/24", TagSpecifications=[{"ResourceType": "vpc", "Tags": tags}]
    )["Vpc"]["VpcId"]
    foreign = ec2.create_vpc(CidrBlock="10.8.0.0/24")["Vpc"]["VpcId"]
    assert "would reap orphan" in stack.guard("lab-reap/local", dry_run=True)
    assert vpc in vpcs(stack)
    stack.guard("lab-reap/local")
    assert vpc not in vpcs(stack)
    assert foreign in vpcs(stack)
    ec2.delete_vpc(VpcId=foreign)


@pytest.fixture(scope="module")
def nightly(stack: Stack) -> Iterator[None]:
    """The nightly lab's schedule switched on and moved near: it fires while tests wait."""
    stack.made.add("nightly")
    with prefect_api.Api() as api:
        (schedule,) = api.schedules(NIGHTLY)
        assert schedule["active"] is False
        assert schedule["schedule"]["timezone"]
        at = datetime.now(UTC) + timedelta(minutes=1, seconds=10)
        near = {"cron": f"{at.minute} {at.hour} * * *", "timezone": "UTC"}
        api.set_schedule(NIGHTLY, schedule["id"], {"active": True, "schedule": near})
        try:
            yield
        finally:
            api.set_schedule(
                NIGHTLY, schedule["id"], {"active": False, "schedule": schedule["schedule"]}
            )


@pytest.mark.usefixtures("nightly")
def test_a_crashed_up_is_destroyed_where_that_was_asked_for(stack: Stack) -> None:
    """should bring lab-down by automation, once the dead run's hold has ended."""
    lab = "crashed"
    stack.made.add(lab)
    spec = {"lab": lab, "ttl": "30m", "on_failure": "destroy"}
    with prefect_api.Api() as api:
        run = api.start_run("lab-up/local", spec, [])
        wait_until(lambda: terraform_applies(lab), 120, "Terraform to work")
        os.kill(flow_process(run), signal.SIGKILL)
        wait_until(
            lambda: api.run(run)["state_type"] == "CRASHED", 120, "the run to count as crashed"
        )
    wait_until(lambda: not terraform_applies(lab), 60, "Terraform to end after its parent")
    wait_until(lambda: gone(stack, lab), 60 + DESTROYED, "the automation's lab-down")


def test_ten_ups_at_once_make_one_lab(stack: Stack) -> None:
    """should bring one lab up; the others are refused, naming the run that holds it."""
    lab = "crowd"
    stack.made.add(lab)
    spec = {"lab": lab, "ttl": "30m"}
    with prefect_api.Api() as api:
        runs = [api.start_run("lab-up/local", spec, []) for _ in range(10)]
        final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        wait_until(
            lambda: all(api.run(run)["state_type"] in final for run in runs), 420, "all ten runs"
        )
        states = [api.run(run) for run in runs]
    done = [s for s in states if s["state_type"] == "COMPLETED"]
    refused = [s for s in states if s["state_type"] == "FAILED"]
    assert done
    assert len(done) + len(refused) == 10
    assert all("is held by lab-up (run " in s["state"]["message"] for s in refused)
    tagged = [{"Name": f"tag:{names.TAG_LAB}", "Values": [lab]}]
    assert len(stack.session().client("ec2").describe_vpcs(Filters=tagged)["Vpcs"]) == 1
    assert len(scheduled_ends(lab)) == 1
    assert stack.down(lab).code == 0


@pytest.mark.usefixtures("nightly")
def test_the_nightly_lab_is_there_in_the_morning(stack: Stack) -> None:
    """should rebuild the nightly lab when its schedule, moved near, fires."""
    wait_until(lambda: report_of("nightly") is not None, 400, "the nightly lab's report")
    report = stack.report("nightly")
    assert report.passed, report.error
    assert stack.down("nightly").code == 0


def record(stack: Stack, lab: str) -> dict[str, Any]:
    found = stack.bucket.read_json(names.lab_record_key(lab))
    assert found is not None
    return found


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(microsecond=0)


def extend(stack: Stack, lab: str, ends_in: str) -> Ended:
    return stack.run("lab-extend/local", lab=lab, ends_in=ends_in)


def stop_time(stack: Stack, lab: str) -> datetime:
    found = (
        stack.session()
        .client("scheduler")
        .get_schedule(Name=names.STOP_SCHEDULE, GroupName=names.resource_name(lab))
    )
    text = found["ScheduleExpression"].removeprefix("at(").removesuffix(")")
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def gone(stack: Stack, lab: str) -> bool:
    return lab not in stack.bucket.list_labs()


def desired(stack: Stack, lab: str) -> int:
    service = stack.service(lab).describe()
    assert service is not None
    return service["desiredCount"]


def vpcs(stack: Stack) -> set[str]:
    return {v["VpcId"] for v in stack.session().client("ec2").describe_vpcs()["Vpcs"]}


def report_of(lab: str) -> Path | None:
    path = state_home() / "labs" / lab / "report.json"
    return path if path.exists() else None


@contextmanager
def killed_task(lab: str) -> Iterator[None]:
    """Kill the lab's task; within the block nobody else gets its address, as on AWS."""
    engine = docker.from_env()
    task = container_of(lab)
    ((network, end),) = task.attrs["NetworkSettings"]["Networks"].items()
    idle = ["-c", "import signal; signal.pause()"]
    holder = engine.containers.run(task.image, idle, entrypoint=["python3"], detach=True)
    try:
        engine.networks.get(network).disconnect(task, force=True)
        engine.networks.get(network).connect(holder, ipv4_address=end["IPAddress"])
        task.kill()
        yield
    finally:
        holder.remove(force=True)


def container_of(lab: str) -> Container:
    running = [container for container in containers(lab) if container.status == "running"]
    assert running, f"no container of {lab} runs"
    return running[0]


def flow_process(run: str) -> int:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            argv = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        of_run = run.encode() in environment or run.encode() in argv
        if of_run and b"runner/flow_run.py" in argv:
            return int(process.name)
    raise AssertionError(f"no process runs {run}")


def wait_past_end(stack: Stack, lab: str) -> None:
    end = moment(record(stack, lab)["expires_at"])
    wait_until(lambda: datetime.now(UTC) > end + timedelta(seconds=2), 240, f"the end of {lab}")
