/** A conversation: {id, title, changed, messages}. A message is as the API has it, with `about`, which is what is known
 * of it besides (of a question the names of its pictures; of an answer see answering.js). */

const NAMES = {user: "You", assistant: "Answer", tool: "Result"};

/** The text of a message. */
export function textOf({content}) {
  return typeof content === "string" ? content : (content ?? []).map((part) => part.text ?? "").join("");
}

/** The pictures of a message. */
export function picturesOf({content, about}) {
  const parts = Array.isArray(content) ? content.filter((part) => part.type === "image_url") : [];
  return parts.map((part, place) => ({url: part.image_url.url, name: about?.names?.[place] ?? `picture ${place + 1}`}));
}

/** Bytes of pictures, which base64 has made a third more of. */
export function bytesOf(pictures) {
  return pictures.reduce((sum, {url}) => sum + url.length * .75, 0);
}

/** Whether a value of somebody's file is a record that this page can show. */
export function isRecord(value) {
  const hasHead = isText(value?.id) && isText(value.title) && Number.isFinite(value.changed);
  return hasHead && isListOf(isMessage, value.messages);
}

const isText = (value) => typeof value === "string";
const isListOf = (isOne, values) => Array.isArray(values) && values.every((value) => isOne(value));
const listOf = (isOne) => (values) => isListOf(isOne, values);
const orNone = (is) => (value) => value === undefined || value === null || is(value);

function isMessage(value) {
  const {role, content, reasoning_content: thought, tool_calls: calls, about} = value ?? {};
  const isSaid = Object.hasOwn(NAMES, role) && (isText(content) || isListOf(isPart, content));
  return isSaid && orNone(isText)(thought) && orNone(listOf(isCall))(calls) && isAbout(about ?? {});
}

function isPart(part) {
  return isText(part?.text) || (isText(part?.image_url?.url) && part.image_url.url.startsWith("data:image/"));
}

function isCall(call) {
  return isText(call?.id) && isText(call.function?.name) && isText(call.function.arguments);
}

function isPicture(value) {
  const {part, original, size, notes} = value ?? {};
  return isText(part) && [original, size, notes].every(orNone(Array.isArray));
}

function isAbout({names, versions, usage, timings, model}) {
  return orNone(listOf(isText))(names) && orNone(listOf(isMessage))(versions) && orNone(isText)(model) &&
    orNone(listOf(isPicture))(usage?.pictures) &&
    Object.values(timings ?? {}).every(Number.isFinite);
}

/** A conversation as Markdown, without its pictures. */
export function asMarkdown({title, messages}) {
  const parts = messages.map((message) => `## ${NAMES[message.role]}\n\n${markdownOf(message)}`);
  return [`# ${title}`, ...parts].join("\n\n") + "\n";
}

function markdownOf(message) {
  const pictures = picturesOf(message).map(({name}) => `(${name})`);
  const calls = (message.tool_calls ?? []).map((call) => "```json\n" + JSON.stringify(call.function) + "\n```");
  return [...pictures, textOf(message), ...calls].filter(Boolean).join("\n\n");
}
