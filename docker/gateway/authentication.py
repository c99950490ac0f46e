"""Identifies the caller to LiteLLM: a holder of the lab's key, which the gate has already checked.

Exists because LiteLLM's own authentication is made for many keys with teams and budgets in a
database, and looks for them at each request. LiteLLM checks a request's form before this.
"""

import hmac
import os

from fastapi import HTTPException
from litellm.proxy._types import LitellmUserRoles, UserAPIKeyAuth

_KEY = os.environ["LITELLM_MASTER_KEY"].encode()
# All callers are one user, who is no administrator of LiteLLM.
_CALLER = UserAPIKeyAuth(user_role=LitellmUserRoles.INTERNAL_USER)


async def authenticate(request, api_key: str | None) -> UserAPIKeyAuth:  # noqa: ANN001
    """The caller, as a copy: LiteLLM changes it. Raises HTTPException without the key."""
    if not hmac.compare_digest((api_key or "").encode(), _KEY):
        raise HTTPException(401, "Incorrect API key provided.")
    return _CALLER.model_copy()
