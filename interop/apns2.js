// Pushes with npm's apns2 12.2.0 over HTTP/2 to localhost, to one token after the other, and
// prints a line for each outcome. The module does not support certificates.
//
//	node apns2.js <folder> <port> key <clock-offset-in-seconds> <token>...
//
// The folder is the -dir of examples/local.
"use strict";
const [dir, port, , offset, ...tokens] = process.argv.slice(2);
const now = Date.now;
Date.now = () => now() + Number(offset) * 1000;

const { ApnsClient, ApnsError, Notification, Priority } = require("apns2");
const { Pool } = require("undici");
const fs = require("fs");

const client = new ApnsClient({
  host: "localhost",
  team: "APNSTESTT1",
  keyId: "APNSTESTK1",
  signingKey: fs.readFileSync(dir + "/AuthKey_APNSTESTK1.p8"),
  defaultTopic: "com.example.app",
});
// The module supports only port 443 and the system's certificate authorities. This pool has
// the same other options as the module's own.
client.client.destroy();
client.client = new Pool("https://localhost:" + port, {
  connections: 32,
  pipelining: 1,
  allowH2: true,
  maxConcurrentStreams: 100,
  connect: { ca: fs.readFileSync(dir + "/ca.pem") },
});

async function main() {
  for (const token of tokens) {
    const n = new Notification(token, {
      alert: "Grüße",
      badge: 1,
      priority: Priority.throttled,
      expiration: new Date(now() + 86400e3),
    });
    try {
      await client.send(n);
      console.log("accepted", token);
    } catch (err) {
      if (err instanceof ApnsError) {
        console.log("rejected", err.statusCode, err.reason, token, err.timestamp ?? "");
      } else {
        console.log("failed", token, err);
      }
    }
  }
  await client.close();
}

main();
