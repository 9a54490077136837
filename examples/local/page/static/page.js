// The page: events from the server, filters, keys, and the forms that set answers.
import { el, List, short } from "/list.js";
import { detail, pairs } from "/detail.js";

const $ = (id) => document.getElementById(id);
const filters = $("filters");
const narrow = matchMedia("(max-width: 860px)");

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

function showTab(name, focus) {
  for (const tab of tabs) {
    const on = tab.id === "tab-" + name;
    tab.setAttribute("aria-selected", on);
    tab.tabIndex = on ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !on;
    if (on && focus) tab.focus();
  }
  $("panel").dataset.open = "yes";
}

function closePanel() {
  $("panel").dataset.open = "no";
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
$("show-panel").addEventListener("click", () => showTab("answers", true));

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
  $("shown").textContent = count ? `${count.toLocaleString()} shown` : "";
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
    : [el("strong", {}, "Waiting for a push"), "Point a client at this server. Setup, at the side, has the address and a command to try."]));
}

let source, retry;
function connect() {
  source?.close();
  clearTimeout(retry);
  source = new EventSource("/api/events?" + query());
  let replace = false;
  source.addEventListener("start", (event) => {
    const { resumed } = JSON.parse(event.data);
    live(true);
    replace = !resumed;
    attempt(showSetup); // the addresses of a server that was started again may be others
  });
  source.addEventListener("messages", (event) => {
    const b = JSON.parse(event.data);
    if (replace) list.replace(b.messages);
    else list.add(b.messages);
    replace = false;
    showCounts(b);
  });
  source.addEventListener("cleared", () => list.replace([]));
  source.addEventListener("state", (event) => showState(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    live(false);
    if (source.readyState === EventSource.CLOSED) retry = setTimeout(connect, 1000);
  });
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
submits($("limit-form"), null, ({ limit }) => call("PUT", "/api/stream-limit", { limit }));
submits($("goaway-form"), null, (fields) => call("POST", "/api/goaway", fields));
$("cut").addEventListener("click", () => attempt(() => call("DELETE", "/api/connections")));
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

function describe(rule) {
  const who = rule.token ? "token " + short(rule.token) : rule.topic ? "" : "every message";
  const what = [];
  if (rule.reason || rule.status || rule.binary_status) {
    what.push([rule.status, rule.reason, rule.binary_status && "binary status " + rule.binary_status].filter(Boolean).join(" "));
  } else what.push(["", "goaway"].includes(rule.then || "") ? "accepted" : "no answer");
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
  const head = ["#", "Service", "Client", "TLS", "Credentials", "In flight", "Since", ""];
  $("tab-connections").textContent = s.connection_count ? `Connections ${s.connection_count}` : "Connections";
  redraw("connections", s.connections, s.connections.length ? [el("h2", {}, "Open connections"), el("div", { class: "scroll" }, el("table", {},
    el("tr", {}, ...head.map((t) => el("th", { scope: "col" }, t))),
    ...s.connections.map((c) => el("tr", {}, ...[String(c.number), c.service, c.remote_addr, c.tls,
      c.certificate ? "certificate " + c.certificate : c.key_id ? `key ${c.key_id}, team ${c.team_id}` : "none yet",
      String(c.in_flight), new Date(c.opened).toLocaleTimeString(), c.goaway_sent ? el("span", { class: "tag warn" }, "GOAWAY sent") : ""].map((t) => el("td", {}, t)))))),
    ...more(s.connection_count, s.connections)] : [none("No client is connected.")]);
}

// --- setup

const reasons = `BadCertificate BadCertificateEnvironment BadCollapseId BadDeviceToken BadEnvironmentKeyIdInToken BadExpirationDate BadMessageId BadPath BadPriority
BadTopic DeviceTokenNotForTopic DuplicateHeaders ExpiredProviderToken ExpiredToken Forbidden IdleTimeout InternalServerError InvalidProviderToken InvalidPushType
MethodNotAllowed MissingDeviceToken MissingProviderToken MissingTopic PayloadEmpty PayloadTooLarge ServiceUnavailable Shutdown TooManyProviderTokenUpdates
TooManyRequests TopicDisallowed UnrelatedKeyIdInToken Unregistered`.split(/\s+/);
$("reasons").append(...reasons.map((r) => el("option", { value: r })));

async function showSetup() {
  const s = await call("GET", "/api/status");
  const then = $("rule-form").elements.then;
  then.replaceChildren(el("option", { value: "" }, "nothing more"), ...s.then.map((t) => el("option", {}, t)));
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
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typed = event.target.closest("input, select, textarea");
  if (event.key === "Escape") {
    event.preventDefault(); // a search field would lose its text
    if (typed && filters.contains(typed)) $("viewport").focus();
    else closePanel();
    return;
  }
  if (typed) return;
  const inList = event.target === $("viewport") || event.target === document.body;
  const isOpen = $("panel").dataset.open !== "no" && !$("pane-message").hidden && !narrow.matches;
  const page = Math.max(1, Math.floor($("viewport").clientHeight / 30) - 1);
  const steps = { j: 1, k: -1, ...(inList && { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }) };
  if (event.key === "/") $("f-text").focus();
  else if (steps[event.key]) {
    list.move(steps[event.key], isOpen);
    $("viewport").focus();
  } else if (event.key === "Enter" && inList && list.active) list.select(list.active, true);
  else return;
  event.preventDefault();
});

if (narrow.matches) $("panel").dataset.open = "no";
list.render();
connect();
