/** An answer as it comes: the API's message, {role, content, reasoning_content?, tool_calls?}, and `about`, what is
 * known of it: model, usage, timings, progress, why it ended, other versions, the question's path in the request. */

import {streamNamed} from "./sent_once.js";

/** Yields the same message again whenever there is more of it. `begun` is an answer to go on with. */
export async function* answer(body, signal, begun = null) {
  const asked = `messages[${body.messages.findLastIndex(({role}) => role === "user")}]`;
  const about = {versions: begun?.about?.versions, model: body.model, asked};
  const made = {role: "assistant", content: "", ...begun, about};
  const told = {stream_options: {include_usage: true}, timings_per_token: true, return_progress: true};
  yield made;
  for await (const value of streamNamed("v1/chat/completions", {...body, stream: true, ...told}, signal)) {
    add(made, value);
    yield made;
  }
}

/** What the API shall see of a message. */
export function bare({about, ...message}) {
  return message;
}

/** A message without calls that were cut off: nobody can answer these. */
export function withWholeCalls({tool_calls: calls = [], ...message}) {
  const whole = calls.filter(({function: {arguments: text}}) => isJson(text));
  return whole.length ? {...message, tool_calls: whole} : message;
}

function isJson(text) {
  try { JSON.parse(text); return true; } catch { return false; }
}

function add(made, told) {
  const choice = told.choices[0], {about} = made;
  about.timings = told.timings ?? about.timings;
  about.usage = told.usage ?? about.usage;
  about.progress = told.prompt_progress ?? null;
  if (choice) {
    about.ended = choice.finish_reason ?? about.ended;
    addDelta(made, choice.delta ?? {});
  }
}

function addDelta(made, {content, reasoning_content: thought, tool_calls: calls}) {
  if (content) made.content += content;
  if (thought) made.reasoning_content = (made.reasoning_content ?? "") + thought;
  for (const {index, id, function: called} of calls ?? []) {
    made.tool_calls ??= [];
    made.tool_calls[index] ??= {id, type: "function", function: {name: "", arguments: ""}};
    made.tool_calls[index].function.name += called?.name ?? "";
    made.tool_calls[index].function.arguments += called?.arguments ?? "";
  }
}
