// @ts-check
// The languages of the page. Each has a file of its own in words/, loaded when it is wanted.

import { at } from "./dom.js";
import english from "./words/en.js";

/** Languages by their codes, each in its own name; those the service explains in. */
export const LANGUAGES = {
  en: "English", es: "Español", fr: "Français", de: "Deutsch", zh: "中文",
  ja: "日本語", ar: "العربية", he: "עברית", fa: "فارسی", ur: "اردو",
};

const TO_THE_LEFT = new Set(["ar", "he", "fa", "ur"]);

/** @type {Record<string, string>} */
let words = english;
let code = "en";

export const spoken = () => code;
export const direction = () => (TO_THE_LEFT.has(code) ? "rtl" : "ltr");

/** The language of the browser, if the page has it. */
export function preferred() {
  const wanted = navigator.languages.map((name) => name.slice(0, 2).toLowerCase());
  return wanted.find((name) => name in LANGUAGES) ?? "en";
}

/** Text of the page. `{name}` in it stands for a value; numbers are written as the language does.
 * @param {string} name @param {Record<string, string | number>} [values] */
export function t(name, values = {}) {
  const text = words[name] ?? english[name] ?? name;
  return text.replace(/\{(\w+)\}/g, (_, key) => shown(values[key] ?? ""));
}

/** @param {string | number} value */
const shown = (value) => (typeof value === "number" ? number(value) : value);

/** @param {number} value */
export const number = (value) => new Intl.NumberFormat(code).format(value);

/** Speak a language from now on. @param {string} wanted */
export async function speak(wanted) {
  if (!(wanted in LANGUAGES)) return;
  words = (await import(`./words/${wanted}.js`)).default;
  code = wanted;
  document.documentElement.lang = code;
  document.documentElement.dir = direction();
  for (const element of document.querySelectorAll("[data-w]")) {
    element.textContent = t(/** @type {HTMLElement} */ (element).dataset.w ?? "");
  }
  for (const element of document.querySelectorAll("[data-w-label]")) {
    element.setAttribute("aria-label", t(/** @type {HTMLElement} */ (element).dataset.wLabel ?? ""));
  }
  document.title = `Headgate · ${t("learn")}`;
  at("language").value = code;
}
