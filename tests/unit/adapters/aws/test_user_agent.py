"""The user agent of each call names the stage that the call is made for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import boto3
import pytest
from botocore.exceptions import ClientError

from adapters.aws.session import Cloud
from adapters.aws.user_agent import acting_for, propagate_stage, user_agent


class _Heard(BaseHTTPRequestHandler):
    said: list[str] = []

    def do_POST(self) -> None:
        self.said += self.headers.get_all("User-Agent") or []
        self.send_response(400)
        self.end_headers()
        self.wfile.write(b"<ErrorResponse><Error><Code>No</Code></Error></ErrorResponse>")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def test_a_call_names_its_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """should have the stage at the end of each request's only user agent"""
    with HTTPServer(("127.0.0.1", 0), _Heard) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        sts = Cloud(boto3.Session("key", "secret", region_name="us-east-1")).client("sts")
        with acting_for("push image"), pytest.raises(ClientError):
            sts.get_caller_identity()
        with pytest.raises(ClientError):
            sts.get_caller_identity()
        server.shutdown()
    staged, plain = _Heard.said
    assert staged.endswith(" gateway-lab/push-image")
    assert plain.endswith(" gateway-lab")


def test_stages_of_threads_do_not_mix() -> None:
    """should know its own thread's stage, and none after the block"""
    seen: list[str] = []
    with acting_for("rollout"):
        other = threading.Thread(target=lambda: seen.append(user_agent()))
        other.start()
        other.join()
        seen.append(user_agent())
    assert [*seen, user_agent()] == ["gateway-lab", "gateway-lab/rollout", "gateway-lab"]


def test_other_threads_can_be_given_the_stage() -> None:
    """should name the stage of the thread that started the work, and forget it afterwards"""
    with acting_for("preflight"), ThreadPoolExecutor(2) as pool:
        said = list(pool.map(propagate_stage(lambda _: user_agent()), range(3)))
        bare = pool.submit(user_agent).result()
    assert said == ["gateway-lab/preflight"] * 3
    assert bare == "gateway-lab"
