// The official TypeScript SDK against the server of MILLRACE_*. Fails at the first thing that is not as it should be.
//
// Every answer is also written to answers.ts, as a value of the type the SDK declares for it: the test has the compiler
// say whether it is one.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import Cloudflare from 'cloudflare';

const { MILLRACE_API: baseURL, MILLRACE_ACCOUNT: account_id, MILLRACE_TOKEN: apiToken } = process.env;
const client = new Cloudflare({ baseURL, apiToken });
const { workflows } = client;
const { instances, versions } = workflows;
const name = 'orders';
const account = { account_id };
const workflow = { account_id, workflow_name: name };

// --- what the answers are held to --------------------------------------------------------------------------------

const answers = [];

// The result of a call as it came, noted for the compiler. `known` replaces what differs from the type on purpose.
async function noted(module, type, call, known = (result) => result) {
  const { result, result_info: info } = await (await call.asResponse()).json();
  for (const one of Array.isArray(result) ? result : [result]) answers.push([module, type, known(one)]);
  return info ? { result, info } : result;
}

// Our outputs are JSON of any type (declared: text or number); documents are a language of their own.
const instanceResult = (result) => ({ ...result, output: '' });
const versionResult = (result) => ({ ...result, language: 'javascript' });

const instance = (id, query = {}) =>
  noted('workflows/instances/instances', 'InstanceGetResponse', instances.get(id, { ...workflow, ...query }), instanceResult);

async function until(id, holds) {
  for (let looks = 0; looks < 400; looks += 1) {
    const seen = await instances.get(id, workflow);
    if (holds(seen)) return seen;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`it did not happen to ${id}`);
}

const waits = (seen) => seen.status === 'waiting' && seen.steps.some((step) => step.type === 'waitForEvent');

async function refused(call, kind, status, code) {
  const error = await call.then(() => assert.fail('it was not refused'), (error) => error);
  assert.ok(error instanceof kind, `${error}`);
  assert.equal(error.status, status);
  assert.equal(error.errors[0].code, code);
}

async function all(pages) {
  const found = [];
  for await (const one of pages) found.push(one);
  return found;
}

// --- workflows and versions --------------------------------------------------------------------------------------

const definition = {
  spec: 'workflow/1',
  name,
  input_schema: { type: 'object', properties: { n: { type: 'integer' } } },
  nodes: [
    { id: 'a', type: 'set', config: { values: { n: '{{ trigger.n }}' } }, compensate: { type: 'noop' } },
    { id: 'nap', type: 'wait', depends_on: ['a'], config: { durationMs: 20 } },
    { id: 'go', type: 'wait_for_event', depends_on: ['nap'], config: { event: 'go' } },
    {
      id: 'approved',
      type: 'condition',
      depends_on: ['go'],
      config: { field: 'steps.go.output.ok', operator: 'equals', value: true, onFalse: 'fail' },
    },
    { id: 'each', type: 'set', for_each: '{{ [`1`, `2`] }}', depends_on: ['approved'], config: { values: { i: '{{ item }}' } } },
    { id: 'last', type: 'set', depends_on: ['approved'], when: 'trigger.n', config: { values: { n: 1 } } },
  ],
  sync_points: [{ id: 'both', name: 'Both', required: ['each', 'last'] }],
};
const settings = {
  limits: { steps: 100 },
  concurrency: { limit: 50 },
  schedules: [{ cron: '0 4 1 1 *' }],
  default_retention: { success_retention: '1 day', error_retention: 86_400_000 },
};
const deploy = () => workflows.update(name, { ...account, class_name: 'X', script_name: 'x', definition, ...settings });
const made = await noted('workflows/workflows', 'WorkflowUpdateResponse', deploy());
assert.equal((await deploy()).version_id, made.version_id);
const shown = await noted('workflows/workflows', 'WorkflowGetResponse', workflows.get(name, account));
assert.equal(shown.schedules[0].cron, '0 4 1 1 *');
const listed = await noted('workflows/workflows', 'WorkflowListResponse', workflows.list(account));
assert.equal((await all(workflows.list({ ...account, per_page: 1 }))).length, listed.info.total_count);

