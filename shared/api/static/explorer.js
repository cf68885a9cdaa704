"use strict";
// Shows /openapi.json and calls its operations. Text goes into the page as text only, never as markup; the token
// stays in its field and is sent to this service alone.

const at = id => document.getElementById(id);
let api = null;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value;
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

// -- schemas ------------------------------------------------------------------------------------------------

function resolved(schema) {
  let found = schema || {};
  while (found.$ref) found = found.$ref.split("/").slice(1).reduce((node, part) => node[part], api);
  return found;
}

function kind(schema) {
  if (!schema || schema === true) return "anything";
  if (schema.$ref) return kind(resolved(schema));
  if (schema.anyOf) {
    const kinds = [...new Set(schema.anyOf.map(kind))].filter(one => one !== "null" && one !== "empty");
    if (kinds.includes("boolean")) return "boolean";
    if (kinds.includes("date and time")) return kinds.includes('"now"') ? 'date and time, or "now"' : "date and time";
    if (kinds.some(one => one.startsWith("integer"))) return kinds.find(one => one.startsWith("integer"));
    const list = kinds.find(one => one.startsWith("list of ") && kinds.includes(one.slice(8)));
    if (list) return `${list}, or one alone`;
    return kinds.join(" or ") || "null";
  }
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map(one => JSON.stringify(one)).join(" | ");
  const type = [].concat(schema.type || "anything").filter(one => one !== "null")[0] || "null";
  if (type === "array") return schema.items ? `list of ${kind(schema.items)}` : "list";
  if (type !== "string" && type !== "integer") return type;
  if (schema.format === "date-time") return "date and time";
  if (schema.maxLength === 0) return "empty";
  const limits = [];
  if (schema.minimum !== undefined || schema.maximum !== undefined) {
    limits.push(`${schema.minimum ?? ""} to ${schema.maximum ?? ""}`);
  }
  if (schema.maxLength !== undefined) limits.push(`up to ${schema.maxLength} characters`);
  return [schema.format && schema.format !== "binary" ? schema.format : type, ...limits].join(", ");
}

function objectIn(schema) {
  const found = resolved(schema);
  if (found.properties) return found;
  for (const one of [...(found.anyOf || []), found.items].filter(Boolean)) {
    const inner = objectIn(one);
    if (inner) return inner;
  }
  return null;
}

function fieldTable(schema, depth = 0) {
  const found = objectIn(schema);
  if (!found) return make("p", { class: "soft" }, kind(schema));
  const body = make("tbody");
  for (const [name, field] of Object.entries(found.properties)) {
    const needed = (found.required || []).includes(name);
    const said = resolved(field).description || "";
    const shown = field.type === "null" ? "not taken by this service" : kind(field);
    const cell = make("td", {}, shown, said && !objectIn(field) ? make("div", { class: "soft" }, said) : null);
    if (objectIn(field) && depth < 4) {
      const more = make("details", { class: "more" }, make("summary", {}, "its fields"));
      more.addEventListener("toggle", () => more.children.length < 2 && more.append(fieldTable(field, depth + 1)));
      cell.append(more);
    }
    body.append(make("tr", {}, make("th", {}, make("code", {}, name), needed ? mark() : null), cell));
  }
  return make("table", {}, body);
}

const mark = () => make("span", { class: "must", title: "required" }, " *");
const pretty = value => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

// -- calling --------------------------------------------------------------------------------------------------

function readCall(one) {
  let path = one.path;
  const query = new URLSearchParams();
  const headers = {};
  for (const { parameter, input } of one.inputs) {
    const value = input.value;
    if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (value !== "" && parameter.in === "query") query.append(parameter.name, value);
    else if (value !== "") headers[parameter.name] = value;
  }
  const token = at("token").value.trim();
  if (token && one.operation.security.length) headers.Authorization = `Bearer ${token}`;
  const body = one.body ? one.body.value.trim() : "";
  if (body) headers["Content-Type"] = "application/json";
  const tail = query.toString();
  return { method: one.method, url: path + (tail ? `?${tail}` : ""), headers, body };
}

const quoted = text => `'${text.replaceAll("'", "'\\''")}'`;

