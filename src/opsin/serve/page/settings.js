/** What a person sets: a system's text, how tokens are chosen, tools. Kept in the browser; empty is as the model's. */

import {$, make} from "./dom.js";

const PLACE = "opsin.settings";

/** Numbers of a request, under the server's names. */
const NUMBERS = [
  {name: "temperature", label: "Temperature", most: 2, about: "0 takes the likeliest token"},
  {name: "top_p", label: "Top p", most: 1, about: "share of likeliest tokens"},
  {name: "top_k", label: "Top k", most: 1000, step: 1, about: "so many likeliest; 0 for all"},
  {name: "min_p", label: "Min p", most: 1, about: "of the likeliest's share"},
  {name: "repeat_penalty", label: "Repeat penalty", most: 2, about: "1 for none"},
  {name: "presence_penalty", label: "Presence penalty", least: -2, most: 2, about: "0 for none"},
  {name: "frequency_penalty", label: "Frequency penalty", least: -2, most: 2, about: "0 for none"},
  {name: "max_tokens", label: "Longest answer", least: 1, most: 1e6, step: 1, about: "tokens"},
  {name: "seed", label: "Seed", most: 2 ** 32 - 2, step: 1, about: "the same answer again"},
];

export class Settings {
  constructor() {
    this.values = {keep: true, ...stored()};
    $("numbers").replaceChildren(...NUMBERS.map(field));
    $("tools").oninput = () => $("tools").setCustomValidity(problemOfTools($("tools").value));
    $("settings-form").onsubmit = () => this.save();
    $("reset").onclick = () => this.fill({keep: true});
  }

  get keeps() {
    return this.values.keep;
  }

  /** Show the dialog. `defaults` are what holds where nothing is set. */
  open(defaults) {
    for (const {name} of NUMBERS) $(name).placeholder = placeholder(defaults[name]);
    this.fill(this.values);
    $("settings").showModal();
  }

  fill(values) {
    for (const {name} of NUMBERS) $(name).value = values[name] ?? "";
    $("system").value = values.system ?? "";
    $("tools").value = values.tools ?? "";
    $("thinking").value = values.thinking ?? "";
    $("keep").checked = values.keep;
    $("tools").setCustomValidity(problemOfTools($("tools").value));
  }

  save() {
    const numbers = NUMBERS.filter(({name}) => $(name).value !== "").map(({name}) => [name, $(name).valueAsNumber]);
    const texts = ["system", "tools", "thinking"].map((name) => [name, $(name).value.trim()]);
    this.values = {keep: $("keep").checked, ...Object.fromEntries([...numbers, ...texts.filter(([, text]) => text)])};
    try { localStorage.setItem(PLACE, JSON.stringify(this.values)); } catch { /* they hold until the page is closed */ }
  }

  /** The messages before all others. */
  get messages() {
    return this.values.system ? [{role: "system", content: this.values.system}] : [];
  }

  /** Fields of a request. */
  get fields() {
    const {keep, system, tools, thinking, ...numbers} = this.values;
    const thinks = thinking && {enable_thinking: thinking === "on"};
    return {...numbers, ...(tools && {tools: JSON.parse(tools)}), ...thinks};
  }
}

function stored() {
  try { return JSON.parse(localStorage.getItem(PLACE)) ?? {}; } catch { return {}; }
}

function field({name, label, least = 0, most, step = "any", about}) {
  const input = make("input", {id: name, type: "number", min: least, max: most, step, inputMode: "decimal"});
  return make("label", {}, make("span", {}, label), input, make("small", {}, about));
}

function placeholder(value) {
  return typeof value === "number" && value >= 0 && value < 2 ** 32 - 1 ? String(Math.round(value * 1e4) / 1e4) : "";
}

/** What is wrong with tools as they were typed; "" for nothing. */
function problemOfTools(text) {
  if (!text.trim()) return "";
  try {
    const tools = JSON.parse(text);
    const areTools = Array.isArray(tools) && tools.every((tool) => tool?.function?.name);
    return areTools ? "" : 'This is no list of {"type": "function", "function": {"name": ...}}';
  } catch (error) {
    return `This is no JSON: ${error.message}`;
  }
}
