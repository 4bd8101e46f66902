// The JS SDK of Medusa against the server of MILLRACE_*. Fails at the first thing that is not as it should be.
import assert from 'node:assert/strict';
import sdk from '@medusajs/js-sdk';

const Medusa = sdk.default ?? sdk;
const { MILLRACE_URL: baseUrl, MILLRACE_TOKEN: apiKey, MILLRACE_EMAIL: email, MILLRACE_PASSWORD: password } = process.env;
const base = '/admin/workflows-executions';

// Cookies as browsers keep them, which Node's fetch does not.
let cookie = '';
let answered;
const streaming = new Promise((resolve) => (answered = resolve));
const plainFetch = globalThis.fetch;
globalThis.fetch = async (input, init = {}) => {
  const headers = new Headers(init.headers);
  if (cookie && init.credentials === 'include') headers.set('cookie', cookie);
  const answer = await plainFetch(input, { ...init, headers });
  if (answer.headers.get('content-type')?.startsWith('text/event-stream')) answered();
  const [set] = answer.headers.getSetCookie();
  if (set) cookie = /Max-Age=0/.test(set) ? '' : set.split(';')[0];
  return answer;
};

async function refused(call, status, message) {
  await assert.rejects(call, (error) => {
    assert.deepEqual([error.status, error.message], [status, message]);
    return true;
  });
}

// --- by API key: everything there is for executions --------------------------------------------------------------

const byKey = new Medusa({ baseUrl, apiKey });
const { client } = byKey;
const executions = byKey.admin.workflowExecution;
const run = (id, body) => client.fetch(`${base}/${id}/run`, { method: 'POST', body });

const { stream, abort } = await client.fetchStream(`${base}/order-intake/subscribe`);
const events = [];
const first = stream.next();
await streaming; // from here on nothing is missed

const { acknowledgement } = await run('order-intake', { input: { sku: 'A1' }, transaction_id: 'o-1' });
assert.deepEqual(acknowledgement, { transactionId: 'o-1', workflowId: 'order-intake', hasFinished: false, hasFailed: false });
const answer = { transaction_id: 'o-1', step_id: 'ship', response: { tracking: 'T9' } };
const success = () => client.fetch(`${base}/order-intake/steps/success`, { method: 'POST', body: answer });
assert.deepEqual(await success(), { success: true });

for (let next = await first; !next.done; next = await stream.next()) {
  assert.equal(JSON.parse(next.value.data).event_type, next.value.event);
  events.push(next.value.event);
  if (next.value.event === 'onFinish') break;
}
abort();
assert.deepEqual(events, [
  'onBegin', 'onStepBegin', 'onStepSuccess', 'onStepBegin', 'onStepAwaiting', 'onResume', 'onStepSuccess', 'onFinish',
]);
await refused(success(), 400, 'Cannot set step success when status is ok');

const list = await executions.list({ workflow_id: ['order-intake', 'other'], limit: 5, created_at: { $lte: new Date() } });
assert.deepEqual([list.count, list.offset, list.limit], [1, 0, 5]);
const [listed] = list.workflow_executions;
assert.deepEqual([listed.workflow_id, listed.transaction_id, listed.state], ['order-intake', 'o-1', 'done']);
const { workflow_execution: retrieved } = await executions.retrieve(listed.id);
assert.deepEqual(retrieved, listed);
assert.deepEqual(retrieved.context.data.invoke.ship.output.output, { tracking: 'T9' });
const one = (query) => client.fetch(`${base}/${listed.id}`, { query }); // its own method takes no query
const { workflow_execution: few } = await one({ fields: 'id,name' });
assert.deepEqual(few, { id: listed.id });
const { workflow_execution: more } = await one({ fields: '+run_id,-execution' });
assert.equal(`wf_exec_${more.run_id}`, more.id);
assert.equal('execution' in more, false);
const { workflow_execution: named } = await client.fetch(`${base}/order-intake/o-1`);
assert.deepEqual(named, listed);

await refused(executions.retrieve('wf_exec_x'), 404, 'WorkflowExecution with id: wf_exec_x was not found');
await refused(executions.list({ foo: 1 }), 400, "Invalid request: Unrecognized fields: 'foo'");
await refused(run('order-intake', { x: 1 }), 400, "Invalid request: Unrecognized fields: 'x'");
await refused(run('fails', {}), 500, 'An unknown error occurred.');

const finished = await client.fetchStream(`${base}/order-intake/o-1/ship/subscribe`);
const told = [];
for await (const event of finished.stream) told.push(event.event);
assert.deepEqual(told, ['onFinish']);
const none = await client.fetchStream(`${base}/nope/subscribe`);
await refused(none.stream.next(), 404, 'Workflow with id "nope" not found.');

// --- people: by JWT and by session -------------------------------------------------------------------------------

const byJwt = new Medusa({ baseUrl, auth: { type: 'jwt', jwtTokenStorageMethod: 'memory' } });
await refused(byJwt.admin.workflowExecution.list(), 401, 'Unauthorized');
await refused(byJwt.auth.login('user', 'emailpass', { email, password: 'wrong' }), 401, 'Invalid email or password');
assert.equal(typeof (await byJwt.auth.login('user', 'emailpass', { email, password })), 'string');
assert.equal((await byJwt.admin.workflowExecution.list()).count, 2);
await byJwt.auth.refresh();
assert.equal((await byJwt.admin.user.me()).user.email, email);
await byJwt.auth.logout();
await refused(byJwt.admin.workflowExecution.list(), 401, 'Unauthorized');

const bySession = new Medusa({ baseUrl, auth: { type: 'session' } });
await bySession.auth.login('user', 'emailpass', { email, password });
assert.match(cookie, /^connect\.sid=/);
assert.equal((await bySession.admin.user.me()).user.first_name, 'ada');
assert.equal((await bySession.admin.workflowExecution.list()).count, 2);
const again = await bySession.client.fetch(`${base}/fails/run`, { method: 'POST', body: {} }).catch((error) => error);
assert.equal(again.status, 500);
await bySession.auth.logout();
await refused(bySession.admin.workflowExecution.list(), 401, 'Unauthorized');
console.log('all as it should be');