function curl(call, { masked }) {
  const lines = [`curl -X ${call.method} ${quoted(location.origin + call.url)}`];
  for (const [name, value] of Object.entries(call.headers)) {
    // The token itself is not shown on the page; "Copy" has it.
    const shown = name === "Authorization" && masked ? "Bearer $TOKEN" : value;
    lines.push(shown.includes("$TOKEN") ? `-H "${name}: ${shown}"` : `-H ${quoted(`${name}: ${shown}`)}`);
  }
  if (call.body) lines.push(`-d ${quoted(call.body)}`);
  return lines.join(" \\\n  ");
}

async function send(one) {
  const call = readCall(one);
  one.button.disabled = true;
  one.answer.replaceChildren(make("p", { class: "soft" }, "Waiting for the answer ..."));
  const started = performance.now();
  try {
    const { method, url, headers, body } = call;
    const response = await fetch(url, { method, headers, body: body || undefined, cache: "no-store" });
    const content = await response.blob();
    await show(one, response, content, Math.round(performance.now() - started));
  } catch (problem) {
    one.answer.replaceChildren(make("p", { class: "status bad" }, `No answer: ${problem.message}`));
  } finally {
    one.button.disabled = false;
  }
}

async function show(one, response, content, took) {
  const type = response.headers.get("Content-Type") || "";
  const mood = response.ok ? "good" : "bad";
  const head = make("p", {}, make("span", { class: `status ${mood}` }, `${response.status} ${response.statusText}`),
    make("span", { class: "soft" }, `  ${took} ms, ${content.size} bytes, ${type || "no content type"}`));
  const shown = /json|text|rfc822/.test(type) ? await text(content, type) : file(content, response);
  one.answer.replaceChildren(head, shown);
}

async function text(content, type) {
  let said = await content.text();
  if (type.includes("json")) {
    try { said = JSON.stringify(JSON.parse(said), null, 2); } catch { /* shown as it came */ }
  }
  return make("pre", { tabIndex: 0 }, said.slice(0, 200000) || "(nothing)");
}

function file(content, response) {
  const named = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") || "");
  const link = make("a", { href: URL.createObjectURL(content), download: named ? named[1] : "answer.bin" });
  link.append("Save the answer as a file");
  return make("p", {}, link);
}

// -- the page ---------------------------------------------------------------------------------------------------

function inputFor(parameter) {
  const schema = resolved(parameter.schema);
  const example = parameter.example === undefined ? "" : String(parameter.example);
  const choices = kind(schema) === "boolean" ? ["true", "false"] : (schema.enum || (schema.anyOf || []).flatMap(one => one.enum || []));
  let input;
  if (choices.length && parameter.in === "query") {
    input = make("select", {}, make("option", { value: "" }, ""), ...choices.map(one => make("option", { value: String(one) }, String(one))));
  } else {
    input = make("input", { type: "text", placeholder: example, autocomplete: "off", spellcheck: false });
    if (parameter.in === "path") input.value = example;
  }
  const name = make("span", {}, make("code", {}, parameter.name), parameter.required ? mark() : null);
  const where = parameter.in === "query" ? "" : `${parameter.in}, `;
  const said = make("span", { class: "kind" }, where + kind(schema), parameter.description ? ". " + parameter.description : "");
  return { parameter, input, label: make("label", {}, name, input, said) };
}

function section(title, ...children) {
  return make("section", {}, make("h3", {}, title), ...children);
}

function form(one) {
  const { operation } = one;
  one.inputs = operation.parameters.map(inputFor);
  const content = operation.requestBody && operation.requestBody.content["application/json"];
  const parts = [];
  if (one.inputs.length) parts.push(section("Parameters", make("div", { class: "fields" }, ...one.inputs.map(entry => entry.label))));
  if (content) {
    const value = content.example === undefined ? "" : pretty(content.example);
    one.body = make("textarea", { value, rows: Math.min(16, value.split("\n").length + 1), spellcheck: false, ariaLabel: "Body" });
    const fields = make("details", { class: "more" }, make("summary", {}, "Every field of the body"));
    fields.addEventListener("toggle", () => fields.children.length < 2 && fields.append(fieldTable(content.schema)));
    parts.push(section("Body", one.body, fields));
  }
  return parts;
}

