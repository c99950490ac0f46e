"""boto3's errors in the project's words: transient or permanent, and what to do next.

The only place that decides which of AWS's answers are worth another try.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from adapters.aws.denial import find_denial
from lab.errors import PermanentError, TransientError

_TRANSIENT_CODES = {
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "ServerException",
    "SlowDown",
    "OperationAborted",
}
_EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_BAD_CREDENTIAL_CODES = {
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "AuthFailure",
    "InvalidAccessKeyId",
}
#: A refused HEAD request has a status only.
_DENIED_CODES = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"}
_SIGN_IN = "Sign in to AWS again (for example `aws sso login`) and run the command again."


@contextmanager
def translate_aws_errors(doing: str) -> Iterator[None]:
    """Translate boto3's errors into the project's; ``doing`` says what was being done."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        said = error.response.get("Error", {}).get("Message", "") or str(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        message = f"{doing}: {code}: {said}"
        if code in _EXPIRED_CODES:
            raise PermanentError(f"{doing}: the AWS credentials have expired", _SIGN_IN) from error
        if code in _BAD_CREDENTIAL_CODES:
            raise PermanentError(
                f"{doing}: AWS refuses the credentials: {said}", _SIGN_IN
            ) from error
        denial = find_denial(said, error.operation_name) if code in _DENIED_CODES else None
        if denial:
            raise PermanentError(
                f"{doing}: {denial} is not allowed: {code}: {said}", denial.hint
            ) from error
        if code in _TRANSIENT_CODES or status >= 500:
            raise TransientError(message, "It may pass: run the command again.") from error
        raise PermanentError(message, "Remove the cause and run the command again.") from error
    except (UnauthorizedSSOTokenError, TokenRetrievalError) as error:
        raise PermanentError(f"{doing}: the AWS sign-in has expired: {error}", _SIGN_IN) from error
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
        raise PermanentError(
            f"{doing}: no AWS credentials: {error}",
            "Sign in to AWS, name a profile in AWS_PROFILE, or fill the AWS Credentials block.",
        ) from error
    except ProfileNotFound as error:
        raise PermanentError(f"{doing}: {error}", "Name an existing profile.") from error
    except ParamValidationError as error:
        raise PermanentError(f"{doing}: {error}", "Remove the cause and try again.") from error
    except BotoCoreError as error:
        raise TransientError(f"{doing}: {error}", "Check the network and try again.") from error
