// The page of the management API: reads /openapi.json and shows it. Whatever comes out of that document
// is put in as text, never as markup.

const byId = (id) => document.getElementById(id);
const VERBS = ["get", "post", "put", "patch", "delete"];
let key = "";

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const code = (text, kind = "") => make("code", kind ? { class: kind } : {}, text);
const json = (value) => JSON.stringify(value, null, 2);

// Words between backticks are code.
function prose(text) {
  return text.split("`").map((part, odd) => (odd % 2 ? code(part) : part)).filter((part) => part !== "");
}

function say(text) {
  byId("state").textContent = text;
}

// ── schemas in words ──────────────────────────────────────────────────────────────────────────────

const nameOf = (reference) => reference.split("/").pop();

function kindOf(schema) {
  if (!schema || Object.keys(schema).length === 0) return "anything";
  if (schema.$ref) return nameOf(schema.$ref);
  if (schema.anyOf) return schema.anyOf.map(kindOf).join(" or ");
  if (schema.enum) return schema.enum.map((word) => JSON.stringify(word)).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") {
    if (schema.prefixItems) return `[${schema.prefixItems.map(kindOf).join(", ")}]`;
    return `list of ${kindOf(schema.items)}`;
  }
  if (schema.type === "object" && schema.additionalProperties) {
    return `map of ${kindOf(schema.additionalProperties)}`;
  }
  return schema.format ? `${schema.type} (${schema.format})` : String(schema.type ?? "anything");
}

function boundsOf(schema) {
  const said = [];
  if (schema.default !== undefined && schema.default !== null) {
    said.push(`default ${JSON.stringify(schema.default)}`);
  }
  if (schema.minimum !== undefined) said.push(`at least ${schema.minimum}`);
  if (schema.maximum !== undefined) said.push(`at most ${schema.maximum}`);
  if (schema.maxLength !== undefined) said.push(`up to ${schema.maxLength} characters`);
  return said.join(", ");
}

function table(caption, headings, rows) {
  const head = make("tr", {}, ...headings.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell))));
  return make("div", { class: "table", tabindex: "0", role: "region", "aria-label": caption },
    make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

function fields(schema, title) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([name, one]) => [
    code(name), kindOf(one), required.has(name) ? "yes" : "no", boundsOf(one),
  ]);
  return rows.length ? table(title, ["Field", "Type", "Needed", "Bounds"], rows) : null;
}

// ── one endpoint ──────────────────────────────────────────────────────────────────────────────────

function curl(verb, path, operation) {
  let url = path;
  const query = [];
  for (const one of operation.parameters ?? []) {
    if (one.example === undefined) continue;
    const value = encodeURIComponent(one.example);
    if (one.in === "path") url = url.replace(`{${one.name}}`, value);
    if (one.in === "query") query.push(`${one.name}=${value}`);
  }
  if (query.length) url += `?${query.join("&")}`;
  const lines = [`curl -sS ${verb === "get" ? "" : `-X ${verb.toUpperCase()} `}'${location.origin}${url}'`,
    `  -H "authorization: Bearer $HEADGATE_ADMIN_KEY"`];
  const body = operation.requestBody?.content?.["application/json"]?.example;
  if (body !== undefined) {
    lines.push("  -H 'content-type: application/json'", `  -d '${JSON.stringify(body)}'`);
  }
  return lines.join(" \\\n");
}

function sample(title, value) {
  return value === undefined ? null : make("details", {}, make("summary", {}, title),
    make("pre", { tabindex: "0" }, json(value)));
}

function bodyOf(operation, schemas) {
  const media = operation.requestBody?.content?.["application/json"];
  if (!media) return [];
  const named = media.schema.$ref ? schemas[nameOf(media.schema.$ref)] : media.schema;
  return [make("h4", {}, "Body"), fields(named, "Fields of the body")];
}

function answers(operation, schemas) {
  const shown = [make("h4", {}, "Answers")];
  const rows = Object.entries(operation.responses).map(([status, one]) => {
    const kinds = Object.entries(one.content ?? {}).map(([kind, media]) =>
      kind === "application/json" ? kindOf(media.schema) : kind);
    return [code(status), make("span", {}, ...prose(one.description)), kinds.join(", ")];
  });
  shown.push(table("Answers", ["Status", "Meaning", "Content"], rows));
  const good = Object.values(operation.responses)[0]?.content?.["application/json"];
  if (good) {
    const schema = good.schema.$ref ? schemas[nameOf(good.schema.$ref)] : good.schema;
    const listed = fields(schema, "Fields of the answer");
    if (listed) shown.push(make("details", {}, make("summary", {}, "Fields of the answer"), listed));
    shown.push(sample("Example of the answer", good.example));
  }
  return shown;
}