function responses(operation) {
  const rows = Object.entries(operation.responses).map(([status, response]) =>
    make("tr", {}, make("th", {}, status), make("td", {}, resolved(response).description)));
  const [type, content] = Object.entries(operation.responses["200"].content)[0];
  const example = content.example === undefined ? null : make("pre", { tabIndex: 0 }, pretty(content.example));
  const all = make("details", { class: "more" }, make("summary", {}, "Every status"), make("table", {}, make("tbody", {}, ...rows)));
  return section("Answer", make("p", { class: "soft" }, `200, ${type}: ${operation.responses["200"].description}`), example, all);
}

function fill(one) {
  const { operation } = one;
  const rights = operation["x-permission"];
  const needs = rights ? `Needs a token that may ${rights.action} in the group ${rights.group}.` : "Needs no token.";
  one.button = make("button", { type: "button" }, "Send");
  const copy = make("button", { type: "button", class: "quiet" }, "Copy curl");
  one.curl = make("pre", { tabIndex: 0, class: "curl" });
  one.answer = make("div", { class: "answer", role: "status" });
  const inside = make("div", { class: "inside" }, make("p", {}, operation.description),
    make("p", { class: "rights" }, needs, operation.deprecated ? " Old name; kept for clients that use it." : ""),
    ...form(one), section("Call", one.curl), make("div", { class: "row" }, one.button, copy), one.answer, responses(operation));
  one.button.addEventListener("click", () => send(one));
  copy.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(curl(readCall(one), { masked: false })); copy.textContent = "Copied"; }
    catch { copy.textContent = "Not allowed here"; }
    setTimeout(() => { copy.textContent = "Copy curl"; }, 2000);
  });
  inside.addEventListener("input", () => line(one));
  one.element.append(inside);
  one.filled = true;
  line(one);
}

const line = one => { one.curl.textContent = curl(readCall(one), { masked: true }); };

function block(one) {
  const { operation, method, path } = one;
  const head = make("summary", {}, make("span", { class: `method ${method}` }, method), make("span", { class: "path" }, path),
    make("span", { class: "said" }, operation.summary));
  one.element = make("details", { class: "operation" + (operation.deprecated ? " old" : ""), id: operation.operationId }, head);
  one.element.addEventListener("toggle", () => { if (one.element.open && !one.filled) fill(one); });
  one.link = make("a", { href: `#${operation.operationId}`, title: path }, make("span", { class: `method ${method}` }, method === "DELETE" ? "DEL" : method),
    make("span", { class: "path" }, make("bdi", {}, path.replace(/^\/v1\//, ""))));
  return one;
}

function filter(operations, groups) {
  const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const one of operations) {
    const text = `${one.method} ${one.path} ${one.operation.summary} ${one.operation.tags[0]}`.toLowerCase();
    const hidden = !words.every(word => text.includes(word));
    one.element.hidden = one.link.hidden = hidden;
  }
  for (const group of groups) {
    const empty = group.members.every(one => one.element.hidden);
    for (const heading of group.headings) heading.hidden = empty;
  }
}

function openNamed() {
  const wanted = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (wanted && wanted.classList.contains("operation")) {
    wanted.open = true;
    wanted.scrollIntoView();
  }
}

function draw() {
  at("version").textContent = api.info.version;
  const [about] = api.info.description.split("\n\n");
  at("about").replaceChildren(about.replaceAll("`", ""), " For programs: ", make("a", { href: "/openapi.json" }, "openapi.json"), ".");
  const operations = Object.entries(api.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => block({ method: method.toUpperCase(), path, operation })));
  const groups = api.tags.map(({ name }) => {
    const members = operations.filter(one => one.operation.tags[0] === name);
    const headings = [make("h2", {}, name), make("h2", {}, name)];
    at("list").append(headings[0], ...members.map(one => one.link));
    at("operations").append(headings[1], ...members.map(one => one.element));
    return { members, headings };
  });
  at("search").addEventListener("input", () => filter(operations, groups));
  at("token").addEventListener("input", () => operations.filter(one => one.filled).forEach(line));
  addEventListener("hashchange", openNamed);
  openNamed();
}

fetch("/openapi.json")
  .then(response => response.json())
  .then(found => { api = found; draw(); })
  .catch(problem => { at("about").textContent = `/openapi.json could not be read: ${problem.message}`; });
