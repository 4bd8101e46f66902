// node:events.
// Names: node:events "events" 'events'
// Needs: events node/module

const {
  $Error, $Reflect, $Symbol, apply, assign, create, defineProperty, getPrototypeOf, isError, known, nodeError,
  nodeModule, once, ownKeys, settled, textOf, the, wrongArgument,
} = core;

const nodeEvents = once(() => {
  const wrongListener = (value) => wrongArgument("listener", "of type function", value);
  const CAPTURE = $Symbol.for("nodejs.rejection");
  const MONITOR = $Symbol("events.errorMonitor");
  let defaultMax = 10;

  const tableOf = (emitter) => {
    if (emitter._events === undefined || emitter._events === getPrototypeOf(emitter)?._events) emitter._events = create(null);
    return emitter._events;
  };
  const listenersOf = (emitter, name) => tableOf(emitter)[name] ?? [];

  function EventEmitter() { apply(EventEmitter.init, this, []); }
  EventEmitter.init = function init() {
    tableOf(this);
    this._maxListeners ??= undefined;
  };

  const add = (emitter, name, listener, atFront) => {
    if (typeof listener !== "function") throw wrongListener(listener);
    const table = tableOf(emitter);
    if (table.newListener !== undefined) emitter.emit("newListener", name, listener.listener ?? listener);
    const known = table[name] ?? [];
    table[name] = atFront ? [listener, ...known] : [...known, listener];
    return emitter;
  };
  const onceWrapper = (emitter, name, listener) => {
    if (typeof listener !== "function") throw wrongListener(listener);
    let fired = false;
    function wrapper(...values) {
      if (fired) return undefined;
      fired = true;
      emitter.removeListener(name, wrapper);
      return apply(listener, emitter, values);
    }
    wrapper.listener = listener;
    return wrapper;
  };

  const methods = {
    setMaxListeners(count) { this._maxListeners = count; return this; },
    getMaxListeners() { return this._maxListeners ?? defaultMax; },
    emit(name, ...values) {
      const listeners = listenersOf(this, name);
      if (name === "error") {
        for (const listener of listenersOf(this, MONITOR)) apply(listener, this, values);
        if (listeners.length === 0) {
          if (isError(values[0])) throw values[0];
          const error = nodeError($Error, "ERR_UNHANDLED_ERROR", `Unhandled error. (${textOf(values[0])})`);
          error.context = values[0];
          throw error;
        }
      }
      for (const listener of listeners) apply(listener, this, values);
      return listeners.length > 0;
    },
    addListener(name, listener) { return add(this, name, listener, false); },
    on(name, listener) { return add(this, name, listener, false); },
    prependListener(name, listener) { return add(this, name, listener, true); },
    once(name, listener) { return add(this, name, onceWrapper(this, name, listener), false); },
    prependOnceListener(name, listener) { return add(this, name, onceWrapper(this, name, listener), true); },
    removeListener(name, listener) {
      if (typeof listener !== "function") throw wrongListener(listener);
      const table = tableOf(this);
      const known = table[name];
      const at = known === undefined ? -1 : known.findLastIndex((one) => one === listener || one.listener === listener);
      if (at < 0) return this;
      const left = known.toSpliced(at, 1);
      if (left.length) table[name] = left; else delete table[name];
      if (table.removeListener !== undefined) this.emit("removeListener", name, known[at].listener ?? known[at]);
      return this;
    },
    off(name, listener) { return this.removeListener(name, listener); },
    removeAllListeners(name) {
      if (name === undefined) this._events = create(null); else delete tableOf(this)[name];
      return this;
    },
    listeners(name) { return listenersOf(this, name).map((one) => one.listener ?? one); },
    rawListeners(name) { return [...listenersOf(this, name)]; },
    listenerCount(name, listener) {
      const known = listenersOf(this, name);
      return listener === undefined ? known.length : known.filter((one) => one === listener || one.listener === listener).length;
    },
    eventNames() { return $Reflect.ownKeys(tableOf(this)); },
  };
  for (const name of ownKeys(methods)) {
    defineProperty(EventEmitter.prototype, name, { value: methods[name], writable: true, configurable: true, enumerable: true });
  }
  EventEmitter.prototype._events = undefined;
  EventEmitter.prototype._maxListeners = undefined;

  const aborted = (signal) => {
    const error = nodeError($Error, "ABORT_ERR", "The operation was aborted");
    error.name = "AbortError";
    error.cause = signal.reason;
    return error;
  };
  const listen = (emitter, name, listener) => {
    if (typeof emitter.on === "function") emitter.on(name, listener); else emitter.addEventListener(name, listener);
  };
  const unlisten = (emitter, name, listener) => {
    if (typeof emitter.removeListener === "function") emitter.removeListener(name, listener);
    else emitter.removeEventListener(name, listener);
  };

  /** A promise of the next `name`, or of an `error`. */
  const next = (emitter, name, options) => settled((resolve, reject) => {
    const signal = options?.signal;
    if (signal?.aborted) { reject(aborted(signal)); return; }
    const done = (...values) => { stop(); resolve(values); };
    const failed = (error) => { stop(); reject(error); };
    const gaveUp = () => { stop(); reject(aborted(signal)); };
    const watched = name !== "error" && typeof emitter.on === "function";
    const stop = () => {
      unlisten(emitter, name, done);
      if (watched) unlisten(emitter, "error", failed);
      signal?.removeEventListener("abort", gaveUp);
    };
    listen(emitter, name, done);
    if (watched) listen(emitter, "error", failed);
    signal?.addEventListener("abort", gaveUp, { once: true });
  });

  /** All `name` from now on, to be iterated over. */
  const on = (emitter, name, options) => {
    const waiting = [];
    const arrived = [];
    const signal = options?.signal;
    let failure;
    let ended = false;
    if (signal?.aborted) throw aborted(signal);
    const got = (...values) => { if (waiting.length) waiting.shift().resolve({ value: values, done: false }); else arrived.push(values); };
    const failed = (error) => { if (waiting.length) waiting.shift().reject(error); else failure = { error }; stop(); };
    const gaveUp = () => failed(aborted(signal));
    const stop = () => {
      ended = true;
      unlisten(emitter, name, got);
      if (name !== "error" && typeof emitter.on === "function") unlisten(emitter, "error", failed);
      signal?.removeEventListener("abort", gaveUp);
      for (const one of waiting.splice(0)) one.resolve({ value: undefined, done: true });
    };
    listen(emitter, name, got);
    if (name !== "error" && typeof emitter.on === "function") listen(emitter, "error", failed);
    signal?.addEventListener("abort", gaveUp, { once: true });
    return {
      next: () => settled((resolve, reject) => {
        if (arrived.length) resolve({ value: arrived.shift(), done: false });
        else if (failure !== undefined) { const { error } = failure; failure = undefined; reject(error); }
        else if (ended) resolve({ value: undefined, done: true });
        else waiting.push({ resolve, reject });
      }),
      return: async () => { stop(); return { value: undefined, done: true }; },
      throw: async (error) => { failed(error); },
      [$Symbol.asyncIterator]() { return this; },
    };
  };

  assign(EventEmitter, {
    EventEmitter, once: next, on, errorMonitor: MONITOR, captureRejectionSymbol: CAPTURE, captureRejections: false,
    listenerCount: (emitter, name) => emitter.listenerCount(name),
    getEventListeners: (emitter, name) => emitter.listeners(name),
    getMaxListeners: (emitter) => emitter.getMaxListeners(),
    setMaxListeners: (count, ...emitters) => {
      if (emitters.length === 0) defaultMax = count;
      for (const emitter of emitters) emitter.setMaxListeners?.(count);
    },
    addAbortListener: (signal, listener) => {
      signal.addEventListener("abort", listener, { once: true });
      return { [$Symbol.dispose ?? "dispose"]() { signal.removeEventListener("abort", listener); } };
    },
  });
  defineProperty(EventEmitter, "defaultMaxListeners", { get: () => defaultMax, set: (count) => { defaultMax = count; }, enumerable: true });
  return EventEmitter;
});
nodeModule(["node:events", "events"], () => {
  const EventEmitter = nodeEvents();
  const fields = { default: EventEmitter };
  for (const name of ownKeys(EventEmitter)) fields[name] = EventEmitter[name];
  return fields;
});
