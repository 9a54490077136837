// Opens the page of examples/local in Chromium, and does what the lines of standard input say:
// see BenchmarkPage.
//
//	node page-frames.js '{"chromium": ..., "profile": ..., "page": ...}'
"use strict";
const { createInterface } = require("node:readline");
const { chromium } = require("playwright-core");
const settings = JSON.parse(process.argv[2]);

async function main() {
  const context = await chromium.launchPersistentContext(settings.profile, {
    executablePath: settings.chromium,
    headless: false, // the flags say it
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
    viewport: { width: 1300, height: 800 },
  });
  const page = await context.newPage();
  await page.goto(settings.page);
  await page.waitForSelector("#live[data-state=live]");
  // A browser without a display hides no page, so the document is told that it is hidden.
  const show = async (on) => {
    await page.evaluate((on) => {
      Object.defineProperty(document, "hidden", { configurable: true, value: !on });
      document.dispatchEvent(new Event("visibilitychange"));
      window.frames_ = [];
      const frames = window.frames_;
      const step = (at) => { if (window.frames_ === frames && on) { frames.push(at); requestAnimationFrame(step); } };
      requestAnimationFrame(step);
    }, on);
    await page.waitForSelector(`#live[data-state=${on ? "live" : "wait"}]`);
    return on ? "shown" : "hidden";
  };
  const commands = {
    show: () => show(true),
    hide: () => show(false),
    async frames() {
      const frames = await page.evaluate(() => window.frames_);
      const gaps = frames.slice(1).map((at, i) => at - frames[i]).sort((a, b) => a - b);
      const text = (id) => page.textContent(id);
      return JSON.stringify({ frames: gaps.length, median: gaps[gaps.length >> 1], p99: gaps[Math.floor(gaps.length * 0.99)], longest: gaps.at(-1), counts: await text("#counts"), shown: await text("#shown"),
        elements: await page.evaluate(() => document.querySelectorAll("*").length) });
    },
  };
  for await (const line of createInterface({ input: process.stdin })) console.log(await commands[line]());
  await context.close();
}

main();
