// Counts a prompt's tokens and lists models; prints what the SDK gave. BASE is the gateway's URL, KEY an access key.

import Anthropic from "@anthropic-ai/sdk";

const { BASE, KEY, MODEL } = process.env;
const client = new Anthropic({ baseURL: BASE, apiKey: KEY, maxRetries: 0 });
const messages = [{ role: "user", content: "How many tokens are these words?" }];
const models = [];
for await (const model of client.models.list({ limit: 2 })) models.push(model.id);
console.log(
  JSON.stringify({
    tokens: (await client.messages.countTokens({ model: MODEL, messages })).input_tokens,
    models,
    model: (await client.models.retrieve(MODEL)).id,
  }),
);
