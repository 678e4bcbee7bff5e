// @ts-check
// The API of the service, as the page uses it: nothing here that the public API has not.

const KEY = "headgate-key";

/** A request that brought nothing. `kind`: offline, quota, key, refused, busy or failed. */
export class Failure extends Error {
  /**
   * @param {string} kind
   * @param {{status?: number, detail?: string, wait?: number, fits?: number}} [more] `wait` in seconds; `fits`:
   *   how much of a batch there is quota for now
   */
  constructor(kind, { status = 0, detail = "", wait = 0, fits = 0 } = {}) {
    super(detail || kind);
    Object.assign(this, { kind, status, detail, wait, fits });
  }
}

const KINDS = { 401: "key", 429: "quota", 503: "busy" };

/** Remember a caller key in this tab. @param {string} key */
export function useKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/**
 * Ask the service.
 * @param {string} path
 * @param {{method?: string, json?: any, form?: FormData, accept?: string, signal?: AbortSignal}} [how]
 * @returns {Promise<Response>}
 */
export async function ask(path, { method, json, form, accept = "application/json", signal } = {}) {
  const headers = new Headers({ accept });
  const key = sessionStorage.getItem(KEY);
  if (key) headers.set("authorization", `Bearer ${key}`);
  if (json !== undefined) headers.set("content-type", "application/json");
  const body = json === undefined ? form : JSON.stringify(json);
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), {
      method: method ?? (body === undefined ? "GET" : "POST"), headers, body, signal,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure("offline");
  }
  if (!response.ok) throw await failureOf(response);
  return response;
}

/** @param {Response} response */
async function failureOf(response) {
  const body = await response.json().catch(() => ({}));
  return failureIn(body, response.status, Number(response.headers.get("retry-after")));
}

/** @param {any} body @param {number} status @param {number} wait */
function failureIn(body, status, wait) {
  const kind = KINDS[status] ?? (status >= 500 ? "failed" : "refused");
  const said = body?.message ?? body?.error;
  return new Failure(kind, {
    status,
    detail: typeof said === "string" ? said : "",
    wait: wait || Number.parseInt(body?.retry_after, 10) || 0,
    fits: Number(body?.fits_now) || 0,
  });
}

/** @param {string} topic @param {AbortSignal} signal */
export const subtopicsOf = async (topic, signal) =>
  (await ask("api/create_subtopics", { json: { topic }, signal })).json();

/** @param {File} file @param {AbortSignal} signal */
export async function topicIn(file, signal) {
  const form = new FormData();
  form.append("image", file);
  return (await ask("api/image2topic", { form, signal })).json();
}

export const quota = async () => (await ask("api/quota/stats")).json();

/** What the service remembers of this visitor. */
export const visit = async () => (await (await ask("api/session")).json()).session;

/** @param {Record<string, string>} remembered */
export const remember = (remembered) => ask("api/session", { method: "PUT", json: remembered });

/**
 * Explanations, one after another as they are done.
 * @param {any} order
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<{done: number, total: number, index: number, item: any}>}
 */
export async function* explanationsOf(order, signal) {
  const response = await ask("api/create_presentation", { json: order, accept: "text/event-stream", signal });
  let ended = false;
  for await (const { kind, data } of events(response, signal)) {
    if (kind === "progress") yield data;
    else if (kind === "error") throw failureIn(data, data.status ?? 500, 0);
    else if (kind === "done") ended = true;
  }
  if (!ended) throw new Failure("offline");
}

/** @param {Response} response @param {AbortSignal} signal */
async function* events(response, signal) {
  if (response.body === null) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value.replaceAll("\r", "");
      const blocks = text.split("\n\n");
      text = blocks.pop() ?? "";
      for (const block of blocks) {
        const event = eventIn(block);
        if (event !== null) yield event;
      }
    }
  } catch (error) {
    if (signal.aborted || error instanceof Failure) throw error;
    throw new Failure("offline");
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** @param {string} block */
function eventIn(block) {
  let kind = "message";
  const data = [];
  for (const line of block.split("\n")) {
    const [, name, value] = /^(\w+):? ?(.*)$/s.exec(line) ?? [];
    if (name === "event") kind = value;
    else if (name === "data") data.push(value);
  }
  return data.length ? { kind, data: JSON.parse(data.join("\n")) } : null;
}
