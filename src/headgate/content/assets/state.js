// @ts-check
// What the page knows: kept in the tab, so that a reload loses nothing; the choices also with the service.

import * as api from "./api.js";

const PLACE = "headgate-work";
export const MOST_AT_ONCE = 20;

/**
 * @typedef {{subtopic: string, chosen: boolean}} Choice
 * @typedef {{subtopic: string, explanation?: string, real_world_application?: string,
 *   youtube_search_query?: string, error?: string | null, from_fallback?: boolean}} Item
 */
export const state = {
  step: "topic",
  topic: "",
  level: "highSchoolLevel",
  detail: "mediumDetail",
  manner: "General",
  language: "",
  earlier: false,
  /** @type {Choice[]} */ choices: [],
  /** @type {(Item | null)[]} */ items: [],
  /** @type {string[]} */ asked: [],
};

export const chosen = () => state.choices.filter((one) => one.chosen).map((one) => one.subtopic);

/** Keep everything in this tab. */
export function keep() {
  try {
    sessionStorage.setItem(PLACE, JSON.stringify(state));
  } catch {
    sessionStorage.removeItem(PLACE); // it is full: nothing is better than half
  }
}

/** What was kept in this tab, else what the service remembers of the visitor. */
export async function recall() {
  const kept = sessionStorage.getItem(PLACE);
  if (kept !== null) {
    Object.assign(state, JSON.parse(kept));
    return;
  }
  const remembered = await api.visit().catch(() => ({}));
  for (const name of ["level", "detail", "manner", "language"]) {
    if (typeof remembered[name] === "string") state[name] = remembered[name];
  }
}

/** Let the service remember the choices; whether it does is of no consequence here. */
export function remember() {
  const { level, detail, manner, language } = state;
  api.remember({ level, detail, manner, language }).catch(() => {});
}
