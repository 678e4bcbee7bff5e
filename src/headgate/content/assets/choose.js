// @ts-check
// Second step: which of the subtopics are to be explained.

import { at, el, say } from "./dom.js";
import * as gauge from "./gauge.js";
import { calm } from "./notices.js";
import { t } from "./speech.js";
import { MOST_AT_ONCE, chosen, keep, state } from "./state.js";

/** @param {() => void} onward @param {() => void} back */
export function begin(onward, back) {
  at("choose-form").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    calm();
    if (!chosen().length) return say(at("fits").textContent = t("chooseSome"));
    onward();
  });
  at("all").addEventListener("click", () => mark((place) => place < MOST_AT_ONCE));
  at("none").addEventListener("click", () => mark(() => false));
  at("back-topic").addEventListener("click", back);
  at("add").addEventListener("click", add);
  at("own").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault(); // it adds one, and explains nothing yet
    add();
  });
}

/** @param {(place: number) => boolean} which */
function mark(which) {
  state.choices.forEach((one, place) => (one.chosen = which(place)));
  show();
  say(at("chosen-count").textContent);
}

function add() {
  const subtopic = at("own").value.trim();
  if (!subtopic) return;
  const there = state.choices.find((one) => one.subtopic === subtopic);
  if (there) there.chosen = true;
  else state.choices.push({ subtopic, chosen: chosen().length < MOST_AT_ONCE });
  at("own").value = "";
  show();
  say(at("chosen-count").textContent);
}

/** Show them as they stand. */
export function show() {
  at("choose-title").textContent = t("chooseTitle", { topic: state.topic });
  at("subtopics").replaceChildren(...state.choices.map((one) => {
    const box = el("input", {
      type: "checkbox", checked: one.chosen, on: {
        change: () => {
          one.chosen = box.checked;
          count();
        },
      },
    });
    return el("li", {}, el("label", {}, box, el("span", { textContent: one.subtopic, dir: "auto" })));
  }));
  count();
}

/** How many there are, and whether there is quota for them. */
export function count() {
  const n = chosen().length;
  at("chosen-count").textContent = t("chosen", { n, all: state.choices.length })
    + (state.earlier ? ` · ${t("earlier")}` : "");
  at("explain").disabled = n > MOST_AT_ONCE;
  const left = gauge.left();
  if (n > MOST_AT_ONCE) at("fits").textContent = t("tooMany", { n: MOST_AT_ONCE });
  else if (n === 0 || left === null) at("fits").textContent = "";
  else at("fits").textContent = t(n > left ? "fitsSome" : "fitsAll", { n, left });
  keep();
}
