// Workflow bindings: `env.X` and `ctx.exports.X`. Everything is asked of the worker, within the script's account.

const INSTANCE_ID = /^[a-zA-Z0-9_][a-zA-Z0-9-_]*$/;
const ADDRESSABLE = /^[a-zA-Z0-9, */#_-]{1,271}$/;
const BATCH = 100;
const INVALID_ID = "(instance.invalid_id) Instance ID is invalid";
const CODE = /^\s*\(([a-zA-Z._-]+)\) /;
/** Codes of what may go well another time. */
const RETRYABLE = ["instance.too_many_queued", "rate_limit.workflow_instance_creation", "rate-limit.workflows_control_plane",
  "rate_limit.instance_step_output", "migration.in_progress"];
const workflowError = (message) => typed(fault("WorkflowError", message));

/** The error of a binding; under `workflows_typed_errors` it says whether another try may help. Only a code at the very
 * beginning counts: the rest may be a caller's words. */
function typed(error) {
  if (!flags.has("workflows_typed_errors") || !isError(error)) return error;
  const message = textOf(error.message);
  const found = execute(CODE, [message]);
  const retryable = found === null ? message === "too many requests" : RETRYABLE.includes(found[1]);
  return defineProperty(error, "retryable", { value: retryable, enumerable: true, configurable: true, writable: true });
}

async function ask(handle, method, args) {
  try {
    return await hostCall("workflow", { workflow: handle, method, ...args });
  } catch (error) { throw typed(error); }
}

/** Options of a create as the worker takes them. Throws for what is no valid id. */
function creation(options, invalidId = "Workflow instance has invalid id") {
  if (options === undefined || options === null) return {};
  if (!isObject(options)) throw workflowError("(body) Provided argument is invalid");
  const wanted = {};
  if (options.id !== undefined) {
    if (typeof options.id !== "string" || options.id.length > 100 || !test(INSTANCE_ID, [options.id])) {
      throw workflowError(invalidId);
    }
    wanted.id = options.id;
  }
  if (options.params !== undefined) wanted.params = encode(options.params);
  if (options.retention !== undefined) wanted.retention = options.retention;
  return wanted;
}

function checkId(id) {
  if (typeof id !== "string" || !test(ADDRESSABLE, [id])) throw workflowError(INVALID_ID);
}

class WorkflowInstance {
  #handle;

  constructor(handle, id) {
    this.#handle = handle;
    defineProperty(this, "id", { value: id, enumerable: true });
  }

  async status() { return ask(this.#handle, "status", { id: this.id }); }
  async pause() { await ask(this.#handle, "pause", { id: this.id }); }
  async resume() { await ask(this.#handle, "resume", { id: this.id }); }
  async terminate(options) { await ask(this.#handle, "terminate", { id: this.id, rollback: options?.rollback === true }); }
  async restart(options) { await ask(this.#handle, "restart", { id: this.id, from: options?.from }); }
  async delete() { await ask(this.#handle, "delete", { id: this.id }); }

  async sendEvent({ type, payload }) {
    if (typeof type !== "string" || !test(EVENT_TYPE, [type])) {
      throw workflowError("(workflow.invalid_event_type) Provided event type is invalid");
    }
    await ask(this.#handle, "sendEvent", { id: this.id, type, payload: encode(payload) });
  }

  async subscribe(options = {}) {
    if (!isObject(options) || !onlyKeys(options, ["cursor", "filter"])
      || (options.cursor !== undefined && !($Number.isInteger(options.cursor) && options.cursor >= 0))
      || (options.filter !== undefined && !(isArray(options.filter) && options.filter.every((type) => typeof type === "string")))) {
      throw new $Error("Invalid Workflow subscription options");
    }
    const handle = this.#handle;
    const { subscription } = await ask(handle, "subscribe", { id: this.id, ...options });
    let over = false;
    const close = () => {
      if (over) return;
      over = true;
      then(ask(handle, "unsubscribe", { subscription }), () => {}, () => {});
    };
    return {
      async next() {
        if (over) return { done: true, value: undefined };
        const { done, value } = await ask(handle, "next", { subscription });
        if (done) over = true;
        return { done, value };
      },
      [$Symbol.dispose ?? "dispose"]: close,
      [$Symbol.asyncIterator]() { return this; },
      return: async () => { close(); return { done: true, value: undefined }; },
    };
  }
}

class Workflow {
  #handle;

  constructor(handle) { this.#handle = handle; }

  async create(options) {
    const { id } = await ask(this.#handle, "create", { instance: creation(options) });
    return new WorkflowInstance(this.#handle, id);
  }

  async get(id) {
    checkId(id);
    await ask(this.#handle, "get", { id });
    return new WorkflowInstance(this.#handle, id);
  }

  async createBatch(wanted) {
    if (isArray(wanted)) {  // deprecated, and with words of its own
      if (wanted.length === 0) throw workflowError("batchCreate should have at least 1 instance");
      if (wanted.length > BATCH) throw workflowError(`batchCreate only supports ${BATCH} instances at a time`);
      const { created } = await ask(this.#handle, "createBatch", { instances: wanted.map((one) => creation(one)) });
      return created.map(({ id }) => new WorkflowInstance(this.#handle, id));
    }
    const instances = this.#expand(wanted);
    const { created, errors } = await ask(this.#handle, "createBatch", { instances });
    return { created: created.map(({ id }) => new WorkflowInstance(this.#handle, id)), errors };
  }

  #expand(wanted) {
    if (!isObject(wanted) || (wanted.count === undefined) === (wanted.instances === undefined)) {
      throw workflowError("(body) Provided argument is invalid");
    }
    const { count, instances, ...common } = wanted;
    if (instances !== undefined) {
      if (!isArray(instances)) throw workflowError("(body) Provided argument is invalid");
      if (instances.length === 0 || instances.length > BATCH) throw workflowError("(body) Batch size exceeds maximum allowed");
      return instances.map((one) => creation(one, INVALID_ID));
    }
    if (!$Number.isInteger(count) || count < 1) throw workflowError("(body) count must be a positive integer");
    if (count > BATCH) throw workflowError(`(body) batchCreate only supports ${BATCH} instances at a time`);
    const one = creation({ ...common, id: undefined });
    return $Array.from({ length: count }, () => one);
  }

  async deleteBatch(ids) {
    if (!isArray(ids)) throw workflowError("(body) Provided argument is invalid");
    if (ids.length === 0) throw workflowError("(body) batchDeleteInstances should have at least 1 instance");
    if (ids.length > BATCH) throw workflowError(`(body) batchDeleteInstances only supports ${BATCH} instances at a time`);
    ids.forEach(checkId);
    return ask(this.#handle, "deleteBatch", { ids });
  }
}
