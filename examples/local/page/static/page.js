// The page: events from the server, filters, keys, and the forms that set answers.
import { clock, el, List, short } from "/list.js";
import { detail, pairs } from "/detail.js";

const $ = (id) => document.getElementById(id);
const filters = $("filters");
const narrow = matchMedia("(max-width: 860px)"); // the panel covers the rest

// call calls the API, and returns what it answers. It throws an Error with the server's text.
async function call(method, path, body) {
  const response = await fetch(path, {
    method,
    headers: { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text();
  const answer = text ? JSON.parse(text) : undefined;
  if (!response.ok) throw new Error(answer?.error || response.statusText);
  return answer;
}

let noticeTimer;
function notice(text) {
  let box = $("notice");
  if (!box) document.body.append((box = el("div", { id: "notice", role: "status" })));
  box.textContent = text;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => box.remove(), 2500);
}

// attempt does something that may fail, and shows the error.
const attempt = (f) => f().catch((err) => notice(err.message));

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without a secure context there is no clipboard.
    const area = el("textarea", {}, text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  notice(what + " is copied.");
}

// --- the panel

const tabs = [...document.querySelectorAll("[role=tab]")];
const selectedTab = () => tabs.find((tab) => tab.tabIndex === 0);

function showTab(name, focus) {
  for (const tab of tabs) {
    const on = tab.id === "tab-" + name;
    tab.setAttribute("aria-selected", on);
    tab.tabIndex = on ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !on;
  }
  setOpen(true);
  if (focus) selectedTab().focus();
}

const isCovered = () => narrow.matches && $("panel").dataset.open !== "no";

function setOpen(on) {
  $("panel").dataset.open = on ? "yes" : "no";
  const inside = document.activeElement === document.body || $("panel").contains(document.activeElement);
  for (const part of [document.querySelector("header"), filters, $("list")]) part.inert = isCovered();
  if (isCovered() && !inside) selectedTab().focus();
}
narrow.addEventListener("change", () => setOpen($("panel").dataset.open !== "no"));

function closePanel() {
  setOpen(false);
  list.select(0);
  $("viewport").focus();
}

for (const tab of tabs) {
  tab.addEventListener("click", () => showTab(tab.id.slice(4)));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) showTab(tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length].id.slice(4), true);
  });
}
$("close-panel").addEventListener("click", closePanel);
$("show-panel").addEventListener("click", () => {
  const last = selectedTab().id.slice(4);
  showTab(last === "message" ? "answers" : last, true); // to close it has unselected the message
});

// --- messages

let opened = 0;
async function open(number) {
  opened = number;
  const m = await call("GET", "/api/messages/" + number);
  if (opened !== number) return; // another was opened in the meantime
  $("pane-message").replaceChildren(...detail(m, copy, answerToken));
  $("pane-message").scrollTop = 0;
  showTab("message");
}

const list = new List($("viewport"), (number) => attempt(() => open(number)));
list.onChange = (count) => {
  $("shown").replaceChildren(count ? `${count.toLocaleString()} listed` : "");
  if (list.left) {
    $("shown").append(" · ", el("span", { class: "warn", title: "The list has the latest, and leaves some out when many arrive at once. Narrow the filter to see others, or download them all." },
      `${list.left.toLocaleString()} not listed`));
  }
  $("empty").hidden = count > 0;
};

function query() {
  const q = new URLSearchParams(new FormData(filters));
  for (const [name, value] of [...q]) if (!value.trim()) q.delete(name);
  return q;
}

function showCounts(b) {
  const parts = [`${b.total.toLocaleString()} ${b.total === 1 ? "message" : "messages"}`];
  $("counts").replaceChildren(parts[0]);
  if (b.dropped) $("counts").append(" · ", el("span", { class: "warn", title: "only the latest are kept; see -keep" }, `${b.dropped.toLocaleString()} dropped`));
  const q = query();
  $("empty").replaceChildren(...(b.total && [...q].length
    ? [el("strong", {}, "No message passes the filter"), "Change the filter above."]
    : [el("strong", {}, "Waiting for a push"), "Point a client at this server. Setup has the address and a command to try."]));
}

// An EventSource cannot say at its start what it has seen, so the events are read with fetch.
let events, retry; // the AbortController of the open request, and the timer of the next
let lastID = ""; // of the last event; empty: everything is to be sent

// connect asks for events. A hidden page does not: a browser has six connections for all the
// pages of a host.
async function connect() {
  events?.abort();
  clearTimeout(retry);
  if (document.hidden) {
    live(false);
    return;
  }
  const { signal } = (events = new AbortController());
  try {
    const response = await fetch("/api/events?" + query(), { headers: lastID ? { "Last-Event-ID": lastID } : {}, cache: "no-store", signal });
    if (!response.ok) throw new Error(response.statusText);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ; ) {
      const { value, done } = await reader.read();
      if (signal.aborted) return;
      if (done) break;
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      blocks.forEach(handle);
    }
  } catch (err) {
    if (signal.aborted) return;
    console.warn(err);
  }
  live(false);
  retry = setTimeout(connect, 1000);
}

