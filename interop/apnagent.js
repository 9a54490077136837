// Pushes with npm's apnagent 1.1.3, and reads the feedback service. It prints a line for
// each event of apnagent. The addresses in apnagent are fixed, so this script replaces them
// in tls.connect.
//
//	node apnagent.js <certificates-folder> <push-port> <feedback-port> <token>...
"use strict";
const tls = require("tls");
const [dir, pushPort, feedbackPort, ...tokens] = process.argv.slice(2);

const connect = tls.connect;
tls.connect = (options, ...rest) =>
  connect(
    {
      ...options,
      servername: options.host,
      host: "localhost",
      port: Number(options.port === 2196 ? feedbackPort : pushPort),
    },
    ...rest,
  );

const { Agent, Feedback } = require("apnagent");

function configure(it) {
  it.set("cert file", dir + "/cert.pem");
  it.set("key file", dir + "/key.pem");
  it.set("ca", require("fs").readFileSync(dir + "/ca.pem"));
}

const agent = new Agent();
configure(agent);
agent.set("reconnect delay", "100ms");
agent.on("message:error", (err, msg) => {
  console.log("rejected", err.code, msg ? msg.meta.device.toString() : "?");
});
agent.on("gateway:error", (err) => console.log("gateway error", err.message));
agent.connect((err) => {
  if (err) throw err;
  for (const token of tokens) {
    agent.createMessage().device(token).alert("Grüße").badge(1).expires("1d").send();
  }
});

const feedback = new Feedback();
configure(feedback);
feedback.use((device, timestamp, next) => {
  console.log("dead", device.toString(), Math.floor(timestamp / 1000));
  next();
});
feedback.on("feedback:error", (err) => console.log("feedback error", err.message));
feedback.connect();
