// A message that is opened. All that comes from a client is set as text.
import { clock, el, outcomeTag } from "/list.js";

// detail returns what the pane shows for a message. The buttons call copy(text, what) and
// answer(token).
export function detail(m, copy, answer) {
  return [
    el("div", { class: "title" }, outcomeTag(m), el("span", { class: "muted" }, `message ${m.number} · ${clock(m.time)} · connection ${m.connection}`)),
    preview(m),
    el("p", { class: "actions" },
      m.curl && el("button", { type: "button", onclick: () => copy(m.curl, "The curl command") }, "Copy as curl"),
      m.push && el("button", { type: "button", onclick: () => copy(m.push, "The push command") }, "Copy as push command"),
      /^([0-9a-f]{2})+$/i.test(m.token) && el("button", { type: "button", onclick: () => answer(m.token) }, "Answer this token …")),
    el("h2", {}, "What Apple would say"),
    ...findings(m),
    el("h2", {}, m.protocol === "http2" ? "Header" : "Fields"),
    pairs(m.protocol === "http2" ? (m.header || []).map((f) => [f.name, f.value]) : binaryFields(m), "mono"),
    el("h2", {}, "Payload", el("span", { class: "muted" }, `${m.payload_size.toLocaleString()} bytes`)),
    payload(m),
    ...bytes(m),
    el("details", {}, el("summary", {}, "Commands"), ...[m.curl, m.push].filter(Boolean).map((c) => el("pre", {}, c))),
  ];
}

export function pairs(list, kind = "") {
  const dl = el("dl", { class: kind });
  for (const [name, value] of list) dl.append(el("dt", {}, name), el("dd", {}, value));
  return dl;
}

function binaryFields(m) {
  const list = [["identifier", String(m.id || 0)], ["device token", m.token]];
  if (m.expiry) list.push(["expiry", m.expiry]);
  if (m.priority) list.push(["priority", String(m.priority)]);
  return list;
}

function findings(m) {
  if (m.findings.length === 0) {
    return [el("p", { class: "hint" }, m.outcome === "discarded" ? "Not checked: the message was discarded." : "No rule of Apple's documentation is broken.")];
  }
  return m.findings.map((f) => el("div", { class: "finding" + (f.reason ? " refuses" : "") },
    el("p", {}, el("code", {}, f.field), " ", f.rule),
    el("p", { class: "muted" }, f.reason ? `Rejected: ${f.reason}` : "Accepted, and may be dropped or ignored", ` — ${f.source}`)));
}

function payload(m) {
  if (m.payload_base64 !== undefined && !m.payload) return el("pre", {}, "not UTF-8, in base64:\n" + m.payload_base64);
  const pre = el("pre", { class: "json" });
  if (!m.payload_formatted) pre.append(m.payload || "(empty)");
  else colour(pre, m.payload_formatted);
  return pre;
}

// colour adds JSON to an element: a span with a class for each key and value.
function colour(parent, json) {
  const token = /("(?:[^"\\]|\\.)*")(\s*:)?|-?\d[\d.eE+-]*|\b(?:true|false|null)\b/g;
  let at = 0;
  for (const found of json.matchAll(token)) {
    parent.append(json.slice(at, found.index));
    const kind = found[1] === undefined ? (/^[-\d]/.test(found[0]) ? "number" : "word") : found[2] === undefined ? "string" : "key";
    parent.append(el("span", { class: "j-" + kind }, found[1] ?? found[0]), found[2] ?? "");
    at = found.index + found[0].length;
  }
  parent.append(json.slice(at));
}

function bytes(m) {
  if (!m.bytes) return [];
  const table = el("table", { class: "mono" }, el("tr", {}, ...["Offset", "Bytes", "Field", "Meaning"].map((t) => el("th", { scope: "col" }, t))));
  for (const f of m.bytes) {
    const hex = f.hex.match(/../g) || [];
    const lines = [];
    for (let i = 0; i < hex.length; i += 8) lines.push(hex.slice(i, i + 8).join(" "));
    table.append(el("tr", {}, el("td", { class: "mono at" }, String(f.at)), el("td", { class: "mono hex" }, lines.join("\n")), el("td", {}, f.name), el("td", { class: "mono" }, f.meaning)));
  }
  return [el("h2", {}, "Bytes"), el("div", { class: "scroll" }, table)];
}

const isObject = (v) => typeof v === "object" && v !== null && !Array.isArray(v);
const show = (v) => (typeof v === "string" ? v : JSON.stringify(v));

