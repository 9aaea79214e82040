"""Ask a running ``rsd serve`` with OpenAI's own client: whole, in chunks, and with what only rsd has.

pip install 'rsd-local[server]' openai
rsd serve                           # in another terminal
python examples/openai_client.py [URL]
"""

from __future__ import annotations

import sys

from openai import BadRequestError, OpenAI

QUESTION = "(37+48)*6-129"


def main(url: str = "http://127.0.0.1:8177/v1") -> None:
    """Shows each way to ask."""
    client = OpenAI(base_url=url, api_key="not needed without --api-key-file")

    whole = client.chat.completions.create(model="abacus", messages=[{"role": "user", "content": QUESTION}])
    print(whole.choices[0].message.content)
    print("cached prompt tokens:", whole.usage and whole.usage.prompt_tokens_details and whole.usage.prompt_tokens_details.cached_tokens)

    print("\nstep by step, with who wrote it, its reward and what it replaced:")
    stream = client.chat.completions.create(
        model="abacus", messages=[{"role": "user", "content": QUESTION}], stream=True, extra_body={"rsd": {"rejected": True}}
    )
    for chunk in stream:
        step = (chunk.model_extra or {}).get("rsd", {})
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
        if step.get("done"):
            gone = f", in place of {step['rejected']['text']!r}" if step["rejected"] else ""
            print(f"   [{step['author']}, reward {step['reward']:.3f}{gone}]")

    print("\nthe target alone:")
    alone = client.chat.completions.create(model="abacus:target", messages=[{"role": "user", "content": QUESTION}])
    print(alone.choices[0].message.content)

    try:
        client.chat.completions.create(model="abacus", messages=[{"role": "user", "content": "Who was Gauss?"}])
    except BadRequestError as error:
        print("\na question that this trio cannot take:", error.body)


if __name__ == "__main__":
    main(*sys.argv[1:])