document.addEventListener("visibilitychange", connect);

// handle does what an event says.
let replace;
function handle(block) {
  const fields = Object.fromEntries(block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
  if (!fields.event) return; // a comment
  const data = JSON.parse(fields.data);
  if (fields.id) lastID = fields.id;
  switch (fields.event) {
    case "start":
      live(true);
      replace = !data.resumed;
      attempt(showSetup); // the addresses of a server that was started again may be others
      break;
    case "messages":
      if (replace) list.replace(data.messages, data.skipped);
      else list.add(data.messages, data.skipped);
      replace = false;
      showCounts(data);
      break;
    case "cleared":
      list.replace([]);
      break;
    case "state":
      showState(data);
  }
}

function live(on) {
  $("live").dataset.state = on ? "live" : "wait";
  $("live").textContent = on ? "live" : "reconnecting";
}

let typing;
filters.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    $("download").href = "/api/messages.jsonl?" + query();
    lastID = "";
    connect();
  }, 200);
});
filters.addEventListener("submit", (event) => event.preventDefault());
$("clear").addEventListener("click", () => attempt(() => call("DELETE", "/api/messages")));

// --- answers, devices, connections

// fieldsOf returns the fields of a form that are filled in, with numbers as numbers and times
// in UTC.
function fieldsOf(form) {
  const fields = {};
  for (const input of form.elements) {
    if (!input.name || input.value.trim() === "") continue;
    if (input.type === "number") fields[input.name] = Number(input.value);
    else if (input.type === "datetime-local") fields[input.name] = new Date(input.value).toISOString();
    else fields[input.name] = input.value.trim();
  }
  return fields;
}

// submits makes a form call f with its fields and the button, and shows what is wrong.
function submits(form, output, f) {
  // A field that is not in view cannot say what is wrong with it.
  form.addEventListener("invalid", (event) => event.target.closest("details")?.setAttribute("open", ""), true);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const said = await f(fieldsOf(form), event.submitter?.value);
      if (output) output.className = "";
      if (output) output.textContent = said;
      form.reset();
    } catch (err) {
      if (output) output.className = "error";
      if (output) output.textContent = err.message;
      else notice(err.message);
    }
  });
}

submits($("rule-form"), $("rule-said"), async (fields) => {
  await call("POST", "/api/rules", fields);
  return "Set.";
});
submits($("device-form"), $("device-said"), async ({ token, topic, dead_at }, what) => {
  const dead = dead_at || new Date().toISOString();
  if (what === "register") await call("POST", "/api/devices", { token, topics: [topic || "com.example.app"] });
  else await call("POST", what === "feedback" ? "/api/feedback" : "/api/devices", { token, dead_at: dead });
  return { register: "Registered.", unregister: "Unregistered.", feedback: "Added." }[what];
});
submits($("limit-form"), $("limit-said"), async ({ limit }) => {
  await call("PUT", "/api/stream-limit", { limit });
  return "Set.";
});
submits($("goaway-form"), $("end-said"), async (fields) => {
  await call("POST", "/api/goaway", fields);
  return "GOAWAY is sent.";
});
$("cut").addEventListener("click", () => attempt(async () => {
  await call("DELETE", "/api/connections");
  $("end-said").className = "";
  $("end-said").textContent = "The connections are cut.";
}));
$("reset").addEventListener("click", () => attempt(async () => {
  await call("POST", "/api/reset", {});
  notice("Everything is reset.");
}));

function answerToken(token) {
  showTab("answers");
  const form = $("rule-form");
  form.elements.token.value = token;
  form.elements.reason.focus();
}

// answers reports whether a message is answered before what then says.
const answers = (then) => !then || then === "goaway";

function describe(rule) {
  const who = rule.token ? "token " + short(rule.token) : rule.topic ? "" : "every message";
  const what = [];
  if (rule.reason || rule.status || rule.binary_status) {
    what.push([rule.status, rule.reason, rule.binary_status && "binary status " + rule.binary_status].filter(Boolean).join(" "));
  } else what.push(answers(rule.then) ? "accepted" : "no answer");
  if (rule.retry_after) what.push(`Retry-After ${rule.retry_after} s`);
  if (rule.dead_at) what.push("dead since " + new Date(rule.dead_at).toLocaleString());
  if (rule.delay_ms) what.push(`after ${rule.delay_ms} ms`);
  if (rule.then) what.push("then " + rule.then + (rule.goaway_reason ? ` (${rule.goaway_reason})` : ""));
  return `${[who, rule.topic && "topic " + rule.topic].filter(Boolean).join(", ")}${rule.times ? `, the next ${rule.times}` : ""}: ${what.join(", ")}`;
}

const item = (text, path, title) => el("div", { class: "item" }, el("span", { title }, text),
  el("button", { type: "button", "aria-label": "Remove: " + text, onclick: () => attempt(() => call("DELETE", path)) }, "Remove"));
