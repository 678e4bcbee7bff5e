// @ts-check
// The way through the page: topic, subtopics, explanations.

import * as choose from "./choose.js";
import { at, el } from "./dom.js";
import * as gauge from "./gauge.js";
import { calm, complain } from "./notices.js";
import { Failure } from "./api.js";
import * as read from "./read.js";
import { LANGUAGES, preferred, speak } from "./speech.js";
import { keep, recall, remember, state } from "./state.js";
import * as topic from "./topic.js";

const STEPS = ["topic", "choose", "read"];

/** Show a step; whoever reads by ear or key is taken to its title.
 * @param {string} step @param {boolean} [moves] */
function go(step, moves = true) {
  calm();
  if (step !== "read") read.leave();
  state.step = step;
  for (const name of STEPS) at(`step-${name}`).hidden = name !== step;
  for (const item of at("way").children) {
    const place = STEPS.indexOf(item.dataset.step);
    item.classList.toggle("past", place < STEPS.indexOf(step));
    if (item.dataset.step === step) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
  }
  if (step === "choose") choose.show();
  if (step === "read") read.show();
  keep();
  if (!moves) return;
  window.scrollTo({ top: 0 });
  at(`${step}-title`).focus();
}

/** @param {string} code */
async function language(code) {
  await speak(code);
  state.language = code;
  gauge.show();
  if (state.step === "choose") choose.show();
  if (state.step === "read") read.show();
  keep();
}

async function start() {
  at("language").append(...Object.entries(LANGUAGES).map(([code, name]) =>
    el("option", { value: code, textContent: name, lang: code })));
  await recall();
  await language(state.language || preferred());
  at("language").addEventListener("change", async () => {
    await language(at("language").value);
    remember();
  });
  topic.begin(() => go("choose"));
  choose.begin(() => {
    go("read");
    read.explain();
  }, () => go("topic"));
  read.begin(() => go("choose"), () => go("topic"));
  at("topic").value = state.topic;
  go(STEPS.includes(state.step) ? state.step : "topic", false);
  gauge.follow(() => state.step === "choose" && choose.count());
  await gauge.look();
  document.documentElement.dataset.ready = "yes";
}

window.addEventListener("offline", () => complain(new Failure("offline")));
window.addEventListener("online", () => {
  calm();
  gauge.look();
});
document.addEventListener("click", (event) => {
  const open = /** @type {HTMLDetailsElement} */ (at("gauge"));
  if (open.open && !open.contains(/** @type {Node} */ (event.target))) open.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !at("gauge").open) return;
  at("gauge").open = false;
  at("gauge").querySelector("summary").focus();
});

start();
