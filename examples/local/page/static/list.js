// The list of messages. It keeps the latest, and has elements only for the rows in view, so
// that its work does not grow with the number of messages.

// el makes an element. A string among its children becomes text, never markup.
export function el(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") e.className = value;
    else if (name.startsWith("on")) e.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) e.setAttribute(name, value === true ? "" : value);
  }
  e.append(...children.filter((c) => c !== undefined && c !== null && c !== false));
  return e;
}

// short abbreviates a device token.
export const short = (token) => (token.length > 14 ? token.slice(0, 8) + "…" + token.slice(-4) : token || "–");

const pad = (n, size) => String(n).padStart(size, "0");

// clock returns the time of day with milliseconds, in the zone of the browser.
export function clock(time) {
  const t = new Date(time);
  return `${pad(t.getHours(), 2)}:${pad(t.getMinutes(), 2)}:${pad(t.getSeconds(), 2)}.${pad(t.getMilliseconds(), 3)}`;
}

const rowHeight = 30; // as --row in style.css
const maxRows = 2000;
const spare = 6; // rows above and below those in view

export class List {
  // onOpen is called with the number of a message that is to be shown.
  constructor(viewport, onOpen) {
    this.viewport = viewport;
    this.sizer = viewport.firstElementChild;
    this.rows = []; // the oldest first
    this.elements = new Map(); // by number
    this.left = 0; // how many messages are not in rows, since they were too many
    this.active = 0; // the number of the selected message; 0: none
    this.onOpen = onOpen;
    this.onChange = () => {};
    viewport.addEventListener("scroll", () => this.schedule(), { passive: true });
    new ResizeObserver(() => this.schedule()).observe(viewport);
    viewport.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.select(Number(row.dataset.number), true);
    });
  }

  // replace removes all messages, and adds others.
  replace(messages, skipped = 0) {
    this.rows = [];
    this.left = 0;
    this.viewport.scrollTop = 0;
    this.add(messages, skipped);
  }

  // add adds messages. The server has skipped some before them.
  add(messages, skipped = 0) {
    const last = this.rows.length ? this.rows[this.rows.length - 1].number : 0;
    const fresh = messages.filter((m) => m.number > last); // some may come twice after a reconnect
    this.rows.push(...fresh);
    this.left += skipped + Math.max(0, this.rows.length - maxRows);
    if (this.rows.length > maxRows) this.rows.splice(0, this.rows.length - maxRows);
    // The newest is on top. What the user looks at stays where it is.
    this.shift = (this.shift || 0) + (this.viewport.scrollTop > 0 || this.shift ? fresh.length : 0);
    this.schedule();
  }

  schedule() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.render();
    });
  }

  // at returns the message in a row. Row 0 has the newest.
  at(row) {
    return this.rows[this.rows.length - 1 - row];
  }

  rowOf(number) {
    let low = 0, high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.rows[middle].number < number) low = middle + 1;
      else high = middle;
    }
    return low < this.rows.length && this.rows[low].number === number ? this.rows.length - 1 - low : -1;
  }

  render() {
    const count = this.rows.length;
    this.sizer.style.height = count * rowHeight + "px";
    if (this.shift) {
      this.viewport.scrollTop += this.shift * rowHeight;
      this.shift = 0;
    }
    const first = Math.max(0, Math.floor(this.viewport.scrollTop / rowHeight) - spare);
    const end = Math.min(count, Math.ceil((this.viewport.scrollTop + this.viewport.clientHeight) / rowHeight) + spare);
    const wanted = new Map();
    for (let row = first; row < end; row++) wanted.set(this.at(row).number, row);
    const free = [];
    for (const [number, element] of this.elements) {
      if (!wanted.has(number)) {
        this.elements.delete(number);
        free.push(element);
      }
    }
    for (const [number, row] of wanted) {
      let element = this.elements.get(number);
      if (!element) {
        element = fill(free.pop() || newRow(), this.at(row));
        this.elements.set(number, element);
        if (!element.parentNode) this.sizer.append(element);
      }
      element.style.transform = `translateY(${row * rowHeight}px)`;
      element.setAttribute("aria-rowindex", row + 1);
      element.setAttribute("aria-selected", number === this.active);
    }
    for (const element of free) element.remove();
    this.viewport.setAttribute("aria-rowcount", count);
    if (this.elements.has(this.active)) this.viewport.setAttribute("aria-activedescendant", "m" + this.active);
    else this.viewport.removeAttribute("aria-activedescendant");
    this.onChange(count);
  }

  // select selects a message, and opens it if open is set.
  select(number, open) {
    this.active = number;
    const row = this.rowOf(number);
    if (row >= 0) {
      const top = row * rowHeight, view = this.viewport;
      if (top < view.scrollTop) view.scrollTop = top;
      else if (top + rowHeight > view.scrollTop + view.clientHeight) view.scrollTop = top + rowHeight - view.clientHeight;
    }
    this.schedule();
    if (open && number) this.onOpen(number);
  }

  // move selects the message that is so many rows below. It opens it if open is set.
  move(rows, open) {
    if (!this.rows.length) return;
    const row = this.rowOf(this.active);
    const to = row < 0 ? 0 : Math.max(0, Math.min(this.rows.length - 1, row + rows));
    this.select(this.at(to).number, open);
  }
}

const columns = ["time", "outcome", "text", "token", "topic", "type", "priority", "protocol", "delay"];

function newRow() {
  return el("div", { class: "row", role: "row" }, ...columns.map((c) => el("span", { class: "c-" + c, role: "gridcell" })));
}

// fill shows a message in a row.
function fill(row, m) {
  row.id = "m" + m.number;
  row.dataset.number = m.number;
  const [time, outcome, text, token, topic, type, priority, protocol, delay] = row.children;
  const at = clock(m.time);
  time.replaceChildren(at.slice(0, 8), el("span", { class: "ms" }, at.slice(8)));
  outcome.replaceChildren(outcomeTag(m));
  if (m.findings) outcome.append(el("span", { class: "tag warn", title: "rules of Apple's that it breaks" }, "▲ " + m.findings));
  text.textContent = m.text;
  text.classList.toggle("raw", m.text.startsWith("{"));
  token.textContent = m.channel ? "channel" : short(m.token);
  token.title = m.token || m.channel || "";
  topic.textContent = m.topic || "–";
  topic.title = m.topic;
  type.textContent = m.push_type || "–";
  priority.textContent = m.priority || "–";
  protocol.textContent = m.protocol === "http2" ? "h2" : "bin";
  protocol.title = m.protocol === "http2" ? "HTTP/2" : "the binary protocol";
  delay.textContent = m.delay_ms ? m.delay_ms + " ms" : "";
  return row;
}

// outcomeTag returns the outcome with its reason, in a colour.
export function outcomeTag(m) {
  const text = (m.outcome === "rejected" && m.reason) || m.outcome;
  return el("span", { class: "tag " + m.outcome, title: m.outcome + (m.reason ? ": " + m.reason : "") }, m.then ? text + " · " + m.then : text);
}
