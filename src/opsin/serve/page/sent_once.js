/** Pictures that the server has: from then on they are named, by their uuid, and not sent again. */

import {stream} from "./server.js";

const known = new Set();

/** A name for a picture, which nobody else can guess. */
export function newUuid() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** As `stream`. Where the server has forgotten a picture, all of them are sent again. */
export async function* streamNamed(path, body, signal) {
  const uuids = body.messages.flatMap(({content}) => partsOf(content).map(({uuid}) => uuid).filter(Boolean));
  const named = {...body, messages: body.messages.map(withNames)};
  try {
    for await (const told of stream(path, named, signal)) {
      for (const uuid of uuids) known.add(uuid);
      yield told;
    }
  } catch (error) {
    if (!error.field?.endsWith(".uuid")) throw error;
    known.clear();
    yield* streamNamed(path, body, signal);
  }
}

const nameOf = ({type, uuid}) => ({type, uuid});
const partsOf = (content) => Array.isArray(content) ? content : [];

function withNames(message) {
  const isKnown = ({uuid}) => known.has(uuid);
  if (!partsOf(message.content).some(isKnown)) return message;
  return {...message, content: message.content.map((part) => isKnown(part) ? nameOf(part) : part)};
}
