"""Works on a task with tools, in every way that the SDK offers; prints what the SDK gave for each.

BASE is the gateway's URL, KEY an access key, WAY how the key travels, MODEL the model's name, DIR where the task's file is.
"""

import json
import os
import pathlib

import anthropic

BASE, KEY, WAY, MODEL = (os.environ[name] for name in ("BASE", "KEY", "WAY", "MODEL"))
FILE = pathlib.Path(os.environ["DIR"], "notes.txt")
CLIENTS = {
    "x-api-key": lambda: anthropic.Anthropic(base_url=BASE, api_key=KEY, max_retries=0),
    "bearer": lambda: anthropic.Anthropic(base_url=BASE, auth_token=KEY, max_retries=0),
    "path": lambda: anthropic.Anthropic(base_url=f"{BASE}/ak/{KEY}", api_key="unused", max_retries=0),
    "bedrock bearer": lambda: anthropic.AnthropicBedrock(
        base_url=f"{BASE}/bedrock", api_key=KEY, aws_region="us-east-1", max_retries=0
    ),
    # Signed with credentials of nobody: the gateway signs anew.
    "bedrock path": lambda: anthropic.AnthropicBedrock(
        base_url=f"{BASE}/ak/{KEY}/bedrock",
        aws_access_key="AKIANOBODY",
        aws_secret_key="nothing",
        aws_region="us-east-1",
        max_retries=0,
    ),
}
client = CLIENTS[WAY]()


def read_file() -> str:
    """Reads the file."""
    return FILE.read_text()


def write_file(text: str) -> str:
    """Writes the file."""
    FILE.write_text(text)
    return "written"


TOOLS = {"read_file": read_file, "write_file": write_file}
HOUR = {"type": "ephemeral", "ttl": "1h"}
OBJECT = {"type": "object", "additionalProperties": False}
REQUEST = {
    "model": MODEL,
    "max_tokens": 4096,
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "system": [{"type": "text", "text": "You change files.", "cache_control": HOUR}],
    "tools": [
        {"name": "read_file", "description": read_file.__doc__, "input_schema": {**OBJECT, "properties": {}}},
        {
            "name": "write_file",
            "description": write_file.__doc__,
            "input_schema": {**OBJECT, "properties": {"text": {"type": "string"}}, "required": ["text"]},
            "cache_control": HOUR,
        },
    ],
}


def whole(messages):
    return client.messages.create(**REQUEST, messages=messages)


def streamed(messages):
    """The stream's own deltas, put together by hand, are the message that the helper gives."""
    text, thinking, arguments = "", "", ""
    with client.messages.stream(**REQUEST, messages=messages) as stream:
        for event in stream:
            if event.type == "text":
                text += event.text
            elif event.type == "thinking":
                thinking += event.thinking
            elif event.type == "input_json":
                arguments += event.partial_json
        message = stream.get_final_message()
    of = lambda kind, member: "".join(getattr(block, member) for block in message.content if block.type == kind)
    assert text == of("text", "text"), (text, message)
    assert thinking == of("thinking", "thinking"), (thinking, message)
    calls = [block.input for block in message.content if block.type == "tool_use"]
    assert arguments == "".join(json.dumps(call, separators=(",", ":"), ensure_ascii=False) for call in calls), arguments
    return message


def loop(ask):
    """A task to its end."""
    content = [{"type": "text", "text": "Change alpha to beta.", "cache_control": {"type": "ephemeral"}}]
    messages, answers = [{"role": "user", "content": content}], []
    while True:
        message = ask(messages)
        answers.append(message.to_dict(mode="json"))
        messages.append({"role": "assistant", "content": message.content})
        calls = [block for block in message.content if block.type == "tool_use"]
        if message.stop_reason != "tool_use":
            return answers
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": TOOLS[call.name](**call.input)} for call in calls
        ]
        messages.append({"role": "user", "content": results})


runs = []
for ask in (whole, streamed):
    FILE.write_text("alpha é\n")
    answers = loop(ask)
    runs.append({"how": ask.__name__, "answers": answers, "file": FILE.read_text()})
print(json.dumps(runs))
