// openai (npm) and Vercel's ai with @ai-sdk/openai-compatible and with @ai-sdk/openai, whose default are responses.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const text = process.env.OPSIN_TEXT;
const Person = z.object({ name: z.string(), age: z.number().int() });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const weather = { type: "function", function: { name: "weather", description: "weather of a city", parameters } };
const messages = [{ role: "user", content: "Ann is 30 years old and lives in Paris. Who is it?" }];
const settings = { model: "any", messages, temperature: 0, max_tokens: 200 };
const client = new OpenAI({ baseURL: text, apiKey: "none", maxRetries: 0 });
const provider = createOpenAICompatible({ name: "opsin", baseURL: text, apiKey: "none", supportsStructuredOutputs: true });

test("openai: a schema is parsed", async () => {
  const said = await client.chat.completions.parse({ ...settings, response_format: zodResponseFormat(Person, "person") });
  assert.equal(typeof said.choices[0].message.parsed.age, "number");
});

test("openai: tools, whole and streamed", async () => {
  const said = await client.chat.completions.create({ ...settings, tools: [weather], tool_choice: "required" });
  assert.equal(said.choices[0].message.tool_calls[0].function.name, "weather");
  const stream = client.chat.completions.stream({ ...settings, tools: [weather], tool_choice: "required" });
  const whole = await stream.finalChatCompletion();
  assert.equal(typeof JSON.parse(whole.choices[0].message.tool_calls[0].function.arguments).city, "string");
});

test("openai: log-probabilities and several answers", async () => {
  const said = await client.chat.completions.create({ ...settings, max_tokens: 4, n: 2, logprobs: true, top_logprobs: 2 });
  assert.equal(said.choices.length, 2);
  assert.equal(said.choices[1].logprobs.content[0].top_logprobs.length, 2);
});

const providers = { compatible: provider, responses: createOpenAI({ baseURL: text, apiKey: "none" }) };
for (const [name, made] of Object.entries(providers)) test(`ai: text, stream, object, tools: ${name}`, async () => {
  const model = made("any");
  const prompt = messages[0].content;
  assert.ok((await generateText({ model, prompt, maxOutputTokens: 20, maxRetries: 0 })).text);
  let streamed = "";
  for await (const piece of streamText({ model, prompt, maxOutputTokens: 20, maxRetries: 0 }).textStream) streamed += piece;
  assert.ok(streamed);
  const { object } = await generateObject({ model, prompt, schema: Person, maxOutputTokens: 200, maxRetries: 0 });
  assert.equal(typeof object.age, "number");
  const tools = { weather: tool({ description: "weather of a city", inputSchema: jsonSchema(parameters), execute: async () => "rain" }) };
  const called = await generateText({ model, prompt, tools, toolChoice: "required", maxOutputTokens: 200, maxRetries: 0, stopWhen: stepCountIs(1) });
  assert.equal(called.toolCalls[0].toolName, "weather");
  assert.equal(typeof called.toolCalls[0].input.city, "string");
});
