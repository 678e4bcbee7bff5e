// @ts-check
// A presentation as Markdown, and as HTML that prints and needs nothing else.

import { direction, spoken, t } from "./speech.js";

/** @typedef {import("./state.js").Item} Item */

/** @param {string | undefined} text */
const plain = (text) => (text ?? "").replace(/\r/g, "").trim();

/** Signs that Markdown or HTML would take for its own. @param {string | undefined} text */
const marked = (text) =>
  plain(text).replace(/[\\`*_[\]<>#|~]/g, "\\$&").replace(/^([ \t]*)(\d+)([.)])/gm, "$1$2\\$3").replace(/^([ \t]*)([-+=])/gm, "$1\\$2");

/** @param {string | undefined} text */
const escaped = (text) =>
  plain(text).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);

/** @param {string} query */
export const videos = (query) =>
  `https://www.youtube.com/results?search_query=${encodeURIComponent(query)}`;

/** @param {string} topic @param {Item[]} items */
export function asMarkdown(topic, items) {
  const parts = [`# ${marked(topic).replaceAll("\n", " ")}`];
  for (const item of items) {
    parts.push(`## ${marked(item.subtopic).replaceAll("\n", " ")}`, marked(item.explanation));
    if (item.real_world_application) {
      parts.push(`**${t("world")}:** ${marked(item.real_world_application)}`);
    }
    if (item.youtube_search_query) {
      parts.push(`[${t("video")}: ${marked(item.youtube_search_query)}](${videos(item.youtube_search_query)})`);
    }
  }
  return `${parts.join("\n\n")}\n\n---\n\n${t("footer")}\n`;
}

const STYLE = `
body{max-width:42rem;margin:2rem auto;padding:0 1rem;font:1.05rem/1.65 ui-serif,Georgia,serif;color:#17282c;background:#fff}
h1,h2{line-height:1.3;text-wrap:balance}h2{margin-top:2rem;border-top:1px solid #cfd6d2;padding-top:1.2rem}
p{white-space:pre-line}.w{border-inline-start:4px solid #0e6270;padding-inline-start:1rem}a{color:#0e6270}footer{margin-top:3rem;color:#51656a}
@media print{section{break-inside:avoid}a::after{content:" – " attr(href);font-size:.8em}}`;

/** @param {string} topic @param {Item[]} items */
export function asHtml(topic, items) {
  const sections = items.map((item) => {
    const world = item.real_world_application
      ? `<p class="w"><strong>${escaped(t("world"))}:</strong> ${escaped(item.real_world_application)}</p>` : "";
    const video = item.youtube_search_query
      ? `<p><a href="${escaped(videos(item.youtube_search_query))}">${escaped(t("video"))}: ${escaped(item.youtube_search_query)}</a></p>` : "";
    return `<section><h2>${escaped(item.subtopic)}</h2><p>${escaped(item.explanation)}</p>${world}${video}</section>`;
  });
  return `<!doctype html>
<html lang="${spoken()}" dir="${direction()}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escaped(topic)}</title><style>${STYLE}</style></head>
<body><h1>${escaped(topic)}</h1>
${sections.join("\n")}
<footer><p>${escaped(t("footer"))}</p></footer></body></html>
`;
}

/** @param {string} text @param {string} kind @param {string} name */
export function save(text, kind, name) {
  const url = URL.createObjectURL(new Blob([text], { type: `${kind};charset=utf-8` }));
  const link = document.createElement("a");
  Object.assign(link, { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** A name for a file, in whatever script. @param {string} topic */
export const named = (topic) =>
  topic.replace(/[^\p{L}\p{M}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 60) || "headgate";
