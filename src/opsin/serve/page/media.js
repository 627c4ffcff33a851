/** Pictures, sounds and videos as nodes, and files as addresses that hold them. */

import {make} from "./dom.js";

/** What a person sees or hears of a medium; its name where the browser cannot: the server may know more kinds. */
export function mediaNode({kind, url, name}) {
  if (kind === "image") return pictureNode({url, name});
  return orName(make(kind, {src: url, controls: true, "aria-label": name}), name);
}

export const pictureNode = ({url, name}, alt = name) => orName(make("img", {src: url, alt}), name);

export const nameNode = (name, note = "") => make("span", {className: "unseen"}, name + note);

function orName(node, name) {
  node.onerror = () => node.replaceWith(nameNode(name, " (cannot be shown here)"));
  return node;
}

/** A file or blob as an address that holds it. */
export function dataUrl(blob) {
  return new Promise((done, refuse) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => refuse(reader.error);
    reader.readAsDataURL(blob);
  });
}
