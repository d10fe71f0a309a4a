"""Counts a prompt's tokens and lists models; prints what the SDK gave. BASE is the gateway's URL, KEY an access key."""

import json
import os

import anthropic

client = anthropic.Anthropic(base_url=os.environ["BASE"], api_key=os.environ["KEY"], max_retries=0)
MODEL = os.environ["MODEL"]
PROMPT = [{"role": "user", "content": "How many tokens are these words?"}]
print(json.dumps({
    "tokens": client.messages.count_tokens(model=MODEL, messages=PROMPT).input_tokens,
    "models": [model.id for model in client.models.list(limit=2)],
    "model": client.models.retrieve(MODEL).id,
}))
