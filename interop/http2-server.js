// A server of the HTTP/2 provider API, with Node's http2. Its answer depends on the first two
// digits of the token. It prints its port, and then each request.
//
//	node http2-server.js <folder> [<port> <stream-limit>]
//
// A limit of 0 means Node's default. If a port and a limit are given, it prints only the
// client's port and the path of each request.
//
// The folder has server.pem, server.key, and public.pem, which is the public key of the
// authentication key.
"use strict";
const http2 = require("http2");
const crypto = require("crypto");
const fs = require("fs");
const [dir, port, limit] = process.argv.slice(2);
const { NGHTTP2_REFUSED_STREAM, NGHTTP2_CANCEL } = http2.constants;

// verify checks a provider token. It returns its algorithm, key ID and team ID, or what is
// wrong with it.
function verify(authorization) {
  if (authorization === undefined) {
    return "no token";
  }
  const [head, claims, signature] = authorization.replace(/^bearer /, "").split(".");
  const good = crypto.verify(
    "sha256",
    Buffer.from(head + "." + claims),
    { key: fs.readFileSync(dir + "/public.pem"), dsaEncoding: "ieee-p1363" },
    Buffer.from(signature, "base64url"),
  );
  const { alg, kid } = JSON.parse(Buffer.from(head, "base64url"));
  const { iss, iat } = JSON.parse(Buffer.from(claims, "base64url"));
  const age = Math.floor(Date.now() / 1000) - iat;
  return good && age >= 0 && age < 3600 ? [alg, kid, iss].join(" ") : "bad token";
}

const server = http2.createSecureServer({
  cert: fs.readFileSync(dir + "/server.pem"),
  key: fs.readFileSync(dir + "/server.key"),
  settings: limit === "0" ? {} : { maxConcurrentStreams: Number(limit ?? 10) },
});
const sockets = new Map(); // by the client's port; http2 does not let its own be closed
server.on("connection", (socket) => sockets.set(socket.remotePort, socket));
server.on("sessionError", () => {});
server.on("stream", (stream, headers) => {
  let body = "";
  stream.setEncoding("utf8");
  stream.on("error", () => {});
  stream.on("data", (chunk) => (body += chunk));
  stream.on("end", () => {
    const token = headers[":path"].replace("/3/device/", "");
    const names = ["apns-topic", "apns-push-type", "apns-priority", "apns-expiration", "apns-collapse-id", "apns-id"];
    if (limit === undefined) {
      console.log(JSON.stringify([headers[":method"], token, verify(headers.authorization), ...names.map((n) => headers[n] ?? null), body]));
    } else {
      console.log(stream.session.socket.remotePort, headers[":path"]);
    }
    const id = headers["apns-id"] ?? crypto.randomUUID().toUpperCase();
    const accept = () => {
      stream.respond({ ":status": 200, "apns-id": id });
      stream.end();
    };
    const shutdown = Buffer.from('{"reason":"Shutdown"}');
    switch (token.slice(0, 2)) {
      case "00":
        accept();
        break;
      case "01": // dead
        stream.respond({ ":status": 410, "apns-id": id, "content-type": "application/json" });
        stream.end(JSON.stringify({ reason: "Unregistered", timestamp: 1700000000123 }));
        break;
      case "02": // the last one that is processed
        stream.session.goaway(0, stream.id, shutdown);
        accept();
        break;
      case "03": // the first one that is not processed; it gets no answer
        stream.session.goaway(0, stream.id - 2, shutdown);
        break;
      case "04": // the same, and the connection is closed
        stream.session.goaway(0, stream.id - 2, shutdown);
        setTimeout(() => stream.session?.destroy(), 50);
        break;
      case "05":
        stream.close(NGHTTP2_REFUSED_STREAM);
        break;
      case "06":
        stream.close(NGHTTP2_CANCEL);
        break;
      case "07": // too many requests
        stream.respond({ ":status": 429, "apns-id": id, "retry-after": "7" });
        stream.end('{"reason":"TooManyRequests"}');
        break;
      case "08": // an answer from a proxy
        stream.respond({ ":status": 403, "content-type": "text/html" });
        stream.end("<html>Forbidden</html>");
        break;
      case "09": // the connection is closed without an answer
        sockets.get(stream.session.socket.remotePort).destroy();
        break;
    }
  });
});
server.listen(Number(port ?? 0), "127.0.0.1", () => console.log(server.address().port));
