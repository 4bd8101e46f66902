// An EventSource follows the log of MILLRACE_INSTANCE, which waits for the event `go`, through a proxy that cuts the first
// connection. When the second one is there, the event is sent.
//
// Prints one JSON object per thing that happens: a line of the log by its id, the end, what each connection asked for.
import http from 'node:http';
import { EventSource } from 'eventsource';

const { MILLRACE_URL: url, MILLRACE_INSTANCE: path, MILLRACE_TOKEN: token } = process.env;
const headers = { authorization: `Bearer ${token}` };
const tell = (what) => console.log(JSON.stringify(what));
const { port } = new URL(url);
let connections = 0;

const proxy = http.createServer((request, response) => {
  const first = (connections += 1) === 1;
  if (connections === 2) setTimeout(() => fetch(`${url}${path}/events/go`, { method: 'POST', headers, body: '{}' }), 100);
  tell({ asked: request.headers['last-event-id'] ?? null });
  const options = { port, path: request.url, headers: { ...request.headers, host: '127.0.0.1' } };
  const upstream = http.get(options, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.on('data', (data) => {
      response.write(data);
      if (first && `${data}`.includes('event: log')) setTimeout(() => response.destroy(), 50);
    });
    answer.on('end', () => response.end());
  });
  response.on('close', () => upstream.destroy());
  upstream.on('error', () => response.destroy());
});
proxy.listen(0, '127.0.0.1', () => {
  const authorized = (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...headers } });
  const source = new EventSource(`http://127.0.0.1:${proxy.address().port}${path}/logs`, { fetch: authorized });
  source.addEventListener('log', (event) => tell({ id: Number(event.lastEventId), line: JSON.parse(event.data) }));
  source.addEventListener('end', (event) => tell({ end: JSON.parse(event.data) }));
  source.addEventListener('error', (event) => {
    if (event.code === undefined) return; // it reconnects by itself
    tell({ closed: event.code, state: source.readyState });
    process.exit();
  });
});
