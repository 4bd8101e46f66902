// The step API: calls become messages, outcomes settle their promises.

const STEP_NAME = 256;
const CONTROL = /[\x00-\x1f]/;
const EVENT_TYPE = /^[a-zA-Z0-9_][a-zA-Z0-9_-]{0,99}$/;
const MAX_RETRIES = 10_000;
const test = uncurry($RegExp.prototype.test);
const fatal = (message) => fault("WorkflowFatalError", message);

/** One run in this sandbox. */
class Life {
  constructor({ r, seed, now }) {
    this.number = r;
    this.clock = this.startedAt = now;
    this.seed = seed;
    this.steps = [];            // by number - 1
    this.byKey = new SafeMap(); // "kind:name-count" to number
    this.counts = new SafeMap();
    this.attempts = new SafeMap(); // chance of the attempts under way, by step
    this.past = [];
    this.at = 0;                // position in the past
    this.complete = true;       // no more of the past will come
    this.active = this.outside = this.inside = 0;
    this.lines = this.logged = this.indent = 0;
    this.rollingBack = false;
    this.bytes = this.next = undefined;
    const words = wordsOf(seed);
    this.next = generator(words);
  }

  entropy() {
    const bytes = new $Uint8Array(32);
    for (let i = 0; i < 32; i++) bytes[i] = $Number(`0x${sliced(this.seed, [2 * i, 2 * i + 2])}`);
    return bytes;
  }
}

/** Enter a step called by `life`'s code: its number, and the promise of its outcome. */
function enter(life, kind, name, kept, message) {
  name = toWellFormed(name, []);
  const counter = `${kind}:${name}`;
  const count = (life.counts.get(counter) ?? 0) + 1;
  life.counts.set(counter, count);
  const step = { ...kept, kind, name, count, settle: null, fail: null, inside: 0 };
  const promise = settled((resolve, reject) => { step.settle = resolve; step.fail = reject; });
  life.steps[life.steps.length] = step;
  const id = life.steps.length;
  life.byKey.set(`${counter}-${count}`, id);
  const inside = current.life === life ? current.step : 0;
  step.inside = inside;
  message.r = life.number;
  message.id = id;
  message.name = name;
  if (inside) message.inside = inside;
  request(message);
  return promise;
}

/** Settle a step: in the context it was called in, at the time the outcome was recorded. */
function settle(life, id, outcome) {
  const step = life.steps[id - 1];
  if (step === undefined || step.settle === null) return;
  const { settle: resolve, fail: reject } = step;
  step.settle = step.fail = null;
  if (step.undo === undefined) step.callback = undefined;
  step.delay = undefined;
  if (step.inside === 0) life.clock = $Math.max(life.clock, outcome.at);
  current = { life, step: step.inside, now: outcome.at };
  if (outcome.error !== undefined) {
    reject(errorFrom(outcome.error));
    return;
  }
  let value = decode(outcome);
  if (step.kind === "wait" && value !== null && typeof value === "object") {
    value = { payload: value.payload, timestamp: new $Date(value.timestamp), type: value.type };
  }
  if (step.undo !== undefined) step.output = value;
  resolve(value);
}

/** Hand the next recorded outcome over, if its step has been called; whether there was one. */
function handOver(life) {
  if (life.at >= life.past.length) return false;
  const head = life.past[life.at];
  const id = life.byKey.get(`${head.kind}:${head.name}-${head.count}`);
  if (id !== undefined) {
    life.past[life.at++] = undefined;
    if (life.at === life.past.length) { life.past = []; life.at = 0; }
    settle(life, id, head);
    return true;
  }
  if (life.complete && life.outside === 0) {
    life.past = [];
    life.at = 0;
    post({ op: "mismatch", r: life.number, kind: head.kind, name: head.name, count: head.count });
  }
  return false;
}

// --- arguments -------------------------------------------------------------------------------------------------------

const DEFAULT_RETRIES = freeze({ limit: 5, delay: 10_000, backoff: "exponential" });
const DEFAULT_TIMEOUT = "10 minutes";

const isObject = (value) => typeof value === "object" && value !== null && !isArray(value);
const onlyKeys = (value, allowed) => ownKeys(value).every((key) => allowed.includes(key));

