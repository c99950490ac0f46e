"""The workstation's questions to Prefect's server, sent to a server of the test."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from lab import waiting
from lab.errors import DeadlineError, InvalidInputError, PermanentError, TransientError
from workstation import prefect, prefect_api
from workstation.prefect_api import Api


class Server(ThreadingHTTPServer):
    """Gives its prepared answers in order; it repeats the last one."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[tuple[str, str, Any]] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append((self.command, self.path, body))
        answers = self.server.answers
        status, said = answers.pop(0) if len(answers) > 1 else answers[0]
        content = b"" if said is None else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PATCH = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("LAB_PREFECT_PORT", str(made.server_port))
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses of a wait, which pass at once."""
    slept: list[float] = []
    monkeypatch.setitem(waiting.wait_for.__kwdefaults__, "sleep", slept.append)
    monkeypatch.setitem(waiting.wait_for.__kwdefaults__, "clock", lambda: sum(slept))
    return slept


def test_it_waits_for_a_busy_server(server: Server, pauses: list[float]) -> None:
    """should ask again while another writer is faster or the server has too much to do"""
    server.answers = [(503, None), (429, None), (503, None), (200, {"id": "d"})]
    with Api() as api:
        assert api.deployment("lab-up/local") == {"id": "d"}
    assert server.asked == [("GET", "/api/deployments/name/lab-up/local", None)] * 4
    assert len(pauses) == 3


def test_a_question_is_repeated_after_a_timeout(
    server: Server, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """should go on while a server is too busy to answer in time"""
    server.answers = [(200, {"id": "one"})]
    late = iter([httpx.ReadTimeout("timed out")])
    ask = httpx.Client.request

    def request(*args: Any, **more: Any) -> httpx.Response:
        for error in late:
            raise error
        return ask(*args, **more)

    monkeypatch.setattr(httpx.Client, "request", request)
    with Api() as api:
        assert api.deployment("lab-up/local") == {"id": "one"}


def test_a_changed_schedule_has_its_runs_at_once(server: Server) -> None:
    """should not leave them to the server's next look, which may be after the first is due"""
    server.answers = [(200, {"id": "d"}), (204, None), (200, None)]
    with Api() as api:
        api.set_schedule("lab-rebuild/nightly-local", "s", {"active": True})
    assert server.asked[1:] == [
        ("PATCH", "/api/deployments/d/schedules/s", {"active": True}),
        ("POST", "/api/deployments/d/schedule", {}),
    ]


def test_runs_of_a_dead_worker_are_scheduled_again(server: Server) -> None:
    """should be there for the next worker, at once"""
    server.answers = [(201, {"status": "ACCEPT"})]
    with Api() as api:
        api.schedule_again("0badcafe")
    ((method, path, body),) = server.asked
    assert (method, path) == ("POST", "/api/flow_runs/0badcafe/set_state")
    assert body["force"] is True
    assert body["state"]["type"] == "SCHEDULED"
    at = datetime.fromisoformat(body["state"]["state_details"]["scheduled_time"])
    assert at <= datetime.now(UTC)


def test_it_gives_up_a_server_that_stays_busy(server: Server, pauses: list[float]) -> None:
    """should end after a minute, and say what it waited for"""
    server.answers = [(503, None)]
    with Api() as api, pytest.raises(DeadlineError, match="Prefect server's answer"):
        api.deployment("x/y")
    assert sum(pauses) == pytest.approx(prefect_api.BUSY_SECONDS)


def test_a_missing_object_is_none(server: Server) -> None:
    """should be None for the caller to judge, and an error if a run must exist"""
    server.answers = [(404, {"detail": "no"})]
    with Api() as api:
        assert api.deployment("x/y") is None
        assert api.artifact("labs") is None
        assert api.runs() == []
        assert api.schedules("x/y") == []
        with pytest.raises(PermanentError, match="run r1 is gone"):
            api.run("r1")
        with pytest.raises(PermanentError, match="no deployment x/y"):
            api.start_run("x/y", {}, [])


@pytest.mark.parametrize("status", [409, 422])
def test_a_refusal_has_the_servers_words(server: Server, status: int) -> None:
    """should give Prefect's message about the parameters"""
    server.answers = [(200, {"id": "d"}), (status, {"detail": "ttl: too long"})]
    with Api() as api, pytest.raises(InvalidInputError, match="ttl: too long"):
        api.start_run("lab-up/local", {}, [])


def test_a_broken_server_is_an_error(server: Server) -> None:
    """should be worth another try, and name the question"""
    server.answers = [(500, None)]
    with Api() as api, pytest.raises(TransientError, match="500 to /flow_runs/r1"):
        api.run("r1")


def test_a_missing_server_is_an_error(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """should be an error of the project's, with what to do"""
    server.shutdown()
    server.server_close()
    with Api() as api, pytest.raises(TransientError, match="does not answer") as caught:
        api.run("r1")
    assert "make demo" in caught.value.hint


def test_runs_without_a_process_are_ended(server: Server) -> None:
    """should end them on the server, or they would stay forever; running ones go on"""
    here = "0f0e0d0c-1111-2222-3333-444455556666"
    runs = [
        {"id": "gone-1", "name": "up", "deployment_id": "d", "state_type": "RUNNING"},
        {"id": "gone-2", "name": "down", "deployment_id": "d", "state_type": "CANCELLING"},
        {"id": "gone-3", "name": "by hand", "deployment_id": None, "state_type": "RUNNING"},
        {"id": here, "name": "watch", "deployment_id": "d", "state_type": "RUNNING"},
    ]
    server.answers = [(200, runs), (200, {}), (200, {})]
    logged: list[str] = []
    with subprocess.Popen(["sleep", "60"], env={"PREFECT__FLOW_RUN_ID": here}) as alive:
        prefect._end_dead_runs(logged.append)
        alive.kill()
    ended = [(path, body["state"]["type"]) for _, path, body in server.asked[1:]]
    assert ended == [
        ("/api/flow_runs/gone-1/set_state", "CRASHED"),
        ("/api/flow_runs/gone-2/set_state", "CANCELLED"),
    ]
    assert len(logged) == 2


def test_a_run_says_why_it_ended() -> None:
    """should be the state's message if there is one"""
    assert prefect_api.why({"state_name": "Failed", "state": {"message": "no lab"}}) == "no lab"
    assert prefect_api.why({"state_name": "Failed", "state": {"message": None}}) == "Failed"
    assert prefect_api.why({"state_name": "Late", "state": None}) == "Late"


def test_a_run_is_made_once(server: Server, pauses: list[float]) -> None:
    """should repeat a busy server's question with the same key, and use another for the next run"""
    server.answers = [(200, {"id": "d"}), (503, None), (201, {"id": "r1"})]
    with Api() as api:
        assert api.start_run("lab-up/local", {"lab": "demo"}, ["t"]) == "r1"
        (*_, (method, path, body), repeated) = server.asked
        assert repeated == (method, path, body)
        assert (method, path) == ("POST", "/api/deployments/d/create_flow_run")
        assert body["parameters"] == {"lab": "demo"}
        assert body["tags"] == ["t"]
        assert body["state"] == {"type": "SCHEDULED"}
        server.answers = [(200, {"id": "d"}), (201, {"id": "r2"})]
        assert api.start_run("lab-up/local", {}, []) == "r2"
    assert len(body["idempotency_key"]) >= 32
    assert server.asked[-1][2]["idempotency_key"] != body["idempotency_key"]
