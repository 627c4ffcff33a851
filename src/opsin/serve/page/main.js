/** Begins the page: makes its parts, and gives them buttons and keys. */

import {photograph} from "./camera.js";
import {Composer, inDialog} from "./composer.js";
import {$} from "./dom.js";
import {showExamples} from "./examples.js";
import {HistoryPanel} from "./history_panel.js";
import {listen} from "./microphone.js";
import {Models} from "./models.js";
import {bytesOf, mediaOf} from "./record.js";
import {Settings} from "./settings.js";
import {Talk} from "./talk.js";

const models = new Models(), settings = new Settings();
const fail = (text) => talk.view.fail(text);
const held = () => bytesOf(talk.record.messages.flatMap(mediaOf));
const composer = new Composer({fail, held, takes: (kind) => models.takes(kind)});
const talk = new Talk({composer, models, settings, working, changed: () => panel.refresh()});
const panel = new HistoryPanel(talk);

function working(on) {
  $("go").textContent = on ? "Stop" : "Ask";
  $("go").classList.toggle("stop", on);
  $("talk").setAttribute("aria-busy", String(on));
  $("models").disabled = on;
}

/** What a person reads before they ask. */
function introduce() {
  const {description, bundled} = models.chosen, {writes} = models;
  const sees = models.takes("image"), hears = models.takes("audio");
  const what = sees && hears ? "pictures, sounds and videos" : sees ? "pictures" : "sounds";
  const takes = sees || hears ? `Drop ${what} anywhere, paste them, choose files or take one.` : "It takes text only.";
  const asks = sees ? "Show a picture, ask about it." : hears ? "Say something, ask about it." : "Ask something.";
  $("what").textContent = asks;
  $("how").textContent = writes ? takes : "This model does not answer: it makes embeddings, at /v1/embeddings.";
  $("about").textContent = description ?? "";
  $("examples").hidden = true;
  if (bundled) showExamples((picture, question) => { composer.set(question, [picture]); talk.ask(); });
}

function onKey(event) {
  const command = event.ctrlKey || event.metaKey, name = event.key.toLowerCase();
  if (inDialog()) return;
  if (event.key === "Escape") { if (!panel.isDrawer && !talk.leave()) talk.stop(); return; }
  if (command && name === "k") panel.open();
  else if (command && event.shiftKey && name === "o") talk.show();
  else return;
  event.preventDefault();
}

function onKeyInText(event) {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    talk.ask();
  } else if (event.key === "ArrowUp" && composer.isEmpty && !talk.running) {
    event.preventDefault();
    talk.editLast();
  }
}

$("ask").onsubmit = (event) => { event.preventDefault(); talk.running ? talk.stop() : talk.ask(); };
$("text").onkeydown = onKeyInText;
addEventListener("keydown", onKey);
$("new").onclick = () => talk.show();
$("open-settings").onclick = () => settings.open(models.defaults);
$("camera").onclick = () => photograph((files) => composer.take(files), fail);
$("record").onclick = () => listen((files) => composer.take(files), fail);
$("models").onchange = async () => { models.remember(); await models.describe(); introduce(); };
for (const closing of document.querySelectorAll("[data-close]")) {
  closing.onclick = () => closing.closest("dialog").close();
}

panel.begin();
if (await models.load()) introduce();
