// @ts-check
// Third step: explanations as they come, and what can be taken away.

import * as api from "./api.js";
import { at, el, say } from "./dom.js";
import { asHtml, asMarkdown, named, save, videos } from "./export.js";
import * as gauge from "./gauge.js";
import { calm, complain } from "./notices.js";
import { t } from "./speech.js";
import { chosen, keep, state } from "./state.js";

/** @type {AbortController | null} */
let under = null;

const explained = () => /** @type {import("./state.js").Item[]} */ (
  state.items.filter((item) => item !== null && !item.error));

/** @param {() => void} toChoose @param {() => void} toTopic */
export function begin(toChoose, toTopic) {
  at("stop").addEventListener("click", () => under?.abort());
  at("back-choose").addEventListener("click", toChoose);
  at("again-topic").addEventListener("click", toTopic);
  at("to-print").addEventListener("click", () => window.print());
  at("to-markdown").addEventListener("click", () =>
    save(asMarkdown(state.topic, explained()), "text/markdown", `${named(state.topic)}.md`));
  at("to-html").addEventListener("click", () =>
    save(asHtml(state.topic, explained()), "text/html", `${named(state.topic)}.html`));
}

/** Explain what is chosen. */
export function explain() {
  under?.abort();
  state.asked = chosen();
  state.items = state.asked.map(() => null);
  show();
  return fill(state.asked.map((_, place) => place));
}

/** Leave what is under way. */
export const leave = () => under?.abort();

/** Explain the subtopics in these places. @param {number[]} places */
async function fill(places) {
  calm();
  under?.abort();
  const mine = (under = new AbortController());
  for (const place of places) state.items[place] = null;
  show(true);
  const order = {
    topic: state.topic, educationLevel: state.level, levelOfDetail: state.detail,
    learningStyle: state.manner, language: state.language, focus: places.map((place) => state.asked[place]),
  };
  try {
    for await (const { index, item } of api.explanationsOf(order, mine.signal)) {
      if (under !== mine) return;
      state.items[places[index]] = item;
      turn(places[index]);
      tell();
      keep();
    }
  } catch (failure) {
    if (under !== mine) return;
    complain(mine.signal.aborted ? new DOMException("", "AbortError") : failure, {
      again: () => fill(open()),
      first: (fits) => fill(open().slice(0, fits)),
    });
  } finally {
    if (under === mine) {
      under = null;
      show();
      if (mine.signal.aborted) say(t("stopped"));
      gauge.look();
    }
  }
}

/** Places without an explanation. */
const open = () => state.items.flatMap((item, place) => (item === null || item.error ? [place] : []));

/** Show everything as it stands. @param {boolean} [working] */
export function show(working = under !== null) {
  at("read-title").textContent = state.topic;
  at("pages").replaceChildren(...state.items.map((_, place) => page(place, working)));
  at("stop").hidden = !working;
  at("bar").hidden = !working;
  at("exports").hidden = working;
  for (const name of ["to-markdown", "to-html", "to-print"]) at(name).disabled = !explained().length;
  tell(working);
}

/** @param {boolean} [working] */
function tell(working = true) {
  const done = explained().length;
  const total = state.items.length;
  at("bar").max = total || 1;
  at("bar").value = state.items.filter((item) => item !== null).length;
  const text = working ? "progress" : done === total ? "finished" : "partly";
  at("progress-text").textContent = t(text, { done, total });
  say(at("progress-text").textContent);
}

/** Show one place anew. @param {number} place */
function turn(place) {
  at("pages").children[place]?.replaceWith(page(place, true));
}

/** @param {number} place @param {boolean} working */
function page(place, working) {
  const item = state.items[place];
  const made = el("li", {}, el("h2", { textContent: state.asked[place], dir: "auto" }));
  if (item === null) {
    if (working) made.append(el("div", { className: "waits", role: "img", "aria-label": t("waiting") },
      el("span"), el("span"), el("span")));
    else made.append(retry(place));
  } else if (item.error) {
    made.append(el("p", { className: "failed", textContent: t("itemFailed") }),
      el("p", { className: "quiet", ...why(item.error) }));
    if (!working) made.append(retry(place));
  } else {
    made.append(...written(item));
  }
  return made;
}

/** Why one failed: the service's words for it, or its sentence. @param {string} error */
function why(error) {
  if (error === "validation_failed") return { textContent: t("itemPoor") };
  if (error === "circuit_breaker_open") return { textContent: t("busy") };
  return { textContent: error, lang: "en", dir: "auto" };
}

/** @param {import("./state.js").Item} item */
function written(item) {
  const parts = [el("p", { className: "text", textContent: item.explanation ?? "", dir: "auto" })];
  if (item.from_fallback) parts.unshift(el("p", {}, el("span", { className: "badge", textContent: t("earlier") })));
  if (item.real_world_application) {
    parts.push(el("p", { className: "world", dir: "auto" },
      el("b", { textContent: t("world") }), item.real_world_application));
  }
  if (item.youtube_search_query) {
    parts.push(el("p", {}, el("a", {
      href: videos(item.youtube_search_query), target: "_blank", rel: "noopener noreferrer",
      textContent: `${t("video")}: ${item.youtube_search_query}`, dir: "auto",
    })));
  }
  return parts;
}

/** @param {number} place */
function retry(place) {
  const label = `${t("retry")}: ${state.asked[place]}`;
  return el("button", {
    type: "button", textContent: t("retry"), "aria-label": label, on: { click: () => fill([place]) },
  });
}
