// DOMException, events, and abortion.
// Names: DOMException Event CustomEvent ErrorEvent MessageEvent EventTarget AbortController AbortSignal
// Needs: lazy

const {
  $Error, $Number, $TypeError, SafeMap, SafeSet, apply, defineProperty, lazy, log, needs, nowMillis, once, ownKeys,
  setPrototypeOf, setTimer, the, web, webClass,
} = core;

lazy(["DOMException"], () => {
  const CODES = { IndexSizeError: 1, HierarchyRequestError: 3, WrongDocumentError: 4, InvalidCharacterError: 5,
    NoModificationAllowedError: 7, NotFoundError: 8, NotSupportedError: 9, InUseAttributeError: 10, InvalidStateError: 11,
    SyntaxError: 12, InvalidModificationError: 13, NamespaceError: 14, InvalidAccessError: 15, TypeMismatchError: 17,
    SecurityError: 18, NetworkError: 19, AbortError: 20, URLMismatchError: 21, QuotaExceededError: 22, TimeoutError: 23,
    InvalidNodeTypeError: 24, DataCloneError: 25 };
  setPrototypeOf(CODES, null);
  class DOMException extends $Error {
    #name;

    constructor(message = "", options = "Error") {
      super(`${message}`);
      const given = options !== null && typeof options === "object";
      this.#name = given ? `${options.name ?? "Error"}` : `${options}`;
      if (given && "cause" in options) defineProperty(this, "cause", { value: options.cause, configurable: true, writable: true });
      // The stack was made before the name was known.
      if (typeof this.stack === "string" && this.stack.startsWith("Error")) {
        defineProperty(this, "stack", { value: this.#name + this.stack.slice(5), configurable: true, writable: true });
      }
    }

    get name() { return this.#name; }
    get code() { return CODES[this.#name] ?? 0; }
  }
  webClass(DOMException);
  for (const name of ownKeys(CODES)) {
    const constant = name.replace(/Error$/, "").replace(/([a-z])([A-Z])/g, "$1_$2").toUpperCase();
    const key = `${{ IN_USE_ATTRIBUTE: "INUSE_ATTRIBUTE", URLMISMATCH: "URL_MISMATCH" }[constant] ?? constant}_ERR`;
    const value = { value: CODES[name], enumerable: true };
    defineProperty(DOMException, key, value);
    defineProperty(DOMException.prototype, key, value);
  }
  return { DOMException };
});

const domError = (name, message) => new web.DOMException(message, name);

/** `onAbort(signal, step)`, `offAbort(signal, step)`: for the prelude, which needs no listeners. */
lazy(["Event", "CustomEvent", "ErrorEvent", "MessageEvent", "EventTarget", "AbortController", "AbortSignal"], () => {
  let begin, finish, stopped, trust;

  class Event {
    #type; #bubbles; #cancelable; #composed;
    #target = null;
    #current = null;
    #phase = 0;
    #canceled = false;
    #propagationStopped = false;
    #stopped = false;
    #dispatching = false;
    #passive = false;
    #trusted = false;
    #timeStamp = nowMillis();

    constructor(type, options = {}) {
      needs(arguments, 1, "Event");
      options ??= {};
      if (typeof options !== "object" && typeof options !== "function") throw new $TypeError("Event: the options must be an object");
      this.#type = `${type}`;
      this.#bubbles = !!options.bubbles;
      this.#cancelable = !!options.cancelable;
      this.#composed = !!options.composed;
    }

    get type() { return this.#type; }
    get target() { return this.#target; }
    get srcElement() { return this.#target; }
    get currentTarget() { return this.#current; }
    get eventPhase() { return this.#phase; }
    get bubbles() { return this.#bubbles; }
    get cancelable() { return this.#cancelable; }
    get composed() { return this.#composed; }
    get defaultPrevented() { return this.#canceled; }
    get returnValue() { return !this.#canceled; }
    get isTrusted() { return this.#trusted; }
    get timeStamp() { return this.#timeStamp; }
    get cancelBubble() { return this.#propagationStopped; }
    set cancelBubble(value) { if (value) this.#propagationStopped = true; }
    composedPath() { return this.#current === null ? [] : [this.#current]; }
    preventDefault() { if (this.#cancelable && !this.#passive) this.#canceled = true; }
    stopPropagation() { this.#propagationStopped = true; }
    stopImmediatePropagation() { this.#propagationStopped = this.#stopped = true; }

    static {
      begin = (event, target, passive) => {
        if (passive !== undefined) { event.#passive = passive; return; }
        if (event.#dispatching) throw domError("InvalidStateError", "The event is already being dispatched");
        event.#dispatching = true;
        event.#target = event.#current = target;
        event.#phase = 2;
      };
      finish = (event) => {
        event.#dispatching = event.#propagationStopped = event.#stopped = event.#passive = false;
        event.#current = null;
        event.#phase = 0;
        return !event.#canceled;
      };
      stopped = (event) => event.#stopped;
      trust = (event) => { event.#trusted = true; return event; };
    }
  }
  for (const [name, value] of [["NONE", 0], ["CAPTURING_PHASE", 1], ["AT_TARGET", 2], ["BUBBLING_PHASE", 3]]) {
    defineProperty(Event, name, { value, enumerable: true });
    defineProperty(Event.prototype, name, { value, enumerable: true });
  }

  class CustomEvent extends Event {
    #detail;
    constructor(type, options = {}) {
      super(type, options);
      this.#detail = options?.detail ?? null;
    }
    get detail() { return this.#detail; }
  }

  class ErrorEvent extends Event {
    #options;
    constructor(type, options = {}) {
      super(type, options);
      this.#options = { ...options };
    }
    get message() { return `${this.#options.message ?? ""}`; }
    get filename() { return `${this.#options.filename ?? ""}`; }
    get lineno() { return this.#options.lineno ?? 0; }
    get colno() { return this.#options.colno ?? 0; }
    get error() { return this.#options.error; }
  }

  class MessageEvent extends Event {
    #options;
    constructor(type, options = {}) {
      super(type, options);
      this.#options = { ...options };
    }
    get data() { return this.#options.data ?? null; }
    get origin() { return `${this.#options.origin ?? ""}`; }
    get lastEventId() { return `${this.#options.lastEventId ?? ""}`; }
    get source() { return this.#options.source ?? null; }
    get ports() { return this.#options.ports ?? []; }
  }

  const report = (error) => log("error", ["Uncaught", error]);
  const captureOf = (options) => !!(typeof options === "object" && options !== null ? options.capture : options);

  class EventTarget {
    #listeners = new SafeMap();

    addEventListener(type, callback, options) {
      needs(arguments, 2, "addEventListener");
      if (callback !== null && typeof callback !== "function" && typeof callback !== "object") {
        throw new $TypeError("addEventListener: the listener must be a function or an object");
      }
      const { once = false, passive = false, signal } = typeof options === "object" && options !== null ? options : {};
      if (signal !== undefined && !(signal instanceof AbortSignal)) throw new $TypeError("addEventListener: signal is no AbortSignal");
      if (callback === null || callback === undefined || signal?.aborted) return;
      const key = `${type}`;
      const capture = captureOf(options);
      const listeners = this.#listeners.get(key) ?? [];
      if (listeners.some((one) => one.callback === callback && one.capture === capture)) return;
      const listener = { callback, capture, once: !!once, passive: !!passive, removed: false };
      this.#listeners.set(key, [...listeners, listener]);
      if (signal) onAbort(signal, () => this.removeEventListener(key, callback, { capture }));
    }

    removeEventListener(type, callback, options) {
      needs(arguments, 2, "removeEventListener");
      const key = `${type}`;
      const capture = captureOf(options);
      const listeners = this.#listeners.get(key);
      if (listeners === undefined) return;
      const left = listeners.filter((one) => {
        const keep = one.callback !== callback || one.capture !== capture;
        if (!keep) one.removed = true;
        return keep;
      });
      if (left.length) this.#listeners.set(key, left); else this.#listeners.delete(key);
    }

    dispatchEvent(event) {
      needs(arguments, 1, "dispatchEvent");
      if (!(event instanceof Event)) throw new $TypeError("dispatchEvent: not an Event");
      begin(event, this);
      for (const listener of this.#listeners.get(event.type) ?? []) {
        if (listener.removed) continue;
        if (listener.once) this.removeEventListener(event.type, listener.callback, { capture: listener.capture });
        begin(event, this, listener.passive);
        try {
          const { callback } = listener;
          if (typeof callback === "function") apply(callback, this, [event]);
          else callback.handleEvent(event);
        } catch (error) { report(error); }
        begin(event, this, false);
        if (stopped(event)) break;
      }
      return finish(event);
    }
  }

  let abort, onAbort, offAbort;
  const SECRET = {};

  class AbortSignal extends EventTarget {
    #aborted = false;
    #reason;
    #steps = new SafeSet();
    #handler = null;
    #sources = [];

    constructor(secret) {
      if (secret !== SECRET) throw new $TypeError("Illegal constructor");
      super();
    }

    static abort(reason) {
      const signal = new AbortSignal(SECRET);
      signal.#aborted = true;
      signal.#reason = reason === undefined ? domError("AbortError", "The operation was aborted") : reason;
      return signal;
    }

    static timeout(milliseconds) {
      needs(arguments, 1, "AbortSignal.timeout");
      const delay = $Number(milliseconds);
      if (!(delay >= 0 && delay <= $Number.MAX_SAFE_INTEGER)) throw new $TypeError("AbortSignal.timeout: invalid delay");
      const signal = new AbortSignal(SECRET);
      setTimer(() => abort(signal, domError("TimeoutError", "The operation was aborted due to timeout")), delay, false, []);
      return signal;
    }

    static any(signals) {
      needs(arguments, 1, "AbortSignal.any");
      const result = new AbortSignal(SECRET);
      const all = [...signals];
      for (const signal of all) if (!(signal instanceof AbortSignal)) throw new $TypeError("AbortSignal.any: not an AbortSignal");
      for (const signal of all) {
        if (signal.aborted) {
          result.#aborted = true;
          result.#reason = signal.reason;
          return result;
        }
      }
      result.#sources = all;
      for (const signal of all) onAbort(signal, () => abort(result, signal.reason));
      return result;
    }

    get aborted() { return this.#aborted; }
    get reason() { return this.#reason; }
    throwIfAborted() { if (this.#aborted) throw this.#reason; }
    get onabort() { return this.#handler; }
    set onabort(handler) {
      if (this.#handler !== null) this.removeEventListener("abort", this.#handler);
      this.#handler = typeof handler === "function" ? handler : null;
      if (this.#handler !== null) this.addEventListener("abort", this.#handler);
    }

    static {
      abort = (signal, reason) => {
        if (signal.#aborted) return;
        signal.#aborted = true;
        signal.#reason = reason === undefined ? domError("AbortError", "The operation was aborted") : reason;
        const steps = signal.#steps;
        signal.#steps = new SafeSet();
        for (const step of steps) {
          try { step(); } catch (error) { report(error); }
        }
        signal.dispatchEvent(trust(new Event("abort")));
      };
      onAbort = (signal, step) => { if (signal.#aborted) step(); else signal.#steps.add(step); };
      offAbort = (signal, step) => { signal.#steps.delete(step); };
    }
  }

  class AbortController {
    #signal = new AbortSignal(SECRET);
    get signal() { return this.#signal; }
    abort(reason) { abort(this.#signal, reason); }
  }
  for (const Class of [Event, CustomEvent, ErrorEvent, MessageEvent, EventTarget, AbortSignal, AbortController]) webClass(Class);
  web.onAbort = onAbort;
  web.offAbort = offAbort;
  return { Event, CustomEvent, ErrorEvent, MessageEvent, EventTarget, AbortController, AbortSignal };
});

core.assign(core, { domError });