const version = { ...workflow };
const history = await noted('workflows/versions', 'VersionListResponse', versions.list(name, account), versionResult);
assert.equal(history.result[0].id, made.version_id);
await noted('workflows/versions', 'VersionGetResponse', versions.get(made.version_id, version), versionResult);
await noted('workflows/versions', 'VersionGraphResponse', versions.graph(made.version_id, version));

// --- one instance in every state ---------------------------------------------------------------------------------

const created = await noted(
  'workflows/instances/instances',
  'InstanceCreateResponse',
  instances.create(name, {
    ...account,
    instance_id: 'one',
    params: '{"n": 1}',
    location_hint: 'weur',
    instance_retention: { success_retention: '1 hour' },
  }),
);
assert.deepEqual([created.id, created.status], ['one', 'queued']);
await until('one', waits);
await instance('one');
for (const [step, type] of [['a-1', 'step'], ['go-1', 'waitForEvent']]) {
  const query = { ...workflow, name: step, type };
  await noted('workflows/instances/instances', 'InstanceStepResponse', instances.step('one', query));
}
const event = { ...workflow, instance_id: 'one', body: { ok: true } };
await noted('workflows/instances/events', 'EventCreateResponse', instances.events.create('go', event));
const done = await until('one', (seen) => seen.status === 'complete');
assert.deepEqual(done.output, { each: [{ i: 1 }, { i: 2 }], last: { n: 1 } });
await instance('one');
const names = (seen) => seen.steps.map((step) => step.name);
assert.deepEqual(names(await instance('one', { order: 'desc' })), names(done).reverse());
assert.deepEqual((await instance('one', { simple: 'true' })).steps, []);

await instances.create(name, { ...account, instance_id: 'refused' });
await instances.events.create('go', { ...workflow, instance_id: 'refused', body: { ok: false } });
await until('refused', (seen) => seen.status === 'errored');
assert.deepEqual((await instance('refused')).rollback, { outcome: 'complete', error: null });

const edit = (id, command) =>
  noted('workflows/instances/status', 'StatusEditResponse', instances.status.edit(id, { ...workflow, ...command }));
await instances.create(name, { ...account, instance_id: 'steered' });
await until('steered', waits);
assert.equal((await edit('steered', { status: 'pause' })).status, 'paused');
await edit('steered', { status: 'resume' });
await edit('steered', { status: 'restart' });
await until('steered', waits);
await edit('steered', { status: 'restart', from: { name: 'go', type: 'waitForEvent' } });
await until('steered', waits);
await edit('steered', { status: 'terminate', rollback: true });
await until('steered', (seen) => seen.status === 'terminated');
assert.deepEqual((await instance('steered')).steps.map((step) => step.type).slice(-2), ['rollback', 'termination']);

// --- many --------------------------------------------------------------------------------------------------------

const body = Array.from({ length: 100 }, (_, n) => ({ instance_id: `n${n}`, params: `{"n": ${n}}` }));
const batch = await noted('workflows/instances/instances', 'InstanceBulkResponse', instances.bulk(name, { ...account, body }));
assert.deepEqual(batch.map((one) => one.id), body.map((one) => one.instance_id));
assert.equal(new Set((await all(instances.list(name, { ...account, per_page: 30 }))).map((one) => one.id)).size, 103);
let found = 0;
for (let cursor; found === 0 || cursor; ) {
  const query = { ...account, per_page: 40, ...(cursor ? { cursor } : {}) };
  const page = await noted('workflows/instances/instances', 'InstanceListResponse', instances.list(name, query));
  found += page.result.length;
  cursor = page.info.cursor;
}
assert.equal(found, 103);
assert.equal((await instances.list(name, { ...account, status: 'errored' })).result.length, 1);
const minute = (offset) => new Date(Date.now() + offset * 60_000).toISOString();
assert.equal((await instances.list(name, { ...account, date_start: minute(-1), date_end: minute(1) })).result.length, 50);
assert.equal((await instances.list(name, { ...account, date_start: minute(1) })).result.length, 0);

