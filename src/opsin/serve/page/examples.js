/** What the model that comes with opsin can do, with pictures to click. */

import {$, make} from "./dom.js";
import {dataUrl} from "./media.js";

const EXAMPLES = [
  {file: "scene.png", question: "How many red circles are there?"},
  {file: "hello.png", question: "What does it say?"},
  {file: "chart.png", question: "Which bar is the tallest?"},
  {file: "arrow.png", question: "What shape is the orange thing?"},
];

/** `ask(picture, question)` is called for the one that is clicked. */
export function showExamples(ask) {
  $("examples").replaceChildren(...EXAMPLES.map(({file, question}) => {
    const url = `page/examples/${file}`;
    const shown = async () => dataUrl(await (await fetch(url)).blob());
    const onclick = async () => ask({kind: "image", url: await shown(), name: file}, question);
    return make("button", {type: "button", onclick}, make("img", {src: url, alt: ""}), make("span", {}, question));
  }));
  $("examples").hidden = false;
}
