"""Tells LiteLLM who asks: whoever has the lab's key, which the gate has looked at already.

Exists because LiteLLM's own way is made for many keys with teams and budgets in a database, and
looks for them with each question. What it asks of a request's form, it asks before this.
"""

import hmac
import os

from fastapi import HTTPException
from litellm.proxy._types import LitellmUserRoles, UserAPIKeyAuth

_KEY = os.environ["LITELLM_MASTER_KEY"].encode()
# All callers are one, who is no administrator of LiteLLM's.
_CALLER = UserAPIKeyAuth(user_role=LitellmUserRoles.INTERNAL_USER)


async def authenticate(request, api_key: str | None) -> UserAPIKeyAuth:  # noqa: ANN001
    """The caller, as a copy: LiteLLM writes on it. Raises HTTPException without the key."""
    if not hmac.compare_digest((api_key or "").encode(), _KEY):
        raise HTTPException(401, "Incorrect API key provided.")
    return _CALLER.model_copy()
