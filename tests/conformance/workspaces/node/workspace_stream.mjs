// An EventSource with the listeners of the API's quick reference follows MILLRACE_STREAM, an execution that waits for an
// event, through a proxy that cuts the first connection behind the first step. When the second one is there, the event
// is sent (MILLRACE_GO). It authenticates as browsers do: by a cookie, with no header of its own.
//
// Prints one JSON object per thing that happens.
import http from 'node:http';
import { EventSource } from 'eventsource';

const { MILLRACE_URL: url, MILLRACE_STREAM: path, MILLRACE_GO: go, MILLRACE_TOKEN: token, MILLRACE_COOKIE: cookie } = process.env;
const tell = (what) => console.log(JSON.stringify(what));
const { port } = new URL(url);
let connections = 0;

const proxy = http.createServer((request, response) => {
  const first = (connections += 1) === 1;
  if (connections === 2) {
    const headers = { authorization: `Bearer ${token}` };
    setTimeout(() => fetch(`${url}${go}`, { method: 'POST', headers, body: '{}' }), 100);
  }
  tell({ asked: request.headers['last-event-id'] ?? null });
  const options = { port, path: request.url, headers: { ...request.headers, host: '127.0.0.1', cookie } };
  const upstream = http.get(options, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.on('data', (data) => {
      response.write(data);
      if (first && `${data}`.includes('event: progress')) setTimeout(() => response.destroy(), 50);
    });
    answer.on('end', () => response.end());
  });
  response.on('close', () => upstream.destroy());
  upstream.on('error', () => response.destroy());
});
proxy.listen(0, '127.0.0.1', () => {
  const eventSource = new EventSource(`http://127.0.0.1:${proxy.address().port}${path}`);
  for (const name of ['connected', 'step', 'progress', 'complete']) {
    eventSource.addEventListener(name, (e) => tell({ name, data: JSON.parse(e.data) }));
  }
  eventSource.addEventListener('error', (e) => {
    if (e.data !== undefined) tell({ name: 'error', data: JSON.parse(e.data) });
    else if (e.code !== undefined) {
      tell({ closed: e.code, state: eventSource.readyState });
      process.exit();
    }
  });
});