function about(path, verb, operation, schemas) {
  const parameters = (operation.parameters ?? []).map((one) => [
    code(one.name), one.in, kindOf(one.schema), one.required ? "yes" : "no",
    make("span", {}, ...prose([one.description, boundsOf(one.schema)].filter(Boolean).join(" "))),
  ]);
  const shown = [operation.description ? make("p", {}, ...prose(operation.description)) : null];
  if (parameters.length) {
    shown.push(make("h4", {}, "Parameters"),
      table("Parameters", ["Name", "In", "Type", "Needed", "About"], parameters));
  }
  shown.push(...bodyOf(operation, schemas));
  shown.push(make("h4", {}, "Request"), make("pre", { tabindex: "0" }, curl(verb, path, operation)));
  shown.push(...answers(operation, schemas));
  return shown.filter(Boolean);
}

// What is said of an endpoint is put in when it is opened: there are many.
function article(path, verb, operation, schemas) {
  const details = make("details", { class: "endpoint" }, make("summary", {},
    make("h3", {}, make("span", { class: `verb ${verb}` }, verb.toUpperCase()), " ",
      code(path, "path"), " ", make("span", { class: "short" }, ...prose(operation.summary)))));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) {
      details.append(...about(path, verb, operation, schemas));
    }
  });
  const shown = make("article", { id: operation.operationId }, details);
  shown.dataset.words = `${path} ${operation.summary} ${operation.description ?? ""}`.toLowerCase();
  return shown;
}

function reveal() {
  const target = location.hash ? document.getElementById(location.hash.slice(1)) : null;
  const details = target?.querySelector("details.endpoint");
  if (details) details.open = true;
  target?.scrollIntoView();
}

// ── the whole ─────────────────────────────────────────────────────────────────────────────────────

function show(document_) {
  const schemas = document_.components.schemas;
  byId("about").replaceChildren(...document_.info.description.trim().split("\n\n")
    .map((paragraph) => make("p", {}, ...prose(paragraph.replaceAll("\n", " ")))));
  const content = byId("content");
  const index = byId("index");
  content.replaceChildren();
  index.replaceChildren();
  for (const tag of document_.tags) {
    const list = make("ul");
    const section = make("section", { "aria-labelledby": `tag-${tag.name}` },
      make("h2", { id: `tag-${tag.name}` }, tag.name), make("p", {}, tag.description));
    for (const [path, verbs] of Object.entries(document_.paths)) {
      for (const verb of VERBS) {
        const operation = verbs[verb];
        if (!operation || operation.tags[0] !== tag.name) continue;
        section.append(article(path, verb, operation, schemas));
        list.append(make("li", {}, make("a", { href: `#${operation.operationId}` },
          make("span", { class: `verb ${verb}` }, verb.toUpperCase()), " ", operation.summary)));
      }
    }
    content.append(section);
    index.append(make("section", {}, make("h2", {}, tag.name), list));
  }
  content.append(problems(document_));
  byId("columns").hidden = false;
  reveal();
}

function problems(document_) {
  const kinds = document_["x-problems"] ?? {};
  const section = make("section", { "aria-labelledby": "problems" },
    make("h2", { id: "problems" }, "problems"));
  for (const [name, kind] of Object.entries(kinds)) {
    section.append(make("article", { id: `problem-${name}` },
      make("h3", {}, code(name), ` ${kind.status}`),
      make("p", {}, `${kind.title}.`), make("p", {}, ...prose(kind.hint))));
  }
  return section;
}

function find() {
  const wanted = byId("search").value.trim().toLowerCase();
  for (const item of document.querySelectorAll("#index li")) {
    const target = document.getElementById(item.firstChild.getAttribute("href").slice(1));
    const found = target.dataset.words.includes(wanted);
    item.hidden = !found;
    target.hidden = !found;
  }
}

async function load() {
  say("Reading the document …");
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  try {
    const answer = await fetch("/openapi.json", { headers, cache: "no-store" });
    const content = await answer.json();
    if (answer.ok) {
      show(content);
      say("");
    } else {
      say(answer.status === 401 && !key ? "Enter the admin key to read the document."
        : `${content.title}. ${content.hint}`);
    }
  } catch (error) {
    say(`The gateway could not be asked: ${error.message}.`);
  }
}

byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  key = byId("key").value.trim();
  byId("key").value = "";
  load();
});
byId("search").addEventListener("input", find);
window.addEventListener("hashchange", reveal);
load();