/** A configuration, checked and merged with the defaults; a text says what is wrong with it. */
function checkConfig(config, allowed) {
  if (config === undefined) config = {};
  if (!isObject(config)) return "it must be an object";
  if (!onlyKeys(config, allowed)) return `only ${allowed.join(", ")} are known`;
  const { retries, timeout = DEFAULT_TIMEOUT, sensitive } = config;
  const merged = { retries: { ...DEFAULT_RETRIES }, timeout };
  let delay;
  if (retries !== undefined) {
    if (!isObject(retries) || !onlyKeys(retries, ["limit", "delay", "backoff"])) return "retries must have limit, delay and, if any, backoff";
    if (typeof retries.limit !== "number" || !(retries.limit >= 0)) return "retries.limit must be a number of 0 or more";
    if (retries.limit !== Infinity && retries.limit > MAX_RETRIES) return `retries.limit must not exceed ${MAX_RETRIES}`;
    if (retries.delay === undefined) return "retries.delay is required";
    merged.retries.limit = retries.limit === Infinity ? null : floor(retries.limit);
    if (typeof retries.delay === "function" && allowed.includes("sensitive")) {
      delay = retries.delay;
      merged.retries.delay = "[dynamic]";
    } else {
      if (!(millis(retries.delay) <= YEAR)) return "retries.delay must be a duration";
      merged.retries.delay = retries.delay;
    }
    if (retries.backoff !== undefined) {
      if (!["constant", "linear", "exponential"].includes(retries.backoff)) return "retries.backoff must be constant, linear or exponential";
      merged.retries.backoff = retries.backoff;
    }
  }
  const limit = millis(timeout);
  if (!(limit >= 1 && limit <= YEAR)) return "timeout must be a duration of more than 0";
  if (sensitive !== undefined) {
    if (sensitive !== "output") return 'sensitive must be "output"';
    merged.sensitive = sensitive;
  }
  return { merged, delay };
}

function checkName(name) {
  if (typeof name !== "string" || name.length > STEP_NAME || test(CONTROL, [name])) {
    const shown = typeof name === "string" ? name : textOf(name);
    throw fatal(`Step name "${shown}" exceeds max length (${STEP_NAME} chars) or invalid characters found`);
  }
}

function checkPhase(life) {
  if (life.rollingBack) throw fatal("Cannot execute steps during rollback phase");
}

/** The rollback options of a step: `{undo, merged}`, or nothing. */
function checkRollback(name, options) {
  if (options === undefined) return {};
  if (!isObject(options)) throw fatal(`Rollback options for "${name}" must be an object`);
  const { rollback, rollbackConfig } = options;
  if (typeof rollback !== "function") throw fatal(`Rollback for "${name}" must be a function`);
  const checked = checkConfig(rollbackConfig, ["retries", "timeout"]);
  if (typeof checked === "string") throw fatal(`Rollback config for "${name}" is in a invalid format. ${checked}`);
  return { undo: rollback, rollback: checked.merged };
}

class WorkflowStep {
  #life;

