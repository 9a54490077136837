// Drives the page of examples/local in Chromium: see TestPage. It starts the program itself,
// since one of the checks is that the page survives a restart.
//
//	node page.js '{"local": ..., "push": ..., "chromium": ..., "profile": ..., "dir": ..., "path": ...}'
"use strict";
const assert = require("node:assert/strict");
const { execFile, spawn } = require("node:child_process");
const { readFileSync } = require("node:fs");
const http2 = require("node:http2");
const { join } = require("node:path");
const tls = require("node:tls");
const { chromium } = require("playwright-core");

const settings = JSON.parse(process.argv[2]);
const env = { ...process.env, PATH: settings.path };
const tokenOf = (first) => first + "00c0ffee".repeat(8).slice(first.length);
const apnsDir = join(settings.dir, "apns-local");

// start starts the program on the ports of an earlier start, if there was one.
let addresses = {};
function start() {
  const port = (address) => (address ? address.split(":").pop() : "0");
  const args = ["-http2", port(addresses.http2), "-push", port(addresses.binary), "-feedback", port(addresses.feedback), "-page-addr", "127.0.0.1:" + port(addresses.page)];
  const process = spawn(settings.local, args, { cwd: settings.dir, stdio: ["ignore", "pipe", "inherit"] });
  return new Promise((resolve, reject) => {
    let text = "";
    process.on("exit", () => reject(new Error("local has ended: " + text)));
    process.stdout.on("data", (data) => {
      text += data;
      const find = (name) => text.match(new RegExp("^" + name + " +(?:http://)?([0-9.:]+)", "m"))?.[1];
      if (text.includes("Ctrl-C ends it.\n")) {
        addresses = { http2: find("HTTP/2 provider API"), binary: find("binary gateway"), feedback: find("feedback service"), page: find("web page") };
        resolve(process);
        text = "";
      }
    });
  });
}

function stop(process) {
  return new Promise((resolve) => {
    process.removeAllListeners("exit");
    process.on("exit", resolve);
    process.kill("SIGINT");
  });
}

function run(file, args, options = {}) {
  return new Promise((resolve, reject) => {
    execFile(file, args, { env, timeout: 60000, ...options }, (err, stdout, stderr) => (err ? reject(new Error(err.message + stdout + stderr)) : resolve(stdout)));
  });
}

// apns2 pushes with npm's apns2, and returns a line for each token.
const apns2 = async (...tokens) =>
  (await run(process.execPath, ["apns2.js", apnsDir, addresses.http2.split(":").pop(), "key", "0", ...tokens], { cwd: __dirname })).trim().split("\n");

// curl pushes a payload with curl.
const curl = (token, payload, ...more) =>
  run("curl", ["-sS", "--http2", "--cacert", join(apnsDir, "ca.pem"), "-H", "@" + join(apnsDir, "authorization.txt"), "-H", "apns-topic: com.example.app", "-H", "apns-push-type: alert",
    ...more, "--data-raw", typeof payload === "string" ? payload : JSON.stringify(payload), "-w", "%{http_code}", `https://${addresses.http2}/3/device/${token}`]);

// A Client is connected with a certificate until the server ends the connection.
class Client {
  constructor() {
    const read = (name) => readFileSync(join(apnsDir, name));
    this.session = http2.connect("https://" + addresses.http2, { ca: read("ca.pem"), cert: read("cert.pem"), key: read("key.pem") });
    this.goaway = "";
    this.session.on("goaway", (code, last, data) => (this.goaway += data));
    this.session.on("error", () => {}); // the server may cut the connection
    this.closed = new Promise((resolve) => this.session.on("close", resolve));
  }

  // push pushes an alert, or the payload that it is given, and returns the status of the answer.
  // more is added to the header.
  push(token, alert, more = {}) {
    const payload = typeof alert === "string" ? { aps: { alert } } : alert;
    return new Promise((resolve, reject) => {
      const request = this.session.request({ ":method": "POST", ":path": "/3/device/" + token, "apns-topic": "com.example.app", "apns-push-type": "alert", ...more });
      request.on("response", (header) => resolve(header[":status"]));
      request.on("error", reject);
      request.resume();
      request.end(JSON.stringify(payload));
    });
  }
}

// readFeedback reads the list of the feedback service as a client does, and returns the tokens.
function readFeedback() {
  const read = (name) => readFileSync(join(apnsDir, name));
  const [host, port] = addresses.feedback.split(":");
  return new Promise((resolve, reject) => {
    const chunks = [];
    const socket = tls.connect({ host, port, ca: read("ca.pem"), cert: read("cert.pem"), key: read("key.pem") });
    socket.on("data", (data) => chunks.push(data));
    socket.on("error", reject);
    socket.on("end", () => {
      // A record has the time in 4 bytes, the length of the token in 2, and the token.
      const tokens = [];
      for (let all = Buffer.concat(chunks); all.length; all = all.subarray(6 + all.readUInt16BE(4))) {
        tokens.push(all.subarray(6, 6 + all.readUInt16BE(4)).toString("hex"));
      }
      resolve(tokens);
    });
  });
}

