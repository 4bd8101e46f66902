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
    this.readers = new SafeMap(); // of the streams that attempts return, by step
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
  if (step.undo !== undefined && outcome.x?.$t === "r") step.stored = outcome;
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
/** What comes of no configuration, which most steps have. */
const DEFAULTS = freeze({ merged: freeze({ retries: DEFAULT_RETRIES, timeout: DEFAULT_TIMEOUT }), delay: undefined });

const isObject = (value) => typeof value === "object" && value !== null && !isArray(value);
const onlyKeys = (value, allowed) => ownKeys(value).every((key) => allowed.includes(key));

/** A configuration, checked and merged with the defaults; a text says what is wrong with it. */
function checkConfig(config, allowed) {
  if (config === undefined) return DEFAULTS;
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
    const kept = { callback, undo, delay: checked.delay, config: checked.merged, ctx: undefined, output: undefined, stored: undefined };
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
  const { step: { name, count }, attempt, config } = step.ctx ?? { step, attempt: 1, config: shownConfig(step.config) };
  return { step: { name, count }, attempt, config: { ...config, retries: { ...config.retries } } };
}

function onAttempt(life, message) {
  const { id, attempt } = message;
  const step = life.steps[id - 1];
  const answer = (op, rest) => post({ op, r: life.number, id, attempt, ...rest });
  step.ctx = { ...message.ctx, config: shownConfig(message.ctx.config) };
  const ctx = contextOf(step);
  perform(life, id, message, () => apply(step.callback, undefined, [ctx]), (value) => {
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
  const output = step.stored === undefined ? step.output : decode(step.stored); // a stream of its own
  const input = { ctx: contextOf(step), error: errorFrom(message.error), output, stepName: `${step.name}-${step.count}` };
  const answer = (op, rest) => post({ op, r: life.number, id, attempt, ...rest });
  perform(life, id, message, () => apply(step.undo, undefined, [input]), () => answer("undo_ok", {}),
    (error) => answer("undo_failed", { error: told(error, false) }));
}

function onDelay(life, message) {
  const { id, attempt } = message;
  const step = life.steps[id - 1];
  const input = { ctx: contextOf(step), error: errorFrom(message.error) };
  const answer = (op, rest) => post({ op, r: life.number, id, attempt, ...rest });
  perform(life, id, { ...message, entropy: "" }, () => apply(step.delay, undefined, [input]), (delay) => {
    const wait = millis(delay);
    answer("delay_ok", { delay: wait <= YEAR ? floor(wait) : "invalid" });
  }, (error) => answer("delay_failed", { error: told(error, false) }));
}

// --- streams as results ----------------------------------------------------------------------------------------------

const PIECE_BYTES = 192 * 1024; // the worker takes no more at once
const CHUNK_BYTES = 16 << 20;
/** Pieces of all runs on their way to the worker: what one answer can carry is limited. */
const MAX_KEEPING = 16;
const isStream = (value) => core.StreamClass !== undefined && value instanceof core.StreamClass;
const subarray = uncurry($Uint8Array.prototype.subarray);
const setBytes = uncurry($Uint8Array.prototype.set);

let keeping = 0;
/** Pieces that wait for their turn, in order, by numbers from `firstTurn` up to `nextTurn`. */
const turns = new SafeMap();
let firstTurn = 0;
let nextTurn = 0;

/** Have a piece of the stream an attempt returns stored. Rejects when nobody wants it any more. */
function keep(life, id, attempt, bytes) {
  return settled((resolve, reject) => {
    const free = () => { keeping--; callTurn(); };
    const send = () => {
      if (!lives.has(life.number)) return;
      keeping++;
      const call = ++callNumber;
      post({ op: "call", r: life.number, call, kind: "keep", args: { id, attempt, b64: toBase64(bytes, []) }, inside: id });
      calls.set(call, { life, step: id, dropped: free,
        resolve: () => { free(); resolve(); }, reject: (error) => { free(); reject(error); } });
      life.inside++;
    };
    turns.set(nextTurn++, send);
    callTurn();
  });
}

function callTurn() {
  while (keeping < MAX_KEEPING && firstTurn < nextTurn) {
    const send = turns.get(firstTurn);
    turns.delete(firstTurn++);
    send();
  }
}

/** Store what a stream gives; a text says why it cannot be stored. */
async function keepAll(reader, keepPiece) {
  let piece = new $Uint8Array(1024);
  let filled = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (!isView(value) && !isBuffer(value)) return "the stream has chunks that are not bytes";
    const chunk = isView(value) ? new $Uint8Array(value.buffer, value.byteOffset, value.byteLength) : new $Uint8Array(value);
    if (chunk.length > CHUNK_BYTES) return "the stream has a chunk of more than 16 MiB";
    for (let at = 0; at < chunk.length;) {
      const part = subarray(chunk, [at, at + PIECE_BYTES - filled]);
      if (filled + part.length > piece.length) {
        const larger = new $Uint8Array($Math.min(PIECE_BYTES, $Math.max(2 * piece.length, filled + part.length)));
        setBytes(larger, [subarray(piece, [0, filled])]);
        piece = larger;
      }
      setBytes(piece, [part, filled]);
      filled += part.length;
      at += part.length;
      if (filled === PIECE_BYTES) {
        filled = 0;
        await keepPiece(piece);
      }
    }
  }
  if (filled > 0) await keepPiece(subarray(piece, [0, filled]));
}

/** Tell the source of a stream that nobody reads on. */
function stopReading(reader, why) {
  try { then(resolved(reader.cancel(why)), () => {}, () => {}); } catch { /* it is the code's own */ }
}

/** Read a stream to its end and store what it gives. */
function drain(life, id, message, stream, answer) {
  const { attempt } = message;
  const invalid = (why) => {
    const error = fatal(`Step "${life.steps[id - 1].name}" returned an invalid ReadableStream output: ${why}`);
    answer("attempt_failed", { error: told(error, false), fatal: "stream" });
  };
  let reader;
  const over = () => { if (life.readers.get(id) === reader) life.readers.delete(id); };
  perform(life, id, message, async () => {
    if (stream.locked) return "the stream is locked";
    if (stream._disturbed === true) return "the stream has been read from";
    reader = stream.getReader();
    life.readers.set(id, reader);
    return keepAll(reader, (bytes) => keep(life, id, attempt, bytes));
  }, (why) => {
    over();
    if (why === undefined) {
      answer("attempt_ok", { stream: true });
      return;
    }
    if (reader !== undefined) stopReading(reader, why);
    invalid(why);
  }, (error) => {
    over();
    if (reader !== undefined) stopReading(reader, error);
    answer("attempt_failed", { error: told(error, false) });
  });
}

/** Nobody waits for an attempt any more: what it still reads is not stored. */
function onAbandon(life, { id }) {
  const reader = life.readers.get(id);
  if (reader === undefined) return;
  life.readers.delete(id);
  current = { life, step: id, now: current.now };
  stopReading(reader, fault("Error", "The attempt is over."));
}

/** What was stored of a stream, piece by piece; undefined at its end. */
function storedPieces({ name, count, attempt, run, bytes }) {
  const { life } = current;
  const stream = { name, count, attempt, run, bytes };
  let left = bytes;
  let after = 0;
  return async () => {
    if (left === 0) return undefined;
    if (!lives.has(life.number)) throw new $Error("The run this stream belongs to is over.");
    const found = await callOf(life, current.life === life ? current.step : 0, "piece", { stream, after });
    const piece = found === undefined ? undefined : fromBase64(found.b64);
    if (piece === undefined || piece.length > left) {
      left = 0;
      throw fault("WorkflowInternalError", `Stored output for ${name}-${count} is corrupt or incomplete.`);
    }
    left -= piece.length;
    after = found.seq;
    return piece;
  };
}
