// @ts-check
// First step: a topic, written or seen in a picture.

import * as api from "./api.js";
import { at, say } from "./dom.js";
import * as gauge from "./gauge.js";
import { calm, complain } from "./notices.js";
import { t } from "./speech.js";
import { keep, remember, state } from "./state.js";

const LARGEST = 10 * 1024 * 1024;
const KINDS = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);

/** @type {AbortController | null} */
let under = null;

/** @param {() => void} onward where it goes on once there are subtopics */
export function begin(onward) {
  at("topic-form").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    find(onward);
  });
  at("topic").addEventListener("input", () => problem(""));
  for (const name of ["level", "detail", "manner"]) {
    at(name).value = state[name];
    at(name).addEventListener("change", () => {
      state[name] = at(name).value;
      keep();
    });
  }
  at("image").addEventListener("change", () => {
    const [file] = at("image").files;
    if (file) see(file);
  });
  const drop = at("drop");
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (/** @type {Event} */ event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) {
    drop.addEventListener(kind, () => drop.classList.remove("over"));
  }
  drop.addEventListener("drop", (/** @type {DragEvent} */ event) => {
    event.preventDefault();
    const file = event.dataTransfer?.files[0];
    if (file) see(file);
  });
}

/** What is wrong with the topic; nothing, where the text is empty. @param {string} text */
function problem(text) {
  at("topic-problem").textContent = text;
  at("topic-problem").hidden = !text;
  if (text) {
    at("topic").setAttribute("aria-invalid", "true");
    at("topic").focus();
  } else {
    at("topic").removeAttribute("aria-invalid");
  }
}

/** @param {boolean} yes @param {string} [text] */
function busy(yes, text = "") {
  at("find").disabled = yes;
  at("topic-form").setAttribute("aria-busy", String(yes));
  at("find").textContent = yes && text ? text : t("find");
  if (text) say(text);
}

/** @param {() => void} onward */
async function find(onward) {
  calm();
  const topic = at("topic").value.trim();
  if (!topic) return problem(t("topicMissing"));
  under?.abort();
  const mine = (under = new AbortController());
  busy(true, t("finding"));
  try {
    const found = await api.subtopicsOf(topic, mine.signal);
    state.topic = topic;
    state.earlier = Boolean(found.from_fallback);
    state.choices = [...new Set(/** @type {string[]} */ (found.subtopics))].map((subtopic, place) => ({
      subtopic, chosen: place < 5,
    }));
    state.items = [];
    keep();
    remember();
    say(t("found", { n: state.choices.length }));
    onward();
  } catch (failure) {
    complain(failure, { again: () => find(onward) });
  } finally {
    if (under === mine) busy(false);
    gauge.look();
  }
}

/** Take the topic of a picture. @param {File} file */
async function see(file) {
  calm();
  const note = at("image-note");
  if (!KINDS.has(file.type)) return refuse(t("imageKind"));
  if (file.size > LARGEST) return refuse(t("imageLarge"));
  URL.revokeObjectURL(at("preview").src);
  at("preview").src = URL.createObjectURL(file);
  at("preview").hidden = false;
  under?.abort();
  const mine = (under = new AbortController());
  busy(true, t("imageLooking"));
  note.textContent = t("imageLooking");
  try {
    const seen = await api.topicIn(file, mine.signal);
    at("topic").value = seen.generated_topic;
    problem("");
    note.textContent = t("imageSeen", { topic: seen.generated_topic });
    say(note.textContent);
    at("topic").focus();
  } catch (failure) {
    note.textContent = t("imageNote");
    complain(failure, { again: () => see(file) });
  } finally {
    if (under === mine) busy(false);
    at("image").value = "";
    gauge.look();
  }
}

/** @param {string} text */
function refuse(text) {
  at("image-note").textContent = text;
  at("image").value = "";
  say(text);
}
