"""Sends the same message in every way that carries the key, streamed and not; prints what came back."""

import json
import os

import anthropic

base, key = os.environ["BASE"], os.environ["KEY"]
clients = [
    anthropic.Anthropic(base_url=base, api_key=key, max_retries=0),
    anthropic.Anthropic(base_url=base, auth_token=key, max_retries=0),
    anthropic.Anthropic(base_url=f"{base}/ak/{key}", api_key="unused", max_retries=0),
]
request = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "hello from the SDK"}],
}
answers = []
for client in clients:
    answers.append(client.messages.create(**request))
    with client.messages.stream(**request) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == message.content[0].text
    answers.append(message)

print(json.dumps([
    {
        "release": anthropic.__version__,
        "text": answer.content[0].text,
        "role": answer.role,
        "stop_reason": answer.stop_reason,
        "output_tokens": answer.usage.output_tokens,
    }
    for answer in answers
]))