// lowContrast runs in the page. It returns the texts that are shown with a contrast below 4.5
// (WCAG 2, success criterion 1.4.3), and how bright the page is.
function lowContrast() {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  context.canvas.width = context.canvas.height = 1;
  // rgba returns a colour in whatever notation as 0 to 255, and its opacity as 0 to 1.
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const luminance = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  // grounds returns what may be behind an element: of a gradient each of its colours.
  const grounds = (e) => {
    if (!e) return [[255, 255, 255, 1]];
    const style = getComputedStyle(e);
    const colour = rgba(style.backgroundColor);
    const stops = style.backgroundImage.match(/rgba?\([^)]*\)/g) || [];
    const own = stops.length ? stops.map(rgba) : [colour];
    if (own.every((c) => c[3] === 1)) return own;
    return grounds(e.parentElement).flatMap((under) => own.map((c) => over(c, under)));
  };
  const low = [];
  let texts = 0;
  const look = (e, text, style) => {
    let opacity = 1;
    for (let a = e; a; a = a.parentElement) opacity *= getComputedStyle(a).opacity;
    const colour = rgba(style.color);
    colour[3] *= opacity;
    const ratios = grounds(e).map((ground) => {
      const [light, dark] = [luminance(over(colour, ground)), luminance(ground)].sort((a, b) => b - a);
      return (light + 0.05) / (dark + 0.05);
    });
    texts++;
    if (Math.min(...ratios) < 4.5) low.push(`${Math.min(...ratios).toFixed(2)}: ${e.tagName} ${e.className} ${text.trim().slice(0, 30)}`);
  };
  for (const e of document.body.querySelectorAll("*")) {
    if (!e.checkVisibility({ visibilityProperty: true })) continue;
    const text = [...e.childNodes].filter((n) => n.nodeType === Node.TEXT_NODE).map((n) => n.data).join("");
    if (text.trim()) look(e, text, getComputedStyle(e));
    if (e.placeholder) look(e, e.placeholder, getComputedStyle(e, "::placeholder"));
  }
  return { low, texts, bright: luminance(grounds(document.body)[0]) };
}