  constructor(life) { this.#life = life; }

  async do(name, ...rest) {
    const life = this.#life;
    const [config, callback, options] = typeof rest[0] === "function" ? [undefined, ...rest] : rest;
    checkPhase(life);
    if (typeof callback !== "function") throw fatal(`Step "${textOf(name)}" requires a callback function`);
    checkName(name);
    const checked = checkConfig(config ?? undefined, ["retries", "timeout", "sensitive"]);
    if (typeof checked === "string") throw fatal(`Step config for "${name}" is in a invalid format. ${checked}`);
    const { undo, rollback } = checkRollback(name, options);
    const message = { op: "step", config: checked.merged };
    if (checked.delay !== undefined) message.dynamic = true;
    if (undo !== undefined) message.rollback = rollback;
    const kept = { callback, undo, delay: checked.delay, config: shownConfig(checked.merged), ctx: undefined, output: undefined };
    return enter(life, "do", name, kept, message);
  }

  async sleep(name, duration) {
    checkPhase(this.#life);
    checkName(name);
    const wait = duration < 0 && typeof duration === "number" ? 0 : millis(duration);  // the difference of two times
    if (!(wait <= YEAR)) throw fatal(`Sleep "${name}" has an invalid duration: it must be a number of ms or a duration of at most 365 days`);
    await enter(this.#life, "sleep", name, {}, { op: "sleep", duration: floor(wait) });
  }

  async sleepUntil(name, timestamp) {
    checkPhase(this.#life);
    checkName(name);
    const until = isDate(timestamp) ? getTime(timestamp, []) : timestamp;
    if (typeof until !== "number" || until - until !== 0) throw fatal(`Sleep "${name}" has an invalid timestamp: it must be a Date or a number of ms`);
    if (until < nowMillis()) throw new $Error("You can't sleep until a time in the past, time-traveler");
    if (until - nowMillis() > YEAR) throw fatal(`Sleep "${name}" is longer than 365 days`);
    await enter(this.#life, "sleep", name, {}, { op: "sleep", until: floor(until) });
  }

  async waitForEvent(name, options) {
    checkPhase(this.#life);
    checkName(name);
    if (!isObject(options)) throw fatal(`Step "${name}" requires options with a type`);
    const { type, timeout = "24 hours" } = options;
    if (typeof type !== "string" || !test(EVENT_TYPE, [type])) {
      throw fault("WorkflowError", "(workflow.invalid_event_type) Provided event type is invalid");
    }
    const limit = millis(timeout);
    if (!(limit >= 1 && limit <= YEAR)) throw fatal(`Step "${name}" has an invalid timeout: it must be a duration of at most 365 days`);
    return enter(this.#life, "wait", name, {}, { op: "wait", type, timeout: $Math.max(1, floor(limit)) });
  }
}

// --- attempts --------------------------------------------------------------------------------------------------------

/** Run `work` as part of step `id`, in a context of its own, and report by `done` and `failed` unless it was given up. */
function perform(life, id, message, work, done, failed) {
  const chanceOfAttempt = { bytes: undefined, next: undefined, entropy: () => fromBase64(message.entropy) };
  life.attempts.set(id, chanceOfAttempt);
  life.active++;
  current = { life, step: id, now: message.now };
  const over = () => {
    life.active--;
    if (life.attempts.get(id) === chanceOfAttempt) life.attempts.delete(id);
  };
  let running;
  try { running = resolved(work()); } catch (error) { running = rejected(error); }
  then(running, (value) => { over(); done(value); }, (error) => { over(); failed(error); });
}

/** A configuration as code sees it: without a delay that is a function, and with Infinity, which JSON lacks. */
function shownConfig({ retries, ...rest }) {
  const { delay, ...shown } = retries;
  if (shown.limit === null) shown.limit = Infinity;
  return { retries: delay === "[dynamic]" ? shown : { ...shown, delay }, ...rest };
}

/** A copy of the step's context: of its last attempt here, or, when it comes from the record, of its first. */
function contextOf(step) {
  const { step: { name, count }, attempt, config } = step.ctx ?? { step, attempt: 1, config: step.config };
  return { step: { name, count }, attempt, config: { ...config, retries: { ...config.retries } } };
}

function onAttempt(life, message) {
  const { id, attempt } = message;
  const step = life.steps[id - 1];
  const answer = (op, rest) => post({ op, r: life.number, id, attempt, ...rest });
  step.ctx = { ...message.ctx, config: shownConfig(message.ctx.config) };
  const ctx = contextOf(step);
  perform(life, id, message, () => step.callback(ctx), (value) => {
    if (isStream(value)) {
      drain(life, id, message, value, answer);
      return;
    }
    let encoded;
    try { encoded = encode(value); } catch (error) {
      if (error instanceof TooLarge) {
        const text = `Step ${step.name}-${step.count} output is too large. Maximum allowed size is 1MiB.`;
        answer("attempt_failed", { error: { name: "WorkflowInternalError", message: text } });
      } else {
        answer("attempt_failed", { error: told(error, false), fatal: "unserialisable" });
      }
      return;
    }
    answer("attempt_ok", encoded);
  }, (error) => answer("attempt_failed", { error: told(error, false) }));
}

function onUndo(life, message) {
  const { id, attempt } = message;
  const step = life.steps[id - 1];
  const input = { ctx: contextOf(step), error: errorFrom(message.error), output: step.output, stepName: `${step.name}-${step.count}` };
  const answer = (op, rest) => post({ op, r: life.number, id, attempt, ...rest });
  perform(life, id, message, () => step.undo(input), () => answer("undo_ok", {}),
    (error) => answer("undo_failed", { error: told(error, false) }));
}

function onDelay(life, message) {
  const { id, attempt } = message;
  const step = life.steps[id - 1];
  const input = { ctx: contextOf(step), error: errorFrom(message.error) };
  const answer = (op, rest) => post({ op, r: life.number, id, attempt, ...rest });
  perform(life, id, { ...message, entropy: "" }, () => step.delay(input), (delay) => {
    const wait = millis(delay);
    answer("delay_ok", { delay: wait <= YEAR ? floor(wait) : "invalid" });
  }, (error) => answer("delay_failed", { error: told(error, false) }));
}

// --- streams as results ----------------------------------------------------------------------------------------------

const STREAM_BYTES = 700 * 1024;
const isStream = (value) => core.StreamClass !== undefined && value instanceof core.StreamClass;

/** Read a stream to its end and store what it held. */
function drain(life, id, message, stream, answer) {
  const invalid = (why) => answer("attempt_failed", { error: told(fatal(why), false), fatal: "stream" });
  perform(life, id, message, async () => {
    if (stream.locked) return "the stream is locked";
    const reader = stream.getReader();
    const chunks = [];
    let size = 0;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      if (!isView(value) && !isBuffer(value)) return "the stream has chunks that are not bytes";
      const bytes = isView(value) ? new $Uint8Array(value.buffer, value.byteOffset, value.byteLength) : new $Uint8Array(value);
      size += bytes.length;
      if (size > STREAM_BYTES) return `the stream has more than ${STREAM_BYTES} bytes`;
      chunks[chunks.length] = new $Uint8Array(bytes);
    }
    const all = new $Uint8Array(size);
    let at = 0;
    for (let i = 0; i < chunks.length; i++) { all.set(chunks[i], at); at += chunks[i].length; }
    return { all };
  }, (result) => {
    if (typeof result === "string") invalid(`Step "${life.steps[id - 1].name}" returned an invalid ReadableStream output: ${result}`);
    else answer("attempt_ok", { x: { $t: "r", v: toBase64(result.all, []) } });
  }, (error) => answer("attempt_failed", { error: told(error, false) }));
}
