"""Lists a lab's models, then asks one of them: a whole answer, and a streamed one.

It needs what ``make env`` prints. The certificate names the lab and not an address, so the client
connects to the address, asks for the lab's name, and trusts the lab's own authority alone.
"""

import os
import ssl
import sys

import httpx
from openai import DefaultHttpxClient, OpenAI

NEEDED = ("LAB_CA_FILE", "LAB_TLS_NAME", "OPENAI_BASE_URL", "OPENAI_API_KEY")


def lab_client() -> OpenAI:
    """A client of the lab that the environment names; base URL and key come from there too."""
    name = os.environ["LAB_TLS_NAME"]

    def ask_for_name(request: httpx.Request) -> None:
        request.extensions["sni_hostname"] = name

    trust = ssl.create_default_context(cafile=os.environ["LAB_CA_FILE"])
    http = DefaultHttpxClient(verify=trust, event_hooks={"request": [ask_for_name]})
    return OpenAI(http_client=http)


def main() -> None:
    """Ask the model that the first argument names, or else the first one of the list."""
    if any(not os.environ.get(name) for name in NEEDED):
        sys.exit('No lab in the environment. What to do: eval "$(make -s env)"')
    client = lab_client()

    models = [model.id for model in client.models.list()]
    print(f"Models: {', '.join(models)}")

    model = sys.argv[1] if len(sys.argv) > 1 else models[0]
    text = "What is a gateway? One sentence."

    whole = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}]
    )
    print(f"{model}: {whole.choices[0].message.content}")

    print(f"{model}, streamed: ", end="")
    for chunk in client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], stream=True
    ):
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
