// Runs: they begin, hear of outcomes and are forgotten.

function frozenCopy(value) {
  return value === undefined ? undefined : freeze(value);
}

function onStart(message) {
  const life = new Life(message);
  lives.set(life.number, life);
  current = { life, step: 0, now: message.now };
  const { payload, timestamp, instanceId, workflowName, schedule } = message.event;
  const finish = (message) => {
    if (!lives.has(life.number)) return;
    post(message);
  };
  let running;
  try {
    const Class = exported[message.cls];
    if (typeof Class !== "function") throw fault("Error", `The script exports no class ${message.cls}`);
    const ctx = { waitUntil(promise) { then(resolved(promise), () => {}, () => {}); }, passThroughOnException() {},
      exports: classExports, props: {} };
    const workflow = new Class(ctx, env);
    if (typeof workflow.run !== "function") throw fault("Error", `${message.cls} has no method run`);
    const event = { payload: decode(payload), timestamp: new $Date(timestamp), instanceId, workflowName };
    if (schedule !== undefined) event.schedule = schedule;
    running = resolved(workflow.run(event, new WorkflowStep(life)));
  } catch (error) { running = rejected(error); }
  then(running, (value) => {
    let encoded;
    try { encoded = encode(value); } catch (error) {
      finish({ op: "throw", r: life.number, error: told(fatal(`The value returned by run is not serialisable: ${textOf(error.message)}`), true), fatal: "unserialisable" });
      return;
    }
    finish({ op: "return", r: life.number, ...encoded });
  }, (error) => finish({ op: "throw", r: life.number, error: told(error, true) }));
}

const HANDLERS = {
  module: onModule,
  part: onPart,
  load: onLoad,
  start: onStart,
  past(message, life) {
    for (let i = 0; i < message.outcomes.length; i++) life.past[life.past.length] = message.outcomes[i];
    life.complete = message.last;
  },
  attempt: (message, life) => onAttempt(life, message),
  undo: (message, life) => onUndo(life, message),
  delay: (message, life) => onDelay(life, message),
  outcome: (message, life) => settle(life, message.id, message),
  abandon() {},
  reply: onReply,
  rollback(message, life) { life.rollingBack = true; },
  drop(message, life) {
    lives.delete(life.number);
    for (const [call, pending] of calls) if (pending.life === life) calls.delete(call);
  },
};
setPrototypeOf(HANDLERS, null);

/** The life whose past may have something to hand over. */
let served = null;
/** Lives the frame has touched, for the answer's `state`. */
let touched = new SafeSet();

const box = {
  /** A message of the worker. What it sets off runs until nothing moves, then the host asks for `more`. */
  set i(text) {
    const message = parse(text);
    const life = message.r === undefined ? null : lives.get(message.r) ?? null;
    if (message.r !== undefined && life === null && message.op !== "start") return;
    current = life === null ? NOWHERE : { life, step: 0, now: message.now ?? life.clock };
    try {
      HANDLERS[message.op](message, life);
    } catch (error) {  // V8 must not see an exception leave a setter of the host's
      if (message.r === undefined) post({ op: "load_failed", error: told(error, true) });
      else post({ op: "throw", r: message.r, error: told(error, true) });
    }
    served = message.r === undefined ? null : lives.get(message.r) ?? null;
    if (served !== null) touched.add(served);
  },

  /** Hand one recorded outcome over; 1 when there was one, so that the host lets it settle and asks again. */
  get more() { return served !== null && handOver(served) ? 1 : 0; },

  /** Everything to say, as JSON. */
  get o() {
    const state = {};
    for (const life of touched) state[life.number] = [life.active, life.outside, life.inside];
    touched = new SafeSet();
    const out = outbox;
    outbox = [];
    current = NOWHERE;
    served = null;
    return stringify({ state, out });
  },
};
for (const name of ["WebAssembly", "SharedArrayBuffer", "Atomics"]) delete GLOBAL[name];
box;
