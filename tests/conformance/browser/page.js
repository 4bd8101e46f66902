// What a page does with a Millrace of another origin. It tells its own server what came of it: of each thing it tried,
// the answer, or the name of the error when the browser let it see none. Then it goes on to the page `next`.
const given = await (await fetch('/given')).json();
const { api, email, password, token, stream, go } = given;
const base = '/admin/workflows-executions';
const transaction = `run-${given.name}`;
const told = {};

const attempt = async (name, work) => {
  told[name] = await Promise.resolve().then(work).catch((error) => error.name);
};
const call = async (method, path, { body, bearer, cookie = false } = {}) => {
  const headers = {};
  if (bearer) headers.authorization = `Bearer ${bearer}`;
  if (body) headers['content-type'] = 'application/json';
  const credentials = cookie ? 'include' : 'omit';
  const answer = await fetch(api + path, { method, headers, credentials, body: body && JSON.stringify(body) });
  return { status: answer.status, request: answer.headers.get('x-request-id'), body: await answer.json() };
};
const bare = (answer) => [answer.status, typeof answer.request];

// Names of the events of a fetched stream until its end; `begun` is called when it is open.
const read = async (path, begun) => {
  const answer = await fetch(api + path, { credentials: 'include' });
  await begun();
  const text = await answer.text();
  return [answer.status, ...Array.from(text.matchAll(/^event: (.*)$/gm), ([, name]) => name)];
};

// Names of the events of an EventSource until the browser gives it up, or until `last`.
const follow = (path, { withCredentials, last, seen = () => {} }) =>
  new Promise((done) => {
    const names = [];
    const source = new EventSource(api + path, { withCredentials });
    for (const name of ['connected', 'step', 'progress', 'complete']) {
      source.addEventListener(name, () => {
        names.push(name);
        seen(name);
        if (name !== last) return;
        source.close();
        done(names);
      });
    }
    source.addEventListener('error', () => {
      if (source.readyState === EventSource.CLOSED) done([...names, 'given up']);
    });
  });

// What a WebSocket says to a client that brings nothing but the browser's cookie: a message's type, or a code.
const socket = (path) =>
  new Promise((done) => {
    const opened = new WebSocket(api.replace('http', 'ws') + path, 'graphql-transport-ws');
    opened.onopen = () => opened.send(JSON.stringify({ type: 'connection_init' }));
    opened.onmessage = ({ data }) => (opened.close(), done(JSON.parse(data).type));
    opened.onclose = ({ code }) => done(code);
  });

let jwt = token;
await attempt('login', async () => {
  const { status, body } = await call('POST', '/auth/user/emailpass', { body: { email, password } });
  jwt = body.token;
  return status;
});
await attempt('wrong login', async () => bare(await call('POST', '/auth/user/emailpass', { body: { email, password: 'x' } })));
await attempt('session', async () => {
  const { status, body } = await call('POST', '/auth/session', { bearer: jwt, cookie: true });
  return [status, body.user?.actor_type];
});
await attempt('list by cookie', async () => bare(await call('GET', base, { cookie: true })));
await attempt('list by nothing', async () => bare(await call('GET', base)));
await attempt('list by token', async () => bare(await call('GET', base, { bearer: token })));
await attempt('list by JWT', async () => bare(await call('GET', base, { bearer: jwt })));
await attempt('missing', async () => bare(await call('GET', '/admin/nope', { cookie: true })));
await attempt('run', async () => {
  const body = { transaction_id: transaction };
  return bare(await call('POST', `${base}/order/run`, { cookie: true, body }));
});
// A request that needs no preflight: the browser sends it for every page, and keeps the answer.
await attempt('simple run', async () => {
  const answer = await fetch(`${api}${base}/order/run`, { method: 'POST', mode: 'no-cors', credentials: 'include' });
  return answer.type;
});
await attempt('subscribe', () =>
  read(`${base}/order/${transaction}/subscribe`, async () => {
    const body = { transaction_id: transaction, step_id: 'ship', response: {} };
    await call('POST', `${base}/order/steps/success`, { cookie: true, body });
  }),
);
await attempt('stream by nothing', () => follow(stream, { withCredentials: false }));
await attempt('stream by cookie', () => {
  let sent = false;
  const seen = (name) => {
    if (sent || name !== 'progress') return;
    sent = true;
    call('POST', go, { bearer: token, body: {} });
  };
  return follow(stream, { withCredentials: true, seen });
});
await attempt('ticket', async () => {
  const { status, body } = await call('POST', '/api/auth/stream-ticket', { bearer: jwt, body: { path: stream } });
  given.ticket ??= body.ticket;
  return status;
});
await attempt('stream by ticket', () => follow(`${stream}?ticket=${given.ticket}`, { withCredentials: false, last: 'complete' }));
await attempt('socket', () => socket('/graphql'));

await fetch('/told', { method: 'POST', body: JSON.stringify(told) });
if (given.next) location.replace(given.next);
