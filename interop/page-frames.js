// Opens the page of examples/local in Chromium, and measures its frames between two lines of
// standard input: see BenchmarkPage.
//
//	node page-frames.js '{"chromium": ..., "profile": ..., "page": ...}'
"use strict";
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
  const lines = require("node:readline").createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  console.log("ready");
  await lines.next();
  await page.evaluate(() => {
    window.frames_ = [];
    const step = (at) => { window.frames_.push(at); requestAnimationFrame(step); };
    requestAnimationFrame(step);
  });
  console.log("measuring");
  await lines.next();
  const frames = await page.evaluate(() => window.frames_);
  const gaps = frames.slice(1).map((at, i) => at - frames[i]).sort((a, b) => a - b);
  await page.waitForTimeout(500);
  const elements = await page.evaluate(() => document.querySelectorAll("*").length);
  console.log(JSON.stringify({ frames: gaps.length, median: gaps[gaps.length >> 1], p99: gaps[Math.floor(gaps.length * 0.99)], longest: gaps[gaps.length - 1], elements, counts: await page.textContent("#counts"), shown: await page.textContent("#shown") }));
  await context.close();
}

main();
