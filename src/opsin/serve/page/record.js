/** A conversation: {id, title, changed, messages}. A message is as the API has it, with `about`, which is what is known
 * of it besides (of a question the names of its media; of an answer see answering.js). */

const NAMES = {user: "You", assistant: "Answer", tool: "Result"};

/** The text of a message. */
export function textOf({content}) {
  return typeof content === "string" ? content : (content ?? []).map((part) => part.text ?? "").join("");
}

/** What a message may hold beside text, and how people call it. */
export const KINDS = {image: "picture", audio: "sound", video: "video"};

/** The pictures, sounds and videos of a message: [{kind, url, name, uuid?}]. */
export function mediaOf({content, about}) {
  const parts = Array.isArray(content) ? content.filter(kindOf) : [];
  return parts.map((part, place) => {
    const kind = kindOf(part);
    const name = about?.names?.[place] ?? `${KINDS[kind]} ${place + 1}`;
    return {kind, uuid: part.uuid, url: part[`${kind}_url`].url, name};
  });
}

/** The part of a message that holds one of them. */
export const partOf = ({kind, url, uuid}) => ({type: `${kind}_url`, [`${kind}_url`]: {url}, ...(uuid && {uuid})});

const kindOf = ({type}) => Object.keys(KINDS).find((kind) => type === `${kind}_url`);

/** Bytes of media, which base64 has made a third more of. */
export function bytesOf(media) {
  return media.reduce((sum, {url}) => sum + url.length * .75, 0);
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
  const holdsOne = (value) => kindOf(value) && value[value.type]?.url?.startsWith?.(`data:${kindOf(value)}/`);
  return isText(part?.text) || (holdsOne(part ?? {}) && orNone(isText)(part.uuid));
}

function isCall(call) {
  return isText(call?.id) && isText(call.function?.name) && isText(call.function.arguments);
}

function isMedium(value) {
  const {part, original, size, notes, seconds} = value ?? {};
  return isText(part) && [original, size, notes].every(orNone(Array.isArray)) && orNone(Number.isFinite)(seconds);
}

function isAbout({names, versions, usage, timings, model}) {
  return orNone(listOf(isText))(names) && orNone(listOf(isMessage))(versions) && orNone(isText)(model) &&
    [usage?.pictures, usage?.sounds].every(orNone(listOf(isMedium))) &&
    Object.values(timings ?? {}).every(Number.isFinite);
}

/** A conversation as Markdown, without its media. */
export function asMarkdown({title, messages}) {
  const parts = messages.map((message) => `## ${NAMES[message.role]}\n\n${markdownOf(message)}`);
  return [`# ${title}`, ...parts].join("\n\n") + "\n";
}

function markdownOf(message) {
  const media = mediaOf(message).map(({name}) => `(${name})`);
  const calls = (message.tool_calls ?? []).map((call) => "```json\n" + JSON.stringify(call.function) + "\n```");
  return [...media, textOf(message), ...calls].filter(Boolean).join("\n\n");
}
