/** Makes nodes. Texts become text nodes: nothing here reads HTML, and the page's policy forbids whoever would. */

export const $ = (id) => document.getElementById(id);

/** An element with properties (or attributes, where it has no such property), and what stands in it. */
export function make(tag, properties = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...inside);
  return made;
}

/** A button that does something. `name` is what screen readers say where the text says too little. */
export function button(text, onclick, {name = "", className = ""} = {}) {
  return make("button", {type: "button", className, onclick, ...(name && {"aria-label": name, title: name})}, text);
}

/** A button that copies what `text()` gives, and says so for a moment. */
export function copyButton(text, name = "") {
  const made = button("Copy", async () => {
    made.textContent = (await copy(text())) ? "Copied" : "Not allowed";
    setTimeout(() => { made.textContent = "Copy"; }, 1500);
  }, {name});
  return made;
}

/** Whether the clipboard has it. Browsers hide the new interface from pages that came over plain HTTP. */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const held = make("textarea", {value: text, className: "hidden"});
  document.body.append(held);
  held.select();
  const done = document.execCommand("copy");
  held.remove();
  return done;
}
