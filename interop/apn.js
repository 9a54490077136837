// Pushes with npm's apn 1.7.8, the last version that speaks the binary protocol, and reads
// the feedback service. It prints a line for each event of apn.
//
//	node apn.js <certificates-folder> <push-port> <feedback-port> <token>...
"use strict";
const apn = require("apn");
const [dir, pushPort, feedbackPort, ...tokens] = process.argv.slice(2);

const options = {
  address: "localhost",
  cert: dir + "/cert.pem",
  key: dir + "/key.pem",
  ca: [dir + "/ca.pem"],
  production: true,
};

const connection = new apn.Connection({ ...options, port: Number(pushPort) });
connection.on("transmissionError", (code, notification, device) => {
  console.log("rejected", code, device ? device.token.toString("hex") : "?");
});
connection.on("error", (err) => console.log("error", err.message));
connection.on("socketError", (err) => console.log("socket error", err.message));
// Node 20 may throw this error if apn writes after the server has closed the connection.
process.on("uncaughtException", (err) => {
  if (err.code !== "ERR_OUT_OF_RANGE") throw err;
});
for (const token of tokens) {
  const n = new apn.Notification();
  n.alert = "Grüße";
  n.badge = 1;
  n.expiry = Math.floor(Date.now() / 1000) + 86400;
  n.priority = 5;
  connection.pushNotification(n, new apn.Device(token));
}

const feedback = new apn.Feedback({ ...options, port: Number(feedbackPort), interval: 0, batchFeedback: true });
feedback.on("feedback", (devices) => {
  for (const d of devices) {
    console.log("dead", d.device.toString(), d.time);
  }
});
feedback.on("feedbackError", (err) => console.log("feedback error", err.message));
feedback.on("error", (err) => console.log("feedback error", err.message));
