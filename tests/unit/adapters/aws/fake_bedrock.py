"""A Bedrock with the test's answers, behind HTTP: the local cloud knows only active models.

Paths, and the shape of each answer, are botocore's own description of the service: an answer
that AWS could not give fails the test.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from botocore.model import ServiceModel
from botocore.validate import validate_parameters

from tests.unit.adapters.aws.stubs import session_of

_SERVICE: ServiceModel = session_of("us-east-1").client("bedrock").meta.service_model
_ARN = "arn:aws:bedrock:us-east-1::foundation-model/"


class _RefusedError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class FakeBedrock:
    """What the account sees: models with their lifecycle and access, profiles, agreements."""

    def __init__(self) -> None:
        self.details: dict[str, dict[str, Any]] = {}
        self.access: dict[str, dict[str, Any]] = {}
        self.offers: dict[str, str] = {}
        self.profiles: dict[str, list[str]] = {}
        #: The answers to the next questions after an agreement; the last one stays.
        self.after: dict[str, list[str]] = {}
        self.error_message: str | None = None
        self.use_case = True
        #: Operations that the caller may not call.
        self.denied: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def has(
        self,
        model_id: str,
        *,
        status: str = "ACTIVE",
        kinds: tuple[str, ...] = ("ON_DEMAND",),
        agreement: str = "AVAILABLE",
        authorization: str = "AUTHORIZED",
        entitlement: str = "AVAILABLE",
        region: str = "AVAILABLE",
        offered: bool = False,
        **life: datetime,
    ) -> FakeBedrock:
        """Add ``model_id``; ``life`` are further fields of its lifecycle."""
        self.details[model_id] = {
            "modelArn": _ARN + model_id,
            "modelId": model_id,
            "inferenceTypesSupported": list(kinds),
            "modelLifecycle": {"status": status, **life},
        }
        self.access[model_id] = {
            "modelId": model_id,
            "agreementAvailability": {"status": agreement},
            "authorizationStatus": authorization,
            "entitlementAvailability": entitlement,
            "regionAvailability": region,
        }
        if offered:
            self.offers[model_id] = f"token-of-{model_id}"
        return self

    def asked(self, operation: str) -> list[str]:
        """The arguments of each call of ``operation``, in order of arrival."""
        return [what for name, what in self.calls if name == operation]

    def answer(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        """The answer to one call, or _RefusedError."""
        with self._lock:
            self.calls.append((operation, next(iter(asked.values()), "")))
            if operation in self.denied:
                said = f"User: me is not authorized to perform: bedrock:{operation}"
                raise _RefusedError("AccessDeniedException", said)
            found: dict[str, Any] = getattr(self, f"_{operation}")(**asked)
            return found

    def _GetFoundationModel(self, modelIdentifier: str) -> dict[str, Any]:  # noqa: N802, N803
        return {"modelDetails": self._known(self.details, modelIdentifier)}

    def _GetFoundationModelAvailability(self, modelId: str) -> dict[str, Any]:  # noqa: N802, N803
        access: dict[str, Any] = self._known(self.access, modelId)
        steps = self.after.get(modelId)
        agreement = access["agreementAvailability"]
        if steps and ("CreateFoundationModelAgreement", modelId) in self.calls:
            agreement["status"] = steps.pop(0) if len(steps) > 1 else steps[0]
            if agreement["status"] == "AVAILABLE":
                access["entitlementAvailability"] = "AVAILABLE"
            if agreement["status"] == "ERROR" and self.error_message:
                agreement["errorMessage"] = self.error_message
        return access

    def _ListFoundationModelAgreementOffers(  # noqa: N802
        self,
        modelId: str,  # noqa: N803
        offerType: str = "ALL",  # noqa: N803
    ) -> dict[str, Any]:
        assert offerType == "PUBLIC"
        terms = {
            "usageBasedPricingTerm": {"rateCard": []},
            "legalTerm": {"url": "https://terms.test/presigned"},
            "supportTerm": {},
        }
        tokens = [self.offers[modelId]] if modelId in self.offers else []
        offers = [{"offerToken": token, "termDetails": terms} for token in tokens]
        return {"modelId": modelId, "offers": offers}

    def _CreateFoundationModelAgreement(  # noqa: N802
        self,
        modelId: str,  # noqa: N803
        offerToken: str,  # noqa: N803
    ) -> dict[str, Any]:
        assert offerToken == self.offers[modelId]
        agreement = self.access[modelId]["agreementAvailability"]
        if agreement["status"] in {"PENDING", "AVAILABLE"}:
            raise _RefusedError("ConflictException", "there is an agreement")
        agreement["status"] = "PENDING"
        self.after.setdefault(modelId, ["AVAILABLE"])
        return {"modelId": modelId}

    def _GetInferenceProfile(self, inferenceProfileIdentifier: str) -> dict[str, Any]:  # noqa: N802, N803
        regions = self._known(self.profiles, inferenceProfileIdentifier)
        return {
            "inferenceProfileId": inferenceProfileIdentifier,
            "inferenceProfileName": "a profile",
            "inferenceProfileArn": f"{_ARN}profile",
            "status": "ACTIVE",
            "type": "SYSTEM_DEFINED",
            "models": [
                {"modelArn": f"arn:aws:bedrock:{region}::foundation-model/x"} for region in regions
            ],
        }

    def _GetUseCaseForModelAccess(self) -> dict[str, Any]:  # noqa: N802
        if not self.use_case:
            said = "You have not filled out the request form."
            raise _RefusedError("ResourceNotFoundException", said)
        return {"formData": b"a form"}

    def _known(self, where: dict[str, Any], name: str) -> Any:
        if name not in where:
            raise _RefusedError("ResourceNotFoundException", f"Could not resolve {name}")
        return where[name]


def _operation_of(method: str, path: str) -> tuple[str, dict[str, Any]]:
    for name in _SERVICE.operation_names:
        http = _SERVICE.operation_model(name).http
        pattern = re.sub(r"\{(\w+)\+?\}", r"(?P<\1>[^/]+)", http["requestUri"])
        found = re.fullmatch(pattern, path)
        if found and http["method"] == method:
            return name, {key: unquote(value) for key, value in found.groupdict().items()}
    raise AssertionError(f"no operation of Bedrock's is {method} {path}")


def _plain(value: Any) -> Any:
    """As JSON on the wire: times in ISO 8601, bytes in base64 (none are looked at)."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return "" if isinstance(value, bytes) else value


@contextmanager
def serve(fake: FakeBedrock) -> Iterator[str]:
    """``fake`` at an address of this machine, for AWS_ENDPOINT_URL_BEDROCK."""

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            url = urlsplit(self.path)
            operation, asked = _operation_of(self.command, url.path)
            asked |= dict(part.split("=") for part in url.query.split("&") if part)
            length = int(self.headers.get("content-length") or 0)
            asked |= json.loads(self.rfile.read(length)) if length else {}
            try:
                answer = fake.answer(operation, asked)
                model = _SERVICE.operation_model(operation)
                validate_parameters(answer, model.output_shape)
                self._say(model.http["responseCode"], _plain(answer))
            except _RefusedError as error:
                status = 403 if error.code.startswith("AccessDenied") else 400
                self._say(status, {"message": str(error)}, error.code)

        do_GET = do_POST = _any  # noqa: N815

        def _say(self, status: int, body: dict[str, Any], code: str = "") -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            if code:
                self.send_header("x-amzn-errortype", code)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