async function main() {
  let local = await start();
  const context = await chromium.launchPersistentContext(settings.profile, {
    executablePath: settings.chromium,
    headless: false, // the flags say it
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
    viewport: { width: 1300, height: 800 },
    permissions: ["clipboard-read", "clipboard-write"],
  });
  const page = await context.newPage();
  page.setDefaultTimeout(30000);
  const complaints = [], foreign = [];
  page.on("console", (m) => m.type() === "error" && !/Failed to load resource|ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|404/.test(m.text()) && complaints.push(m.text()));
  page.on("pageerror", (err) => complaints.push(String(err)));
  page.on("dialog", (d) => { complaints.push("a dialog: " + d.message()); d.dismiss(); });
  page.on("request", (r) => new URL(r.url()).host !== addresses.page && foreign.push(r.url()));
  const check = async (name, f) => {
    try {
      await f();
      assert.deepEqual(complaints.splice(0), [], "complaints of the browser");
      console.log("ok " + name);
    } catch (err) {
      console.log("FAIL " + name + ": " + String(err.stack).replaceAll("\n", "\\n"));
    }
  };
  const row = (text) => page.locator("#sizer .row", { hasText: text });
  const rows = () => page.locator("#sizer .row").count();
  // settled waits until the page, without a filter, knows all messages of the server. It returns
  // how many there are.
  const settled = async () => {
    const { counts } = await api("status");
    await page.waitForFunction((total) => {
      const [listed, left] = (document.getElementById("shown").textContent.match(/[\d,]+/g) || []).map((n) => Number(n.replaceAll(",", "")));
      return (listed || 0) + (left || 0) === total;
    }, counts.total);
    return counts.total;
  };
  const api = async (path) => (await fetch(`http://${addresses.page}/api/${path}`)).json();
  const newest = async () => (await api("messages?limit=1")).messages[0];
  const openNewest = async () => {
    await settled();
    const { number } = await newest();
    await page.locator(`#sizer .row[data-number="${number}"]`).click();
    await pane.getByText(`message ${number} ·`).waitFor();
  };
  const live = () => page.waitForSelector("#live[data-state=live]");
  const frames = () => page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
  const pane = page.locator("#pane-message");
  const alpha = tokenOf("a1"), bad = tokenOf("bad0"), gone = tokenOf("90");

  await page.goto(`http://${addresses.page}/`);
  await live();

  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.name);

  await check("the panel of an empty list", async () => {
    await page.getByText("Waiting for a push").waitFor();
    for (const close of [() => page.keyboard.press("Escape"), () => page.click("#close-panel")]) {
      await page.locator("#viewport").focus();
      await close();
      await page.waitForSelector("#panel", { state: "hidden" });
      await page.click("#show-panel");
      await page.locator("#pane-setup").getByText("Point a client at").waitFor();
      assert.equal(await focused(), "tab-setup");
      await page.waitForSelector("#show-panel", { state: "hidden" });
    }
    // Esc leaves a field first.
    await page.click("#tab-answers");
    await page.fill("#rule-form [name=reason]", "BadTopic");
    await page.keyboard.press("Escape");
    assert.equal(await focused(), "tab-answers");
    assert.equal(await page.inputValue("#rule-form [name=reason]"), "BadTopic");
    await page.keyboard.press("Escape");
    await page.waitForSelector("#panel", { state: "hidden" });
    await page.click("#show-panel");
    await page.fill("#rule-form [name=reason]", "");
    await page.click("#tab-setup");
  });

  await check("a push of apns2 appears", async () => {
    assert.deepEqual(await apns2(alpha), ["accepted " + alpha]);
    await row("Grüße").waitFor();
    assert.equal(await row("Grüße").locator(".c-outcome").textContent(), "accepted");
    assert.equal(await row("Grüße").locator(".c-token").getAttribute("title"), alpha);
  });

  await check("a push of curl appears", async () => {
    assert.match(await curl(bad, { aps: { alert: { title: "From curl", body: "Hi" }, badge: "3" } }), /"BadDeviceToken"}400$/);
    await row("From curl · Hi").waitFor();
    assert.equal(await row("From curl").locator(".tag.rejected").textContent(), "BadDeviceToken");
  });

  await check("filters", async () => {
    await page.selectOption("[name=outcome]", "rejected");
    await row("Grüße").waitFor({ state: "detached" });
    assert.equal(await rows(), 1);
    await page.selectOption("[name=outcome]", "");
    await page.fill("#filters [name=token]", alpha.slice(0, 10).toUpperCase());
    await row("From curl").waitFor({ state: "detached" });
    await row("Grüße").waitFor();
    await page.fill("#filters [name=token]", "");
    await page.fill("#f-text", "nothing has this");
    await page.getByText("No message passes the filter").waitFor();
    await page.fill("#f-text", "");
    await row("From curl").waitFor();
    // The filter holds for what arrives later, too.
    await page.check("[name=findings]");
    await row("Grüße").waitFor({ state: "detached" });
    await curl(alpha, { aps: { alert: "fine" } });
    await curl(alpha, { aps: { alert: "string badge", badge: "4" } });
    await row("string badge").waitFor();
    assert.equal(await row("fine").count(), 0);
    await page.uncheck("[name=findings]");
    await row("fine").waitFor();
  });

  await check("a message opened", async () => {
    await row("From curl").click();
    await pane.getByText("aps.badge", { exact: true }).waitFor();
    const text = await pane.innerText();
    for (const part of ["BadDeviceToken", "From curl", "is a string, expected a number", "Generating a remote notification", "apns-topic", "com.example.app", "(not kept)"]) {
      assert.ok(text.includes(part), `the pane has no ${part}: ${text}`);
    }
    assert.equal(await pane.locator(".note .t").textContent(), "From curl");
    assert.equal(await pane.locator(".note .badge").textContent(), "3");
    assert.equal(await pane.locator(".j-key").first().textContent(), '"aps"');
    assert.ok(!/ey[A-Za-z0-9_-]{20}/.test(text), "the pane has a provider token");
    // Beside the panel the list has all its columns, and the outcome has room for a finding.
    const narrow = (e) => e.locator("> span").evaluateAll((cells) => cells.filter((c) => c.getBoundingClientRect().width < 20).map((c) => c.className));
    assert.deepEqual([await narrow(row("From curl")), await narrow(page.locator("#head"))], [[], []], "columns that are not seen");
    assert.ok(await row("From curl").locator(".tag.rejected").evaluate((tag) => tag.scrollWidth <= tag.clientWidth), "the reason is cut off");
  });

  await check("what a phone would show", async () => {
    await curl(alpha, {
      aps: {
        alert: { title: "Dinner", subtitle: "At eight", "loc-key": "INVITED_BY", "loc-args": ["Ada"] }, badge: 7, sound: { name: "bell.caf", critical: 1 },
        "interruption-level": "time-sensitive", "thread-id": "thread-7", category: "INVITATION", "relevance-score": 0.5, "mutable-content": 1,
      },
      media: { picture: "https://pictures.example/cat.png" },
    });
    await openNewest();
    assert.equal(await pane.locator(".note .from span").first().textContent(), "app");
    assert.equal(await pane.locator(".note .t").textContent(), "Dinner");
    assert.equal(await pane.locator(".note .s").textContent(), "At eight");
    assert.equal(await pane.locator(".note .b").textContent(), 'INVITED_BY with ["Ada"]');
    assert.equal(await pane.locator(".note .badge").textContent(), "7");
    // A key of a localisation does not look like a text.
    assert.deepEqual(await pane.locator(".note .loc").allTextContents(), ["INVITED_BY"]);
    assert.equal(await pane.locator(".note .loc").getAttribute("title"), "a key that the app localises");
    assert.equal(await pane.locator(".note .loc").evaluate((e) => getComputedStyle(e).borderTopStyle), "dashed");
    assert.deepEqual(await pane.locator(".chips .tag").allTextContents(), [
      "sound: bell.caf, critical", "interruption: time-sensitive", "thread: thread-7", "category: INVITATION", "relevance: 0.5",
      "image, if the app's extension loads it: https://pictures.example/cat.png",
    ]);
    // All three lines can be keys, and a sound a name.
    await curl(alpha, { aps: { alert: { "title-loc-key": "TITLE", "title-loc-args": ["a"], "subtitle-loc-key": "SUBTITLE", "loc-key": "BODY" }, sound: "default" } });
    await openNewest();
    assert.deepEqual(await pane.locator(".note .loc").allTextContents(), ["TITLE", "SUBTITLE", "BODY"]);
    assert.equal(await pane.locator(".note .t").textContent(), 'TITLE with ["a"]');
    assert.deepEqual(await pane.locator(".chips .tag").allTextContents(), ["sound: default"]);
    await curl(alpha, { aps: { "content-available": 1 } });
    await openNewest();
    assert.match(await pane.locator(".note .silent").textContent(), /wakes the app in the background/);

    const client = new Client();
    assert.equal(await client.push(alpha, {
      aps: {
        timestamp: 1767225600, event: "update", "content-state": { score: "2:1", minute: 71 }, "attributes-type": "Match", attributes: { home: "Kiel" },
        "stale-date": 1767229200, "relevance-score": 75, alert: { title: "Goal", body: "2:1" },
      },
    }, { "apns-topic": "com.example.app.push-type.liveactivity", "apns-push-type": "liveactivity" }), 200);
    client.session.close();
    await openNewest();
    assert.equal(await pane.locator(".note .from span").first().textContent(), "app");
    assert.equal(await pane.locator(".activity .t").textContent(), "Live Activity");
    const local = (seconds) => page.evaluate((t) => new Date(t * 1000).toLocaleString(), seconds);
    const [names, values] = await Promise.all(["dt", "dd"].map((e) => pane.locator(".activity " + e).allTextContents()));
    assert.deepEqual(names.map((name, i) => [name, values[i]]), [
      ["event", "update"], ["attributes", "Match"], ["home", "Kiel"], ["score", "2:1"], ["minute", "71"],
      ["timestamp", await local(1767225600)], ["stale-date", await local(1767229200)], ["relevance", "75"],
    ]);
    assert.deepEqual(await pane.locator(".chips .tag").allTextContents(), []); // the relevance is in the card
  });

  await check("the bytes of a binary message", async () => {
    await run(settings.push, ["-addr", addresses.binary, "-ca", join(apnsDir, "ca.pem"), "-cert", join(apnsDir, "cert.pem"), "-key", join(apnsDir, "key.pem"), alpha, "7", "Binary hello"]);
    await row("Binary hello").click();
    await pane.getByText("device token length").waitFor();
    const text = await pane.innerText();
    for (const part of ["extended format", "payload length", alpha]) assert.ok(text.includes(part), `the pane has no ${part}: ${text}`);
  });

  await check("the copied commands work", async () => {
    // copied presses a button, and runs the command that it copies.
    const copied = async (name, said) => {
      await page.evaluate(() => navigator.clipboard.writeText(""));
      await pane.getByRole("button", { name }).click();
      const text = await (await page.waitForFunction(() => navigator.clipboard.readText())).jsonValue();
      await page.getByText(said + " is copied.").waitFor();
      return run("sh", ["-c", text.replace("go run ./examples/push", settings.push)], { cwd: settings.profile }); // another folder than that of local
    };
    await row("From curl").click();
    await pane.locator(".note .t", { hasText: "From curl" }).waitFor();
    assert.match(await copied("Copy as curl", "The curl command"), /400[^]*"BadDeviceToken"/);
    await assert.rejects(copied("Copy as push command", "The push command"), /BadDeviceToken/);
    // A push with the certificate needs no topic, and the command of it has a provider token.
    const client = new Client();
    assert.equal(await client.push(alpha, "no topic", { "apns-topic": undefined }), 200);
    client.session.close();
    await row("no topic").click();
    await pane.locator(".note .b", { hasText: "no topic" }).waitFor();
    assert.match(await copied("Copy as curl", "The curl command"), /^HTTP\/2 200/);
    // That of a binary message pushes on the binary protocol.
    await row("Binary hello").click();
    await pane.locator(".note .b", { hasText: "Binary hello" }).waitFor();
    assert.equal(await pane.getByRole("button", { name: "Copy as curl" }).count(), 0);
    const first = await newest();
    await copied("Copy as push command", "The push command");
    await page.waitForFunction((number) => document.querySelector('#sizer .row[aria-rowindex="1"]').dataset.number > number, first.number);
    const again = await newest();
    assert.ok(again.number > first.number);
    for (const [name, want] of Object.entries({ protocol: "binary", token: alpha, text: "Binary hello", outcome: "accepted" })) assert.equal(again[name], want, name);
    await row("fine").click();
    await pane.locator(".note .b", { hasText: "fine" }).waitFor();
    assert.match(await copied("Copy as push command", "The push command"), /accepted/);
  });

  await check("a token set to Unregistered fails", async () => {
    assert.deepEqual(await apns2(gone), ["accepted " + gone]);
    await page.click("#tab-answers");
    await page.fill("#rule-form [name=token]", gone);
    await page.fill("#rule-form [name=reason]", "Unregistered");
    await page.click("#rule-form button");
    await page.locator("#rules").getByText("Unregistered").waitFor();
    const [line] = await apns2(gone);
    assert.match(line, /^rejected 410 Unregistered /);
    assert.deepEqual(await apns2(alpha), ["accepted " + alpha]);
    await page.locator("#rules").getByRole("button").click();
    await page.locator("#rules").getByText("No answer is set").waitFor();
    assert.deepEqual(await apns2(gone), ["accepted " + gone]);
  });

  await check("an answer that cannot be set", async () => {
    const field = (name) => page.locator(`#rule-form [name=${name}]`);
    const set = () => page.click("#rule-form button");
    await page.click("#tab-answers");
    await page.click("#rule-form summary");
    await field("retry_after").fill("7");
    await set();
    await page.locator("#rule-said.error").getByText("expected").waitFor();
    assert.equal(await field("retry_after").inputValue(), "7");
    await field("retry_after").fill("");
    // A field that is not valid comes into view.
    await field("goaway_reason").fill("Shut down");
    await page.click("#rule-form summary");
    await field("goaway_reason").waitFor({ state: "hidden" });
    await set();
    await field("goaway_reason").waitFor();
    await page.waitForFunction(() => document.activeElement.name === "goaway_reason");
    await field("goaway_reason").fill("");
    for (const [token, valid] of [["", true], [alpha, true], [` ${alpha} `, true], [alpha.slice(1), false], ["xyz0", false]]) {
      await field("token").fill(token);
      assert.equal(await field("token").evaluate((e) => e.checkValidity()), valid, token);
    }
    await field("token").fill("");
    assert.equal(await page.locator("#rules").getByText("No answer is set").count(), 1);
    assert.deepEqual(await page.locator("#rule-then optgroup").evaluateAll((groups) => groups.map((g) => [g.label, ...[...g.children].map((o) => o.value)].join(" "))),
      ["after the answer goaway", "in place of an answer silence cut reset refuse-stream goaway-unprocessed"]);
  });

  await check("all connections are ended", async () => {
    await page.click("#tab-connections");
    for (const [press, goaway, said] of [
      [async () => { await page.fill("#goaway-form [name=reason]", "Shutdown"); await page.click("#goaway-form button"); }, /"reason":"Shutdown"/, "GOAWAY is sent."],
      [() => page.click("#cut"), /^$/, "The connections are cut."],
    ]) {
      const client = new Client();
      assert.equal(await client.push(alpha, "connected"), 200);
      const connection = page.locator("#connections").getByText("certificate Apple Push Services: com.example.app");
      await connection.waitFor();
      await press();
      await client.closed;
      assert.match(client.goaway, goaway);
      await page.locator("#end-said").getByText(said).waitFor();
      await page.locator("#connections").getByText("No client is connected").waitFor();
    }
  });

  await check("HTML and scripts are shown as text", async () => {
    const evil = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;
    await curl(tokenOf("ee"), {
      aps: { alert: { title: evil, subtitle: evil, body: evil, "loc-key": evil }, sound: evil, category: evil, "thread-id": evil, badge: evil, "mutable-content": 1, event: evil, "content-state": { [evil]: evil } },
      [evil]: evil, image: `https://evil.example/"><script>document.title='owned'</script>.png`,
    }, "-H", "apns-collapse-id: " + evil.slice(0, 40));
    await curl(evil.replaceAll("/", "").replaceAll(" ", ""), { aps: {} });
    await page.locator("#sizer .c-text", { hasText: "<img" }).first().click();
    await pane.getByText("Live Activity").waitFor();
    assert.equal(await pane.locator(".note .t").first().textContent(), evil);
    assert.equal(await page.locator("main img, main script, main iframe").count(), 0);
    // Keys of a localisation, which are shown only where there is no text.
    await curl(tokenOf("ee"), { aps: { alert: { "title-loc-key": evil, "title-loc-args": [evil], "subtitle-loc-key": evil, "subtitle-loc-args": [evil], "loc-key": evil, "loc-args": [evil] } } });
    await openNewest();
    assert.deepEqual(await pane.locator(".note .loc").allTextContents(), [evil, evil, evil]);
    assert.equal(await pane.locator(".note .b").textContent(), evil + " with " + JSON.stringify([evil]));
    assert.equal(await page.locator("main img, main script, main iframe").count(), 0);
    for (const tab of ["answers", "connections", "setup", "message"]) await page.click("#tab-" + tab);
    assert.equal(await page.title(), "Pushes");
  });

  await check("keyboard alone", async () => {
    await page.locator("#viewport").focus();
    await page.keyboard.press("Escape");
    await page.waitForSelector("#panel", { state: "hidden" });
    await page.keyboard.press("/");
    assert.equal(await focused(), "f-text");
    await page.keyboard.type("Grüße");
    await row("From curl").first().waitFor({ state: "detached" });
    await page.keyboard.press("Escape");
    assert.equal(await focused(), "viewport");
    assert.equal(await page.inputValue("#f-text"), "Grüße");
    assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "none", "the focus is not visible");
    // The page draws in the frame after a key.
    const selected = async (key, row) => {
      await page.keyboard.press(key);
      const id = await page.locator(`#sizer .row[aria-selected=true][aria-rowindex="${row}"]`).getAttribute("id");
      assert.equal(await page.getAttribute("#viewport", "aria-activedescendant"), id);
    };
    await selected("j", 1);
    await selected("ArrowDown", 2);
    await selected("k", 1);
    await page.keyboard.press("Enter");
    await pane.locator(".note").waitFor();
    // From the list, Tab leads to the tabs and the arrows along them; a form sends with Enter.
    for (let i = 0; i < 5 && (await page.evaluate(() => document.activeElement.id)) !== "tab-message"; i++) await page.keyboard.press("Tab");
    await page.keyboard.press("ArrowRight");
    assert.equal(await focused(), "tab-answers");
    for (let i = 0; i < 5 && (await page.evaluate(() => document.activeElement.name)) !== "reason"; i++) await page.keyboard.press("Tab");
    await page.keyboard.type("BadTopic");
    await page.keyboard.press("Enter");
    await page.locator("#rules").getByText("every message: BadTopic").waitFor();
    await page.keyboard.press("Escape"); // leaves the field
    await page.keyboard.press("Escape");
    await page.waitForSelector("#panel", { state: "hidden" });
    await page.fill("#f-text", "");
  });

  await check("nothing moves while rows arrive", async () => {
    // Connections come and go meanwhile: each curl is one.
    await page.click("#show-panel");
    await page.click("#tab-connections");
    for (let i = 0; i < 3; i++) await Promise.all(Array.from({ length: 10 }, () => curl(alpha, { aps: { alert: "many" } })));
    await settled();
    await page.evaluate(() => {
      document.getElementById("viewport").scrollTop = 300;
    });
    await frames();
    await page.evaluate(() => {
      window.shifts = [];
      const add = (entries) => window.shifts.push(...entries.map((e) => e.value + " " + e.sources.map((s) => s.node?.outerHTML?.slice(0, 80))));
      window.observer = new PerformanceObserver((l) => add(l.getEntries()));
      window.observer.observe({ type: "layout-shift" });
      window.allShifts = () => (add(window.observer.takeRecords()), window.shifts);
    });
    const top = () => page.evaluate(() => {
      const view = document.getElementById("viewport").getBoundingClientRect();
      return document.elementFromPoint(view.left + 60, view.top + 15).closest(".row").dataset.number;
    });
    const before = await top();
    for (let i = 0; i < 5; i++) await curl(alpha, { aps: { alert: "more" } });
    await settled();
    await frames(); // a layout shift is reported after its frame
    assert.equal(await top(), before, "the row on top");
    assert.deepEqual(await page.evaluate(() => window.allShifts()), [], "layout shifts");
    await page.evaluate(() => (document.getElementById("viewport").scrollTop = 0));
    await row("more").first().waitFor();
    await page.click("#close-panel");
  });

  await check("a hidden tab needs no connection", async () => {
    const before = await settled();
    // A browser without a display has no hidden tabs, so their documents are told that they are.
    const show = async (page, on) => {
      await page.evaluate((on) => {
        Object.defineProperty(document, "hidden", { configurable: true, value: !on });
        document.dispatchEvent(new Event("visibilitychange"));
      }, on);
      await page.waitForSelector(`#live[data-state=${on ? "live" : "wait"}]`);
    };
    const pages = [page];
    while (pages.length < 7) { // one more than the connections of a browser to a host
      await show(pages.at(-1), false);
      const next = await context.newPage();
      pages.push(next);
      next.setDefaultTimeout(30000);
      await next.goto(`http://${addresses.page}/`);
      await next.waitForSelector("#live[data-state=live]");
    }
    await curl(alpha, { aps: { alert: "meanwhile" } });
    const last = pages.at(-1);
    await last.locator("#sizer .row", { hasText: "meanwhile" }).click();
    await last.locator("#pane-message .note .b", { hasText: "meanwhile" }).waitFor();
    assert.equal(await row("meanwhile").count(), 0);
    await show(last, false);
    await show(page, true);
    await row("meanwhile").waitFor();
    assert.equal(await page.textContent("#shown"), `${before + 1} listed`);
    for (const other of pages.slice(1)) await other.close();
  });

  await check("messages that are too many to list", async () => {
    const client = new Client();
    await client.push(alpha, "needle");
    await Promise.all(Array.from({ length: 2200 }, (_, i) => client.push(alpha, "flood " + i)));
    client.session.close();
    await settled();
    assert.match(await page.textContent("#shown"), /^[\d,]+ listed · [\d,]+ not listed$/);
    assert.match(await page.locator("#shown .warn").getAttribute("title"), /filter.*download/);
    // A filter brings back what is not listed, and nothing is left out of what passes it.
    await page.fill("#f-text", "needle");
    await row("needle").waitFor();
    await page.locator("#shown").getByText("1 listed", { exact: true }).waitFor();
    await page.fill("#f-text", "");
    await settled();
  });

  await check("a download has what passes the filter", async () => {
    await page.fill("#f-text", "needle");
    await page.waitForFunction(() => document.getElementById("download").href.endsWith("?text=needle"));
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
    const lines = readFileSync(await download.path(), "utf8").trim().split("\n").map((line) => JSON.parse(line));
    assert.deepEqual(lines.map((m) => m.text), ["needle"]);
    await page.fill("#f-text", "");
    await settled();
  });

  await check("devices, feedback and the stream limit", async () => {
    const beta = tokenOf("be"), field = (name) => page.locator(`#device-form [name=${name}]`);
    const press = async (token, button, said) => {
      await field("token").fill(token);
      await page.locator("#device-form").getByRole("button", { name: button, exact: true }).click();
      await page.locator("#device-said").getByText(said, { exact: true }).waitFor();
    };
    const devices = page.locator("#devices .item"), feedback = page.locator("#feedback .item");
    const item = (list, token) => list.filter({ hasText: token.slice(0, 8) });
    await page.click("#show-panel");
    await page.click("#tab-answers");
    await page.locator("#rules").getByRole("button").click(); // that of an earlier check
    await page.locator("#rules").getByText("No answer is set").waitFor();

    // A device that is registered makes the others unknown.
    await field("topic").fill("com.example.app");
    await press(alpha, "Register", "Registered.");
    await item(devices, alpha).getByText("com.example.app").waitFor();
    assert.deepEqual(await apns2(alpha), ["accepted " + alpha]);
    assert.match((await apns2(beta))[0], /^rejected 400 BadDeviceToken /);
    await press(beta, "Register", "Registered."); // without a topic: that of the setup
    await item(devices, beta).getByText("com.example.app").waitFor();
    assert.deepEqual(await apns2(beta), ["accepted " + beta]);
    await item(devices, beta).getByRole("button").click();
    await item(devices, beta).waitFor({ state: "detached" });
    assert.match((await apns2(beta))[0], /^rejected 400 BadDeviceToken /);

    // One that is unregistered is dead since the time in the field, and is listed.
    const dead = "2026-01-02T03:04:05";
    await field("dead_at").fill(dead);
    await press(alpha, "Unregister", "Unregistered.");
    const shown = await page.evaluate((t) => new Date(t).toLocaleString(), dead);
    await item(devices, alpha).getByText("dead since " + shown).waitFor();
    await item(feedback, alpha).getByText("dead since " + shown).waitFor();
    assert.match((await apns2(alpha))[0], /^rejected 410 Unregistered /);
    const at = await page.evaluate((t) => new Date(t).getTime(), dead);
    assert.equal(new Date((await api("devices")).find((d) => d.token === alpha).dead_at).getTime(), at);
    await press(beta, "Add to feedback", "Added.");
    await item(feedback, beta).waitFor();
    assert.equal(await item(devices, beta).count(), 0);
    const listed = await readFeedback();
    assert.ok(listed.includes(alpha) && listed.includes(beta), "the feedback service lists " + listed);
    await press(beta, "Add to feedback", "Added.");
    await item(feedback, beta).waitFor();
    await page.getByRole("button", { name: "Clear feedback" }).click();
    await page.locator("#feedback").getByText("No record.").waitFor();
    assert.deepEqual(await readFeedback(), []);
    // What the server refuses stays in the fields.
    await field("topic").fill("com.example.app");
    await field("token").fill("ab".repeat(1000));
    await page.locator("#device-form").getByRole("button", { name: "Unregister", exact: true }).click();
    await page.locator("#device-said.error").getByText("expected").waitFor();
    assert.equal(await field("topic").inputValue(), "com.example.app");
    await page.locator("#device-form").evaluate((form) => form.reset());

    // A client is told the limit.
    const told = async () => {
      const client = new Client();
      await new Promise((resolve) => client.session.once("remoteSettings", resolve));
      client.session.close();
      return client.session.remoteSettings.maxConcurrentStreams;
    };
    await page.fill("#limit-form [name=limit]", "7");
    await page.click("#limit-form button");
    await page.locator("#limit-said").getByText("Set.").waitFor();
    await page.waitForSelector("#limit-form [name=limit][placeholder='7']");
    assert.equal(await told(), 7);

    // Reset brings back what was at the start.
    await page.fill("#rule-form [name=reason]", "BadTopic");
    await page.click("#rule-form button");
    await page.locator("#rules").getByText("BadTopic").waitFor();
    await page.click("#reset");
    await page.getByText("Everything is reset.").waitFor();
    await page.locator("#rules").getByText("No answer is set").waitFor();
    await devices.first().waitFor({ state: "detached" });
    await item(feedback, "dead00c0").waitFor(); // that of the start
    await page.waitForSelector("#limit-form [name=limit][placeholder='1000']");
    await page.getByText("Waiting for a push").waitFor();
    assert.equal(await told(), 1000);
    assert.deepEqual(await apns2(beta), ["accepted " + beta]);
  });

  await check("readable in light and dark", async () => {
    await curl(alpha, { aps: { alert: { title: "Looks", body: "fine" } } });
    await curl(bad, { aps: { alert: { title: "Looks", subtitle: "bad", "loc-key": "KEY", "loc-args": ["a"] }, badge: "3", sound: "bell", flag: true, "interruption-level": "loud" } });
    const client = new Client();
    await client.push(alpha, { aps: { timestamp: "x", event: "start", "content-state": { a: 1, b: null } } }, { "apns-topic": "com.example.app.push-type.liveactivity", "apns-push-type": "liveactivity" });
    await page.fill("#rule-form [name=reason]", "BadTopic");
    await page.click("#rule-form button");
    await page.locator("#rules").getByText("BadTopic").waitFor();
    await page.evaluate(() => document.querySelectorAll("details").forEach((d) => (d.open = true)));
    await settled();
    for (const [colorScheme, isBright] of [["light", true], ["dark", false]]) {
      await page.emulateMedia({ colorScheme });
      for (const show of [() => row("Looks · bad").or(row("Looks · KEY")).click(), () => row("Looks · fine").click(), () => row("content-state").click(),
        ...["answers", "connections", "setup"].map((tab) => () => page.click("#tab-" + tab))]) {
        await show();
        await frames();
        const { low, texts, bright } = await page.evaluate(lowContrast);
        assert.deepEqual(low, [], `in ${colorScheme} these texts have a low contrast`);
        assert.ok(texts > 40, `only ${texts} texts were looked at`);
        assert.ok(isBright ? bright > 0.8 : bright < 0.05, `in ${colorScheme} the page has the brightness ${bright}`);
      }
    }
    await page.emulateMedia({ colorScheme: null });
    client.session.close();
    await page.click("#tab-answers");
    await page.locator("#rules").getByRole("button").click();
    await page.locator("#rules").getByText("No answer is set").waitFor();
    await page.click("#close-panel");
  });

  await check("the program is started again", async () => {
    await page.selectOption("#rule-then", "cut", { force: true });
    await stop(local);
    await page.waitForSelector("#live[data-state=wait]");
    local = await start();
    await live();
    await page.getByText("Waiting for a push").waitFor();
    assert.deepEqual(await apns2(alpha), ["accepted " + alpha]);
    await row("Grüße").waitFor();
    assert.equal(await rows(), 1);
    assert.equal(await page.inputValue("#rule-then"), "cut", "a field of a form has changed");
  });

  await check("clear, and a narrow window", async () => {
    await page.setViewportSize({ width: 380, height: 700 });
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 380, "the page scrolls sideways");
    const [clear, more] = await Promise.all(["#clear", "#show-panel"].map((id) => page.locator(id).boundingBox()));
    assert.equal(clear.y, more.y, "the buttons are not on a line");
    await page.getByText("1 listed", { exact: true }).waitFor();
    await row("Grüße").click();
    await pane.locator(".note").waitFor();
    // The panel covers the rest, which has no focus then.
    assert.equal(await focused(), "tab-message");
    for (let i = 0; i < 20; i++) {
      await page.keyboard.press("Tab");
      assert.ok(await page.evaluate(() => document.activeElement === document.body || document.activeElement.closest("#panel")), "the focus is under the panel");
    }
    await page.keyboard.press("Escape");
    await page.waitForSelector("#panel", { state: "hidden" });
    await page.click("#clear");
    await page.getByText("Waiting for a push").waitFor();
  });

  await check("no request to another host", async () => assert.deepEqual(foreign, []));

  await context.close();
  await stop(local);
  console.log("end");
}

main().catch((err) => {
  console.log("FAIL page: " + String(err.stack).replaceAll("\n", "\\n"));
  process.exit(1);
});
