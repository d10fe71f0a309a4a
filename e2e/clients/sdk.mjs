// Works on a task with tools, in every way that the SDK offers; prints what the SDK gave for each.
//
// BASE is the gateway's URL, KEY an access key, WAY how the key travels, MODEL the model's name, DIR where the task's file is.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import Anthropic from "@anthropic-ai/sdk";
import { AnthropicBedrock } from "@anthropic-ai/bedrock-sdk";

const { BASE, KEY, WAY, MODEL, DIR } = process.env;
const FILE = join(DIR, "notes.txt");
const CLIENTS = {
  "x-api-key": () => new Anthropic({ baseURL: BASE, apiKey: KEY, maxRetries: 0 }),
  bearer: () => new Anthropic({ baseURL: BASE, authToken: KEY, apiKey: null, maxRetries: 0 }),
  path: () => new Anthropic({ baseURL: `${BASE}/ak/${KEY}`, apiKey: "unused", maxRetries: 0 }),
  "bedrock bearer": () => new AnthropicBedrock({ baseURL: `${BASE}/bedrock`, apiKey: KEY, maxRetries: 0 }),
  "bedrock path": () => new AnthropicBedrock({ baseURL: `${BASE}/ak/${KEY}/bedrock`, skipAuth: true, maxRetries: 0 }),
};
const client = CLIENTS[WAY]();

const TOOLS = {
  read_file: () => readFileSync(FILE, "utf8"),
  write_file: ({ text }) => {
    writeFileSync(FILE, text);
    return "written";
  },
};
const HOUR = { type: "ephemeral", ttl: "1h" };
const object = (properties) => ({
  type: "object",
  additionalProperties: false,
  properties,
  required: Object.keys(properties),
});
const REQUEST = {
  model: MODEL,
  max_tokens: 4096,
  thinking: { type: "enabled", budget_tokens: 1024 },
  system: [{ type: "text", text: "You change files.", cache_control: HOUR }],
  tools: [
    { name: "read_file", description: "Reads the file.", input_schema: object({}) },
    {
      name: "write_file",
      description: "Writes the file.",
      input_schema: object({ text: { type: "string" } }),
      cache_control: HOUR,
    },
  ],
};

const whole = (messages) => client.messages.create({ ...REQUEST, messages });

// The stream's own deltas, put together by hand, are the message that the helper gives.
async function streamed(messages) {
  const heard = { text: "", thinking: "", arguments: "" };
  const stream = client.messages
    .stream({ ...REQUEST, messages })
    .on("text", (delta) => (heard.text += delta))
    .on("thinking", (delta) => (heard.thinking += delta))
    .on("inputJson", (delta) => (heard.arguments += delta));
  const message = await stream.finalMessage();
  const of = (kind, member) =>
    message.content
      .filter((block) => block.type === kind)
      .map((block) => (kind === "tool_use" ? JSON.stringify(block[member]) : block[member]))
      .join("");
  const given = { text: of("text", "text"), thinking: of("thinking", "thinking"), arguments: of("tool_use", "input") };
  assert.deepEqual(heard, given);
  return message;
}

// A task to its end.
async function loop(ask) {
  const content = [{ type: "text", text: "Change alpha to beta.", cache_control: { type: "ephemeral" } }];
  const messages = [{ role: "user", content }];
  const answers = [];
  for (;;) {
    const message = await ask(messages);
    answers.push(message);
    messages.push({ role: "assistant", content: message.content });
    if (message.stop_reason !== "tool_use") return answers;
    const calls = message.content.filter((block) => block.type === "tool_use");
    const results = calls.map((call) => ({
      type: "tool_result",
      tool_use_id: call.id,
      content: TOOLS[call.name](call.input),
    }));
    messages.push({ role: "user", content: results });
  }
}

const runs = [];
for (const ask of [whole, streamed]) {
  writeFileSync(FILE, "alpha é\n");
  const answers = await loop(ask);
  runs.push({ how: ask.name, answers, file: readFileSync(FILE, "utf8") });
}
console.log(JSON.stringify(runs));