// preview returns the notification about as a phone shows it.
function preview(m) {
  let json;
  try {
    json = JSON.parse(m.payload);
  } catch {
    return el("p", { class: "hint" }, "No preview: the payload is no JSON.");
  }
  const aps = isObject(json) && isObject(json.aps) ? json.aps : {};
  const alert = typeof aps.alert === "string" ? { body: aps.alert } : isObject(aps.alert) ? aps.alert : {};
  const app = m.topic.replace(/\.(push-type\.[a-z]+|voip|complication|pushkit\.fileprovider|voip-ptt|location-query)$/, "");
  const name = app.split(".").pop() || "App";
  const icon = el("div", { class: "app", "aria-hidden": "true" }, [...name][0].toUpperCase());
  if (aps.badge !== undefined) icon.append(el("span", { class: "badge" }, show(aps.badge)));
  const note = el("div", { class: "note" }, icon, el("div", { class: "from" }, el("span", {}, name), el("span", {}, clock(m.time).slice(0, 5))));
  const line = (kind, text, key, args) => {
    if (text !== undefined) note.append(el("div", { class: kind }, show(text)));
    else if (key !== undefined) note.append(el("div", { class: kind }, el("span", { class: "loc", title: "a key that the app localises" }, show(key)), args ? " with " + show(args) : ""));
  };
  line("t", alert.title, alert["title-loc-key"], alert["title-loc-args"]);
  line("s", alert.subtitle, alert["subtitle-loc-key"], alert["subtitle-loc-args"]);
  line("b", alert.body, alert["loc-key"], alert["loc-args"]);
  const activity = aps["content-state"] !== undefined || aps.event !== undefined;
  if (activity) note.append(activityCard(aps));
  else if (note.children.length === 2) {
    note.append(el("div", { class: "silent" }, aps["content-available"] ? "Nothing is shown: it wakes the app in the background." : "Nothing is shown: there is no alert."));
  }
  return el("div", { class: "wall", role: "group", "aria-label": "Preview" }, note, chips(json, aps, activity));
}

// activityCard returns the state of a Live Activity.
function activityCard(aps) {
  const list = [["event", show(aps.event ?? "–")]];
  if (aps["attributes-type"] !== undefined) list.push(["attributes", show(aps["attributes-type"])]);
  if (isObject(aps.attributes)) for (const [k, v] of Object.entries(aps.attributes)) list.push([k, show(v)]);
  if (isObject(aps["content-state"])) for (const [k, v] of Object.entries(aps["content-state"])) list.push([k, show(v)]);
  for (const key of ["timestamp", "stale-date", "dismissal-date"]) {
    const t = new Date(aps[key] * 1000);
    if (aps[key] !== undefined) list.push([key, isNaN(t) ? show(aps[key]) : t.toLocaleString()]);
  }
  if (aps["relevance-score"] !== undefined) list.push(["relevance", show(aps["relevance-score"])]);
  return el("div", { class: "activity" }, el("div", { class: "t" }, "Live Activity"), pairs(list));
}

// chips returns what a notification has beside its text.
function chips(json, aps, activity) {
  const list = [];
  const add = (name, value) => value !== undefined && list.push(el("span", { class: "tag" }, `${name}: ${show(value)}`));
  add("sound", isObject(aps.sound) ? `${aps.sound.name}${aps.sound.critical ? ", critical" : ""}` : aps.sound);
  add("interruption", aps["interruption-level"]);
  add("thread", aps["thread-id"]);
  add("category", aps.category);
  if (!activity) add("relevance", aps["relevance-score"]);
  if (aps["mutable-content"]) {
    const image = imageIn(json);
    list.push(el("span", { class: "tag" }, image ? "image, if the app's extension loads it: " + image : "an extension of the app may change it"));
  }
  return el("div", { class: "chips" }, ...list);
}

// imageIn returns the first value that looks like the address of an image. It is not loaded.
function imageIn(json) {
  for (const [key, value] of Object.entries(json)) {
    if (key === "aps") continue;
    if (typeof value === "string" && /^https?:\/\//.test(value) && (/\.(png|jpe?g|gif|webp|heic)\b/i.test(value) || /image|photo|picture|media|attachment/i.test(key))) return value;
    if (isObject(value)) {
      const inner = imageIn(value);
      if (inner) return inner;
    }
  }
  return "";
}
