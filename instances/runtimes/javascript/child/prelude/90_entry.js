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
      if (error instanceof TooLarge) {
        const text = "The output of the instance is too large. Maximum allowed size is 1MiB.";
        finish({ op: "throw", r: life.number, error: { name: "WorkflowInternalError", message: text } });
        return;
      }
      finish({ op: "throw", r: life.number, error: told(fatal(`The value returned by run is not serialisable: ${textOf(error.message)}`), true), fatal: "unserialisable" });
      return;
    }
    finish({ op: "return", r: life.number, ...encoded });
  }, (error) => finish({ op: "throw", r: life.number, error: told(error, true) }));
}

/** Take the types out of a TypeScript module, leaving its lines where they are. */
function onStrip({ name, text }) {
  try {
    const { code } = GLOBAL.Sucrase.transform(text, { transforms: ["typescript"], disableESTransforms: true, filePath: name });
    post({ op: "stripped", module: name, text: code });
  } catch (error) {
    const { line, column } = error.loc ?? {};
    const message = textOf(error.message).replace(/^Error transforming .*?: /, "").replace(/ \(\d+:\d+\)$/, "");
    post({ op: "load_failed", error: { name: "SyntaxError", message: clean(message, 2000) }, module: name, line, column });
  }
}

const HANDLERS = {
  module: onModule,
  strip: onStrip,
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
  abandon: (message, life) => onAbandon(life, message),
  reply: onReply,
  rollback(message, life) { life.rollingBack = true; },
  drop(message, life) {
    lives.delete(life.number);
    for (const [call, pending] of calls) {
      if (pending.life !== life) continue;
      calls.delete(call);
      if (pending.dropped !== undefined) pending.dropped();
    }
  },
};
setPrototypeOf(HANDLERS, null);

/** The life whose past may have something to hand over. */
let served = null;
/** Lives the frame has touched, for the answer's `state`. */
let touched = new SafeSet();

/**
 * Let what has been set off run until nothing moves. Only V8 can, when its call has come to an end, unless it was told
 * how in the making of the snapshot (`snapshot.py` writes this line anew).
 */
const checkpoint = undefined;

const box = {
  /**
   * A message of the worker. What it sets off runs until nothing moves, then the first recorded outcome is handed over
   * and so on, if there is a checkpoint; else the host asks for `more`.
   */
  set i(text) {
    let message;
    try {
      message = parse(text);
      const life = message.r === undefined ? null : lives.get(message.r) ?? null;
      if (message.r !== undefined && life === null && message.op !== "start") return;
      current = life === null ? NOWHERE : { life, step: 0, now: message.now ?? life.clock };
      HANDLERS[message.op](message, life);
    } catch (error) {
      failed(message, error);
    }
    served = message === undefined || message.r === undefined ? null : lives.get(message.r) ?? null;
    if (served !== null) touched.add(served);
    if (checkpoint === undefined) return;
    try {
      do checkpoint(); while (served !== null && handOver(served));
    } catch { /* as `more` */ }
  },

  /** Hand one recorded outcome over; 1 when there was one, so that the host lets it settle and asks again. */
  get more() {
    try {
      return served !== null && handOver(served) ? 1 : 0;
    } catch {
      return 0;
    }
  },

  /** Everything to say, as JSON. */
  get o() {
    try {
      const state = create(null);
      setForEach(touched, [(life) => { state[life.number] = [life.active, life.outside, life.inside]; }]);
      touched = new SafeSet();
      const out = outbox;
      outbox = new SafeSet();
      current = NOWHERE;
      served = null;
      return wellFormed(untampered(() => {
        let text = "";
        setForEach(out, [(message) => { text += text === "" ? stringify(message) : `,${stringify(message)}`; }]);
        return `{"state":${stringify(state)},"out":[${text}]}`;
      }));
    } catch {
      return BROKEN;
    }
  },
};

/** No answer: the worker ends a sandbox that says this. Its code has broken what even a prelude stands on. */
const BROKEN = "{}";

function failed(message, error) {
  try {
    const told_ = told(error, true);
    if (message === undefined || message.r === undefined) post({ op: "load_failed", error: told_ });
    else post({ op: "throw", r: message.r, error: told_ });
  } catch {
    outbox = new SafeSet();
  }
}

/** What `make` gives while no `toJSON` of the code's own has a say in what JSON is. */
function untampered(make) {
  if ($Object.prototype.toJSON === undefined && $Array.prototype.toJSON === undefined) return make();
  const hooks = [];
  for (const Class of [$Object, $Array]) {
    const hook = getOwnPropertyDescriptor(Class.prototype, "toJSON");
    if (hook === undefined) continue;
    hooks[hooks.length] = [Class, hook];
    delete Class.prototype.toJSON;
  }
  const made = make();
  for (let i = 0; i < hooks.length; i++) defineProperty(hooks[i][0].prototype, "toJSON", hooks[i][1]);
  return made;
}

const ESCAPE = /\\(?:u([dD][89a-fA-F][0-9a-fA-F]{2})|[^])/g;

/** JSON without lone surrogates, which no database and no other language takes: they become U+FFFD. */
function wellFormed(json) {
  if (indexOf(json, ["\\ud"]) < 0) return json;
  let text = "";
  let from = 0;
  let found;
  ESCAPE.lastIndex = 0;
  while ((found = execute(ESCAPE, [json])) !== null) {
    if (found[1] === undefined) continue;
    text += `${sliced(json, [from, found.index])}\ufffd`;
    from = ESCAPE.lastIndex;
  }
  return text + sliced(json, [from]);
}

/** Called once there is a context, before any other code: the box, from which no exception may ever leave. (V8 ends its
 * process when one does.) */
function begin() {
  takeLate();
  for (const name of ["WebAssembly", "SharedArrayBuffer", "Atomics"]) delete GLOBAL[name];
  return box;
}