// --- who asks ----------------------------------------------------------------------------------------------------

await noted('user/tokens/tokens', 'TokenVerifyResponse', client.user.tokens.verify());
await noted('accounts/tokens/tokens', 'TokenVerifyResponse', client.accounts.tokens.verify(account));
await noted('accounts/accounts', 'Account', client.accounts.list());
await noted('accounts/accounts', 'Account', client.accounts.get(account));
await noted('memberships/memberships', 'Membership', client.memberships.list());
const { tokens } = client.accounts;
const groups = await noted(
  'accounts/tokens/permission-groups',
  'PermissionGroupListResponse',
  tokens.permissionGroups.list(account),
);
const policies = [
  {
    effect: 'allow',
    permission_groups: [{ id: groups.find((group) => group.name === 'Workers Scripts Read').id }],
    resources: { [`com.cloudflare.api.account.${account_id}`]: '*' },
  },
];
const before = await all(tokens.list(account));
const token = await noted(
  'accounts/tokens/tokens',
  'TokenCreateResponse',
  tokens.create({ ...account, name: 'reader', policies, expires_on: minute(60) }),
);
const reader = new Cloudflare({ baseURL, apiToken: token.value });
assert.equal((await reader.workflows.get(name, account)).name, name);
await refused(reader.workflows.delete(name, account), Cloudflare.PermissionDeniedError, 403, 10000);
await noted('shared', 'Token', tokens.get(token.id, account));
await noted('shared', 'Token', tokens.update(token.id, { ...account, name: 'other', policies }));
assert.equal((await all(tokens.list({ ...account, per_page: 5 }))).length, before.length + 1);
assert.notEqual(await tokens.value.update(token.id, account), token.value);
assert.equal((await tokens.delete(token.id, account)).id, token.id);

// --- what is refused, and how ------------------------------------------------------------------------------------

await refused(workflows.get('nope', account), Cloudflare.NotFoundError, 404, 10200);
await refused(instances.get('nope', workflow), Cloudflare.NotFoundError, 404, 10400);
await refused(instances.create(name, { ...account, instance_id: 'one' }), Cloudflare.BadRequestError, 400, 10405);
await refused(instances.status.edit('one', { ...workflow, status: 'terminate' }), Cloudflare.ConflictError, 409, 10401);
const nobody = new Cloudflare({ baseURL, apiToken: 'sk_not_a_token_of_this_server_at_all' });
await refused(nobody.workflows.get(name, account), Cloudflare.AuthenticationError, 401, 10000);
const { response } = await workflows.get(name, account).withResponse();
assert.ok(response.headers.get('x-request-id'));
const gone = await noted('workflows/workflows', 'WorkflowDeleteResponse', workflows.delete(name, account));
assert.equal(gone.status, 'ok');

// --- for the compiler --------------------------------------------------------------------------------------------

// `as const` and `Frozen`: all fields a type asks for must be there with a value of its type; more may be there.
const lines = [
  'type Frozen<T> = T extends (infer E)[] ? readonly Frozen<E>[]',
  '  : T extends object ? { readonly [K in keyof T]: Frozen<T[K]> } : T;',
];
const types = new Map();
for (const [module, type] of answers) types.set(`${module} ${type}`, [module, type]);
for (const [index, [module, type]] of [...types.values()].entries()) {
  lines.push(`import type { ${type} as T${index} } from 'cloudflare/resources/${module}';`);
}
const position = [...types.keys()];
for (const [index, [module, type, value]] of answers.entries()) {
  const T = `T${position.indexOf(`${module} ${type}`)}`;
  lines.push(`const answer${index} = ${JSON.stringify(value)} as const; export const ${type}_${index}: Frozen<${T}> = answer${index};`);
}
fs.writeFileSync('answers.ts', `${lines.join('\n')}\n`);
console.log(`${answers.length} answers of ${types.size} types`);
