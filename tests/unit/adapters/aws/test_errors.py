"""boto3's errors become the project's: the attempted action, the fault, and what to do."""

from __future__ import annotations

import pytest
from botocore import exceptions as boto

from adapters.aws.errors import translate_aws_errors
from lab.errors import InvalidInputError, LabError, PermanentError, TransientError


def client_error(code: str, status: int = 400) -> boto.ClientError:
    return boto.ClientError(
        {
            "Error": {"Code": code, "Message": "it is so"},
            "ResponseMetadata": {"HTTPStatusCode": status},  # type: ignore[typeddict-item]
        },
        "Do",
    )


@pytest.mark.parametrize(
    ("error", "kind", "said", "hint"),
    [
        (client_error("ExpiredToken"), PermanentError, "credentials have expired", "Sign in"),
        (client_error("ExpiredTokenException"), PermanentError, "have expired", "Sign in"),
        (client_error("InvalidClientTokenId", 403), PermanentError, "refuses the cred", "Sign in"),
        (client_error("SignatureDoesNotMatch", 403), PermanentError, "refuses the", "Sign in"),
        (client_error("AccessDenied", 403), PermanentError, "AccessDenied: it is so", "Allow"),
        (client_error("UnauthorizedOperation", 403), PermanentError, "it is so", "Allow"),
        (client_error("ThrottlingException"), TransientError, "it is so", "run the command again"),
        (client_error("SlowDown", 503), TransientError, "it is so", "run the command again"),
        (client_error("Weird", 500), TransientError, "Weird: it is so", "run the command again"),
        (client_error("ClusterNotFound"), PermanentError, "ClusterNotFound: it is so", "Remove"),
        (boto.NoCredentialsError(), PermanentError, "no AWS credentials", "AWS_PROFILE"),
        (
            boto.PartialCredentialsError(provider="env", cred_var="x"),
            PermanentError,
            "no AWS credentials",
            "Sign in",
        ),
        (boto.ProfileNotFound(profile="mine"), PermanentError, "mine", "existing profile"),
        (boto.UnauthorizedSSOTokenError(), PermanentError, "sign-in has expired", "aws sso login"),
        (
            boto.EndpointConnectionError(endpoint_url="https://x"),
            TransientError,
            "https://x",
            "network",
        ),
        (boto.ReadTimeoutError(endpoint_url="https://x"), TransientError, "https://x", "network"),
    ],
)
def test_each_error_is_translated(
    error: Exception, kind: type[LabError], said: str, hint: str
) -> None:
    """should name the attempted action, the fault and the remedy, and whether it may pass"""
    with pytest.raises(kind) as caught, translate_aws_errors("counting sheep"):
        raise error
    assert caught.value.message.startswith("counting sheep: ")
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_our_own_errors_stay_unchanged() -> None:
    """should not wrap an error that is the project's own"""
    mine = InvalidInputError("no")
    with pytest.raises(InvalidInputError) as caught, translate_aws_errors("counting"):
        raise mine
    assert caught.value is mine
