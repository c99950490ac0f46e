"""Where a lab's gateway answers, how callers recognise it, and how they call it. Pure.

The texts are the same in README, docs/call.md, terminal and Prefect's UI. They show no key.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from lab import names


class Endpoint(BaseModel):
    """A gateway's address, the name in its certificate, and the authority that signed it."""

    model_config = ConfigDict(frozen=True)

    url: str
    tls_name: str
    #: PEM; see :class:`lab.certificate.Trust`.
    ca: str

    @classmethod
    def of(cls, lab: str, address: str, ca: str) -> Endpoint:
        """The endpoint of ``lab``'s task at ``address``."""
        return cls(url=names.endpoint_of(address), tls_name=names.tls_name(lab), ca=ca)

    def variables(self, ca_file: str) -> dict[str, str]:
        """An application's environment variables, without the key; ``ca_file`` holds ``ca``."""
        return {
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "LAB_CA_FILE": ca_file,
            "LAB_TLS_NAME": self.tls_name,
            "LAB_ADDRESS": urlsplit(self.url).hostname or "",
        }


def call_with_curl(model: str) -> str:
    """A shell command that asks ``model``, given :meth:`Endpoint.variables` and the key."""
    # The lines are short enough for a narrow terminal.
    return f"""curl --cacert "$LAB_CA_FILE" --connect-to "::$LAB_ADDRESS:" \\
  "https://$LAB_TLS_NAME:{names.GATEWAY_PORT}/v1/chat/completions" \\
  -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{model}",
       "messages": [{{"role": "user", "content": "Hello"}}]}}'
"""


def call_with_python(model: str) -> str:
    """A Python program that asks ``model``, given :meth:`Endpoint.variables` and the key."""
    return f"""import os, ssl
from openai import DefaultHttpxClient, OpenAI


def name_it(request):  # the certificate names the lab, not an address
    request.extensions["sni_hostname"] = os.environ["LAB_TLS_NAME"]


trust = ssl.create_default_context(cafile=os.environ["LAB_CA_FILE"])
http = DefaultHttpxClient(verify=trust, event_hooks={{"request": [name_it]}})
answer = OpenAI(http_client=http).chat.completions.create(
    model="{model}", messages=[{{"role": "user", "content": "Hello"}}]
)
print(answer.choices[0].message.content)
"""
