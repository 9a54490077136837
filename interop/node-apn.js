// Pushes with npm's @parse/node-apn 8.1.0 over HTTP/2 to localhost, to one token after the
// other, and prints a line for each outcome.
//
//	node node-apn.js <folder> <port> key|certificate <clock-offset-in-seconds> <token>...
//
// The folder is the -dir of examples/local.
"use strict";
const [dir, port, credentials, offset, ...tokens] = process.argv.slice(2);
const now = Date.now;
Date.now = () => now() + Number(offset) * 1000;

const apn = require("@parse/node-apn");
const fs = require("fs");

const provider = new apn.Provider({
  address: "localhost",
  port: Number(port),
  ca: fs.readFileSync(dir + "/ca.pem"),
  ...(credentials === "key"
    ? { token: { key: dir + "/AuthKey_APNSTESTK1.p8", keyId: "APNSTESTK1", teamId: "APNSTESTT1" } }
    : { cert: dir + "/cert.pem", key: dir + "/key.pem" }),
});

async function main() {
  for (const token of tokens) {
    const n = new apn.Notification();
    n.topic = "com.example.app";
    n.pushType = "alert";
    n.alert = "Grüße";
    n.badge = 1;
    n.priority = 5;
    n.expiry = Math.floor(now() / 1000) + 86400;
    const { sent, failed } = await provider.send(n, token);
    for (const s of sent) {
      console.log("accepted", s.device);
    }
    for (const f of failed) {
      // After several attempts, the reason is in the message of an error.
      console.log(f.status ? "rejected" : "failed", f.status ?? "", f.response?.reason ?? f.error?.message, f.device, f.response?.timestamp ?? "");
    }
  }
  await provider.shutdown();
}

main();
