// @ts-check
// How much quota is left: looked at while the page is seen, and after everything that uses some.

import * as api from "./api.js";
import { at, el } from "./dom.js";
import { number, t } from "./speech.js";

const EVERY = 10_000; // milliseconds between two looks
const LOW = 0.25; // of a minute's requests

const ROWS = /** @type {const} */ ([
  ["requests", "per_minute", "requestsMinute"],
  ["requests", "per_day", "requestsDay"],
  ["tokens", "per_minute", "tokensMinute"],
  ["tokens", "per_day", "tokensDay"],
]);

/** @type {any} */
let last = null;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** Requests that are left of this minute; null: nobody knows. */
export function left() {
  const minute = last?.requests?.per_minute;
  return typeof minute?.current === "number" ? Math.max(0, minute.limit - minute.current) : null;
}

/** @type {() => void} */
let heard = () => {};

/** Be told when there is something new. @param {() => void} listener */
export function follow(listener) {
  heard = listener;
}

/** Look now, and go on looking. */
export async function look() {
  clearTimeout(timer);
  try {
    last = await api.quota();
    show();
    heard();
  } catch (failure) {
    at("gauge").hidden = last === null || failure?.status === 501;
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(look, EVERY);
}

/** Show what was seen last, in the language of the moment. */
export function show() {
  const remaining = left();
  at("gauge").hidden = remaining === null;
  if (remaining === null) return;
  const all = last.requests.per_minute.limit;
  const share = all ? Math.min(1, remaining / all) : 0;
  at("water").style.setProperty("--left", String(share));
  at("gauge").classList.toggle("low", share <= LOW);
  at("gauge-text").textContent = t("gauge", { left: remaining, all });
  at("gauge-short").textContent = `${number(remaining)} / ${number(all)}`;
  at("quota-rows").replaceChildren(...ROWS.map(([what, window, name]) => {
    const { current, limit } = last[what][window];
    const rest = typeof current === "number" ? number(Math.max(0, limit - current)) : "–";
    return el("tr", {},
      el("th", { scope: "row", textContent: t(name) }),
      el("td", { textContent: typeof current === "number" ? number(current) : "–" }),
      el("td", { textContent: rest }));
  }));
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else look();
});