const none = (text) => el("p", { class: "hint" }, text);
const more = (count, list) => (count > list.length ? [none(`and ${(count - list.length).toLocaleString()} more`)] : []);

// redraw replaces the content of an element, unless nothing has changed: a button that has
// the focus keeps it.
function redraw(id, data, children) {
  const text = JSON.stringify(data);
  if ($(id).dataset.drawn === text) return;
  $(id).dataset.drawn = text;
  $(id).replaceChildren(...children);
}

function showState(s) {
  redraw("rules", s.rules, s.rules.length ? [...s.rules.map((r) => item(describe(r), "/api/rules/" + r.id, r.token)), ...more(s.rule_count, s.rules)] : [none("No answer is set: what the server accepts is accepted.")]);
  redraw("devices", s.devices, s.devices.map((d) => item(`${short(d.token)}: ${d.dead_at ? "dead since " + new Date(d.dead_at).toLocaleString() : (d.topics || []).join(", ")}`, "/api/devices/" + d.token, d.token)).concat(more(s.device_count, s.devices)));
  redraw("feedback", s.feedback, s.feedback.length
    ? [...s.feedback.map((d) => el("div", { class: "item" }, el("span", { title: d.token }, `${short(d.token)}: dead since ${new Date(d.dead_at).toLocaleString()}`))), ...more(s.feedback_count, s.feedback),
      el("p", {}, el("button", { type: "button", onclick: () => attempt(() => call("DELETE", "/api/feedback")) }, "Clear feedback"))]
    : [none("No record.")]);
  const limit = $("limit-form").elements.limit;
  limit.placeholder = s.stream_limit;
  $("tab-connections").textContent = s.connection_count ? `Connections ${s.connection_count}` : "Connections";
  redraw("connections", s.connections, s.connections.length ? [...s.connections.map(connection), ...more(s.connection_count, s.connections)] : [none("No client is connected.")]);
}

function connection(c) {
  const who = c.certificate ? "certificate " + c.certificate : c.key_id ? `key ${c.key_id}, team ${c.team_id}` : "no credentials yet";
  return el("div", { class: "item" },
    el("div", {}, `${c.number} · ${c.service} from ${c.remote_addr}`, el("div", { class: "muted" }, `${c.tls} · ${who} · ${c.in_flight.toLocaleString()} in flight`)),
    c.goaway_sent && el("span", { class: "tag warn" }, "GOAWAY sent"),
    el("time", { datetime: c.opened, title: "connected since" }, clock(c.opened).slice(0, 8)));
}

// --- setup

async function showSetup() {
  const s = await call("GET", "/api/status");
  redraw("reasons", s.reasons, s.reasons.map((r) => el("option", { value: r })));
  const options = (wanted) => s.then.filter((t) => answers(t) === wanted).map((t) => el("option", {}, t));
  redraw("rule-then", s.then, [
    el("option", { value: "" }, "nothing more"),
    el("optgroup", { label: "after the answer" }, ...options(true)),
    el("optgroup", { label: "in place of an answer" }, ...options(false)),
  ]);
  const command = (title, text) => [el("h2", {}, title), el("pre", {}, text), el("p", {}, el("button", { type: "button", onclick: () => copy(text, "The command") }, "Copy"))];
  redraw("pane-setup", s, [
    el("h2", {}, "Point a client at"),
    pairs([["HTTP/2 provider API", s.http2], ["Binary gateway", s.binary], ["Feedback service", s.feedback]], "mono"),
    el("h2", {}, "Credentials"),
    pairs([["Trust", s.ca], ["Key", `${s.auth_key}, key ID ${s.key_id}, team ID ${s.team_id}`], ["or certificate", `${s.cert} with ${s.key}`], ["Topic", s.topic]], "mono"),
    ...command("Push with curl", s.curl),
    ...command("Push with this package", s.push),
    el("p", { class: "hint" }, "A token that begins with bad is rejected as BadDeviceToken, one that begins with dead is Unregistered. Answers sets others. Tests in any language set them with the JSON API: docs/local.md."),
  ]);
}

// --- keys

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const typed = event.target.closest("input, select, textarea");
  if (event.key === "Escape") {
    event.preventDefault(); // a search field would lose its text
    if (typed && filters.contains(typed)) $("viewport").focus();
    else if (typed) selectedTab().focus(); // once more closes the panel
    else closePanel();
    return;
  }
  if (typed) return;
  const inList = event.target === $("viewport") || event.target === document.body;
  const isOpen = $("panel").dataset.open !== "no" && !$("pane-message").hidden;
  if (isCovered() && !isOpen) return;
  const page = Math.max(1, Math.floor($("viewport").clientHeight / 30) - 1);
  const steps = { j: 1, k: -1, ...(inList && { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }) };
  if (event.key === "/" && !isCovered()) $("f-text").focus();
  else if (steps[event.key]) {
    list.move(steps[event.key], isOpen);
    $("viewport").focus();
  } else if (event.key === "Enter" && inList && list.active) list.select(list.active, true);
  else return;
  event.preventDefault();
});

setOpen(!narrow.matches);
list.render();
connect();
