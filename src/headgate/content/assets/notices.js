// @ts-check
// What went wrong, and what can be done about it.

import { useKey } from "./api.js";
import { at, el, say } from "./dom.js";
import { spoken, t } from "./speech.js";

const LONG = 180; // seconds; from here on a time of day says more

/** @type {ReturnType<typeof setInterval> | undefined} */
let ticking;

/** Take back what was said. */
export function calm() {
  clearInterval(ticking);
  at("notices").replaceChildren();
}

/**
 * Say what went wrong.
 * @param {any} failure
 * @param {{again?: () => void, first?: (fits: number) => void}} [ways] what can be done about it
 */
export function complain(failure, { again, first } = {}) {
  calm();
  if (failure?.name === "AbortError") return;
  if (failure?.kind === "key") return askForKey(failure, again);
  const quota = failure?.kind === "quota";
  const title = { offline: "offline", quota: "quotaGone", refused: "refused", busy: "busy" }[failure?.kind];
  const small = el("small", failure?.kind === "offline" ? { textContent: t("offlineMore") } : {
    textContent: failure?.detail ?? "", lang: "en", dir: "auto",
  });
  const clock = el("small");
  const some = quota && first && failure.fits > 0;
  const said = some ? t("quotaSome", { n: failure.fits }) : t(title ?? "failed");
  const text = el("p", {}, el("strong", { textContent: said }), small, clock);
  const notice = el("div", { className: quota ? "notice warn" : "notice", role: "alert" }, text);
  const retry = el("button", { type: "button", textContent: t("retry"), on: { click: () => again?.() } });
  if (some) {
    const label = t("takeFirst", { n: failure.fits });
    notice.append(el("button", { type: "button", textContent: label, on: { click: () => first(failure.fits) } }));
  }
  if (again) notice.append(retry);
  notice.append(el("button", { type: "button", textContent: t("close"), on: { click: calm } }));
  at("notices").append(notice);
  notice.scrollIntoView({ block: "nearest" });
  if (quota && failure.wait > 0) countDown(clock, retry, failure.wait);
}

/** The time of day in so many seconds; with the day where it may be another. @param {number} seconds */
function clockAt(seconds) {
  const day = /** @type {const} */ (seconds > 12 * 3600 ? { weekday: "long" } : {});
  const form = new Intl.DateTimeFormat(spoken(), { ...day, hour: "numeric", minute: "2-digit" });
  return form.format(Date.now() + seconds * 1000);
}

/** @param {any} clock @param {any} button @param {number} seconds */
function countDown(clock, button, seconds) {
  const until = performance.now() + seconds * 1000;
  clock.setAttribute("aria-live", "off"); // the number of every second is no news
  const tick = () => {
    const left = Math.ceil((until - performance.now()) / 1000);
    button.disabled = left > 0;
    const wait = left > LONG ? t("quotaAt", { time: clockAt(left) }) : t("quotaWait", { n: left });
    clock.textContent = left > 0 ? wait : t("quotaReady");
    if (left <= 0) {
      clearInterval(ticking);
      say(t("quotaReady"));
    }
  };
  tick();
  ticking = setInterval(tick, 500);
}

/** @param {any} failure @param {(() => void) | undefined} again */
function askForKey(failure, again) {
  const dialog = at("key-dialog");
  const used = sessionStorage.getItem("headgate-key") !== null;
  at("key-problem").textContent = used ? t("keyWrong") : "";
  at("key-problem").hidden = !used;
  at("key").value = "";
  dialog.onclose = () => {
    if (dialog.returnValue !== "use" || !at("key").value.trim()) return;
    useKey(at("key").value.trim());
    again?.();
  };
  dialog.returnValue = "";
  if (!dialog.open) dialog.showModal();
}
