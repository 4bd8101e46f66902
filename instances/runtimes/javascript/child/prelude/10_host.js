// What the rest of the prelude stands on: intrinsics taken before any user code runs, the outbox, and which run's code
// is running. User code may overwrite every global and every prototype; the books must still be right.

const {
  Object: $Object, Array: $Array, Map: $Map, Set: $Set, Promise: $Promise, Error: $Error, Date: $Date, JSON: $JSON,
  Number: $Number, String: $String, BigInt: $BigInt, RegExp: $RegExp, Math: $Math, Reflect: $Reflect,
  Function: $Function, TypeError: $TypeError, RangeError: $RangeError, Symbol: $Symbol,
  ArrayBuffer: $ArrayBuffer, Uint8Array: $Uint8Array, DataView: $DataView, isNaN: $isNaN,
} = globalThis;
const GLOBAL = globalThis;
const { stringify, parse } = $JSON;
const {
  create, defineProperty, defineProperties, freeze, getPrototypeOf, setPrototypeOf, keys: ownKeys, assign,
  getOwnPropertyDescriptor, getOwnPropertyNames,
} = $Object;
const { isArray } = $Array;
const { apply, construct } = $Reflect;
const { floor, imul } = $Math;
const uncurry = (method) => apply.bind(null, method);  // uncurry(f)(self, args)

/** A class with the methods of `Original` made its own, so that changes of the original's prototype do not matter. */
function safe(Original, Safe) {
  for (const name of $Reflect.ownKeys(Original.prototype)) {
    if (name !== "constructor") defineProperty(Safe.prototype, name, getOwnPropertyDescriptor(Original.prototype, name));
  }
  setPrototypeOf(Safe.prototype, null);
  freeze(Safe.prototype);
  return Safe;
}
const SafeMap = safe($Map, class SafeMap extends $Map {});
const SafeSet = safe($Set, class SafeSet extends $Set {});

const promiseThen = $Promise.prototype.then;
/** `promise.then` whatever user code made of it. The result is not to be handed out. */
const then = (promise, done, failed) => apply(promiseThen, promise, [done, failed]);
const settled = (executor) => new $Promise(executor);
const resolved = (value) => settled((resolve) => resolve(value));
const rejected = (error) => settled((_, reject) => reject(error));

const textOf = (value) => {
  try { return $String(value); } catch { return "(a value that cannot be made a text)"; }
};
const toWellFormed = uncurry($String.prototype.toWellFormed);
const sliced = uncurry($String.prototype.slice);
/** `text` without lone surrogates, cut after `limit` characters. */
const clean = (text, limit) => toWellFormed(text.length > limit ? sliced(text, [0, limit]) : text, []);

// --- the outbox ------------------------------------------------------------------------------------------------------

/** A set, because nothing user code does to arrays can get between it and what is put into it. */
let outbox = new SafeSet();
const MAX_OUTBOX = 20_000;

/** Say something to the worker. */
function post(message) {
  outbox.add(message);
}

/** Ask the worker for something. Code that asks for too much at once is told: the worker would end its sandbox. */
function request(message) {
  if (outbox.size >= MAX_OUTBOX / 2) throw new $RangeError("too many calls at once");
  post(message);
}

// --- whose code is running -------------------------------------------------------------------------------------------

/** Lives by number. A life is one run in this sandbox. */
const lives = new SafeMap();
/** `life`: null while the script is loaded. `step`: number of the step whose callback is running, 0 outside of steps. */
let current = { life: null, step: 0, now: 0 };
const NOWHERE = current;

/** Host calls, by number. */
const calls = new SafeMap();
let callNumber = 0;

const MAX_CALLS = 9_000;
function checkCalls(life) {
  if (life.inside + life.outside >= MAX_CALLS) throw new $RangeError("too many calls at once");
}

/**
 * Ask the worker for something, in the context that is current now. Resolves with the reply's value, rejects with its
 * error. `abort(reject)` is called when the call is to be given up.
 */
function hostCall(kind, args, onNumber) {
  const { life, step } = current;
  if (life === null) return rejected(new $Error("Disallowed operation called within global scope"));
  return callOf(life, step, kind, args, onNumber);
}

/** The same in a context of its own: of step `step` of a life, 0 for none. */
function callOf(life, step, kind, args, onNumber) {
  return settled((resolve, reject) => {
    checkCalls(life);
    const call = ++callNumber;
    request({ op: "call", r: life.number, call, kind, args, inside: step });
    calls.set(call, { life, step, resolve, reject });
    if (step) life.inside++; else life.outside++;
    if (onNumber) onNumber(call);
  });
}

/** Give a call up. Its promise stays as it is; the caller settles its own. */
function cancelCall(call) {
  const pending = calls.get(call);
  if (pending === undefined) return;
  forget(call, pending);
  post({ op: "cancel", r: pending.life.number, call });
}

function forget(call, { life, step }) {
  calls.delete(call);
  if (step) life.inside--; else life.outside--;
}

function onReply(message) {
  const pending = calls.get(message.call);
  if (pending === undefined) return;
  if (!message.more) forget(message.call, pending);
  current = { life: pending.life, step: pending.step, now: message.now };
  if (message.error !== undefined) pending.reject(errorFrom(message.error));
  else pending.resolve(decode(message));
}
