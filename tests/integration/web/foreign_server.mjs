import { createHash } from "node:crypto";
import { createServer } from "node:http";

const steps = [];

const server = createServer((request, response) => {
  if (request.url === "/steps") {
    response.writeHead(200, { "content-type": "text/plain" });
    response.write("first ");
    steps.push(response);
  } else if (request.url === "/step") {
    for (const waiting of steps.splice(0)) waiting.end("second");
    response.end("stepped");
  } else if (request.url === "/back") {
    request.pipe(response);
  } else {
    const { url, headers } = request;
    response.setHeader("set-cookie", ["a=1", "b=2"]);
    response.end(JSON.stringify({ url, node: process.version, sender: headers["x-forwarded-for"] }));
  }
});

// A frame is answered with itself, without its mask; one that closes ends the connection.
server.on("upgrade", (request, socket) => {
  const key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  const accept = createHash("sha1").update(key).digest("base64");
  const protocol = request.headers["sec-websocket-protocol"].split(",")[0].trim();
  socket.write(
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
      `Sec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: ${protocol}\r\n\r\n`,
  );
  let held = Buffer.alloc(0);
  socket.on("data", (data) => {
    held = Buffer.concat([held, data]);
    while (held.length >= 2) {
      const short = held[1] & 127;
      const start = 2 + (short === 126 ? 2 : short === 127 ? 8 : 0);
      if (held.length < start + 4) return;
      const length =
        short === 126 ? held.readUInt16BE(2) : short === 127 ? Number(held.readBigUInt64BE(2)) : short;
      const end = start + 4 + length;
      if (held.length < end) return;
      const mask = held.subarray(start, start + 4);
      const content = held.subarray(start + 4, end).map((byte, at) => byte ^ mask[at % 4]);
      const head = Buffer.from(held.subarray(0, start));
      head[1] &= 127;
      socket.write(Buffer.concat([head, content]));
      if ((head[0] & 15) === 8) socket.end();
      held = held.subarray(end);
    }
  });
});

server.listen(Number(process.argv[2]), "0.0.0.0");
