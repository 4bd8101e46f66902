// Values on their way out and in. Most are plain JSON; what JSON lacks is tagged: {"$t": tag, "v": ...}.

const MAX_DEPTH = 500;
const DateProto = $Date.prototype;
const getTime = uncurry(DateProto.getTime);
const mapForEach = uncurry($Map.prototype.forEach);
const setForEach = uncurry($Set.prototype.forEach);
const regExpText = uncurry($RegExp.prototype.toString);
const toBase64 = (bytes, options) => apply(late.toBase64, bytes, options);
const fromBase64 = (text, options) => late.fromBase64(text, options);
const TypedArray = getPrototypeOf($Uint8Array);
const viewTag = uncurry(getOwnPropertyDescriptor(TypedArray.prototype, $Symbol.toStringTag).get);
const bufferLength = getOwnPropertyDescriptor($ArrayBuffer.prototype, "byteLength").get;
const VIEWS = create(null);

/** Intrinsics V8 gives a context only once it is there, not while its snapshot is made: see `begin`. */
const late = create(null);
function takeLate() {
  late.toBase64 = $Uint8Array.prototype.toBase64;
  late.fromBase64 = $Uint8Array.fromBase64;
  for (const name of ["Int8Array", "Uint8Array", "Uint8ClampedArray", "Int16Array", "Uint16Array", "Int32Array",
    "Uint32Array", "Float16Array", "Float32Array", "Float64Array", "BigInt64Array", "BigUint64Array", "DataView"]) {
    if (GLOBAL[name]) VIEWS[name] = GLOBAL[name];
  }
}

/** Characters and bytes of the value that is being encoded: no more than its JSON will have. */
let measured = 0;
const MAX_VALUE = 1 << 20;

/** Why a value that could be stored is not. */
class TooLarge extends $RangeError {
  constructor() { super("a value may have at most 1 MiB"); }
}

function measure(size) {
  measured += size;
  if (measured > MAX_VALUE) throw new TooLarge();
}

/** Why a value cannot be stored. */
class Uncloneable extends $Error {
  constructor(what) { super(what); defineProperty(this, "name", { value: "DataCloneError", configurable: true }); }
}

const isBrand = (method, value) => {
  try { method(value, []); return true; } catch { return false; }
};
const isDate = (value) => isBrand(getTime, value);
const isMap = (value) => value instanceof $Map && isBrand(uncurry(getOwnPropertyDescriptor($Map.prototype, "size").get), value);
const isSet = (value) => value instanceof $Set && isBrand(uncurry(getOwnPropertyDescriptor($Set.prototype, "size").get), value);
const isBuffer = (value) => { try { apply(bufferLength, value, []); return true; } catch { return false; } };
const isView = $ArrayBuffer.isView;
const isError = (value) => value instanceof $Error;

/** Whether JSON says all there is to say about a value. Only plain data without getters passes. */
function isPlain(value, depth) {
  if (value === null) return true;
  switch (typeof value) {
    case "string": measure(value.length); return true;
    case "boolean": return true;
    case "number": return value - value === 0 && (value !== 0 || 1 / value > 0);
    case "object": break;
    default: return false;
  }
  if (depth > 60) return false;
  if (isArray(value)) {
    if (getPrototypeOf(value) !== $Array.prototype || value.toJSON !== undefined) return false;
    measure(value.length);
    for (let i = 0; i < value.length; i++) if (!isPlain(value[i], depth + 1)) return false;
    return true;
  }
  const proto = getPrototypeOf(value);
  if ((proto !== $Object.prototype && proto !== null) || value.toJSON !== undefined) return false;
  const names = ownKeys(value);
  for (let i = 0; i < names.length; i++) {
    measure(names[i].length);
    if (names[i] === "$t" || !isPlain(value[names[i]], depth + 1)) return false;
  }
  return true;
}

/** A value with everything JSON lacks tagged. Throws Uncloneable. */
function tag(value, path) {
  switch (typeof value) {
    case "string": measure(value.length); return value;
    case "boolean": return value;
    case "undefined": return { $t: "u" };
    case "number":
      if (value - value === 0 && (value !== 0 || 1 / value > 0)) return value;
      return { $t: "n", v: value === 0 ? "-0" : `${value}` };
    case "bigint": return { $t: "i", v: `${value}` };
    case "function": throw new Uncloneable("a function cannot be stored");
    case "symbol": throw new Uncloneable("a symbol cannot be stored");
  }
  if (value === null) return null;
  if (path.has(value)) throw new Uncloneable("a value that contains itself cannot be stored");
  if (path.size > MAX_DEPTH) throw new Uncloneable("a value nested this deep cannot be stored");
  path.add(value);
  const tagged = tagObject(value, path);
  path.delete(value);
  return tagged;
}

function tagObject(value, path) {
  if (isArray(value)) {
    measure(value.length);
    const items = [];
    for (let i = 0; i < value.length; i++) items[i] = tag(value[i], path);
    return items;
  }
  if (isDate(value)) {
    const time = getTime(value, []);
    return { $t: "d", v: time - time === 0 ? time : null };
  }
  if (isMap(value)) {
    const pairs = [];
    mapForEach(value, [(item, key) => { pairs[pairs.length] = [tag(key, path), tag(item, path)]; }]);
    return { $t: "m", v: pairs };
  }
  if (isSet(value)) {
    const items = [];
    setForEach(value, [(item) => { items[items.length] = tag(item, path); }]);
    return { $t: "s", v: items };
  }
  if (isView(value)) {
    measure(value.byteLength);
    const name = viewTag(value, []) ?? "DataView";
    return { $t: "b", v: toBase64(new $Uint8Array(value.buffer, value.byteOffset, value.byteLength), []), k: name };
  }
  if (isBuffer(value)) measure(value.byteLength);
  if (isBuffer(value)) return { $t: "b", v: toBase64(new $Uint8Array(value), []), k: "ArrayBuffer" };
  if (isError(value)) {
    const tagged = { $t: "e", v: { name: textOf(value.name), message: textOf(value.message) } };
    if (getOwnPropertyDescriptor(value, "cause") !== undefined) tagged.c = tag(value.cause, path);
    return tagged;
  }
  if (value instanceof $RegExp) return { $t: "x", v: regExpText(value, []) };
  for (const Odd of [$Promise, WeakMap, WeakSet, WeakRef]) {
    if (value instanceof Odd) throw new Uncloneable(`a ${Odd.name} cannot be stored`);
  }
  if (value instanceof $Number || value instanceof $String || value instanceof Boolean) return tag(value.valueOf(), path);
  // A class of the platform keeps what it knows to itself: what is stored of it would be an empty object.
  const kind = value[$Symbol.toStringTag];
  if (typeof kind === "string") throw new Uncloneable(`a ${kind} cannot be stored`);
  const object = {};
  const names = ownKeys(value);
  for (let i = 0; i < names.length; i++) {
    measure(names[i].length);
    defineProperty(object, names[i], { value: tag(value[names[i]], path), enumerable: true, configurable: true });
  }
  return "$t" in value && ownKeys(object).includes("$t") ? { $t: "o", v: object } : object;
}

/** What was tagged, again as it was. Changes `value` in place. */
function untag(value) {
  if (value === null || typeof value !== "object") return value;
  if (isArray(value)) {
    for (let i = 0; i < value.length; i++) value[i] = untag(value[i]);
    return value;
  }
  switch (value.$t) {
    case undefined: return untagFields(value);
    case "u": return undefined;
    case "n": return $Number(value.v);
    case "i": return $BigInt(value.v);
    case "d": return new $Date(value.v === null ? NaN : value.v);
    case "m": {
      const map = new $Map();
      for (let i = 0; i < value.v.length; i++) map.set(untag(value.v[i][0]), untag(value.v[i][1]));
      return map;
    }
    case "s": {
      const set = new $Set();
      for (let i = 0; i < value.v.length; i++) set.add(untag(value.v[i]));
      return set;
    }
    case "b": return untagBytes(fromBase64(value.v), value.k ?? "Uint8Array");
    case "x": {
      const end = value.v.lastIndexOf("/");
      return new $RegExp(value.v.slice(1, end), value.v.slice(end + 1));
    }
    case "e": {
      const error = errorFrom(value.v);
      if ("c" in value) defineProperty(error, "cause", { value: untag(value.c), configurable: true, writable: true });
      return error;
    }
    case "o": return untagFields(value.v);
    case "r": return core.storedStream(storedPieces(value.v));
  }
  return value;
}

function untagFields(object) {
  const names = ownKeys(object);
  for (let i = 0; i < names.length; i++) object[names[i]] = untag(object[names[i]]);
  return object;
}

function untagBytes(bytes, kind) {
  if (kind === "Uint8Array") return bytes;
  if (kind === "ArrayBuffer") return bytes.buffer;
  const View = VIEWS[kind];
  return View === undefined ? bytes : new View(bytes.buffer);
}

/** `{v}` plain, `{x}` tagged, or `{}` for undefined: to be spread into a message. Throws Uncloneable, TooLarge. */
function encode(value) {
  if (value === undefined) return {};
  measured = 0;
  const plain = isPlain(value, 0);
  measured = 0;
  return plain ? { v: value } : { x: tag(value, new SafeSet()) };
}

const decode = (message) => (message.x !== undefined ? untag(message.x) : message.v);

// --- errors ----------------------------------------------------------------------------------------------------------

const BUILT_IN = create(null);
for (const name of ["Error", "TypeError", "RangeError", "SyntaxError", "ReferenceError", "EvalError", "URIError"]) {
  BUILT_IN[name] = GLOBAL[name];
}
const PLATFORM = new SafeSet(["NonRetryableError", "WorkflowFatalError", "WorkflowTimeoutError", "WorkflowInternalError",
  "NonRetryableDelayError", "WorkflowError", "AggregateError", "Terminated"]);

class NonRetryableError extends $Error {
  constructor(message, name = "NonRetryableError") {
    super(message);
    defineProperty(this, "name", { value: name, configurable: true, writable: true });
  }
}

const startsWith = uncurry($String.prototype.startsWith);
const indexOf = uncurry($String.prototype.indexOf);

/** A stack trace without the prelude's own frames. */
function stackOf(text) {
  const own = "(millrace:prelude:";
  if (indexOf(text, [own]) < 0) return text;
  let shown = "";
  for (let from = 0, to; from < text.length; from = to + 1) {
    to = indexOf(text, ["\n", from]);
    if (to < 0) to = text.length;
    const line = sliced(text, [from, to]);
    if (indexOf(line, [own]) < 0) shown += from === 0 ? line : `\n${line}`;
  }
  return shown;
}

/** Whether `name`, that of a thrown value, is one that leaves run() as it is. */
function leavesWhole(error, name) {
  if (BUILT_IN[name] !== undefined || PLATFORM.has(name)) return true;
  try { return error instanceof $Error && error[$Symbol.toStringTag] === "DOMException"; } catch { return false; }
}

/** An error, or whatever was thrown, as the worker is told. `leaving`: it leaves run(), where only known names pass. */
function told(error, leaving) {
  let name = "Error";
  let message = "";
  let stack;
  let permanent = false;
  try {
    if (error instanceof $Error || (typeof error === "object" && error !== null && "message" in error)) {
      name = textOf(error.name ?? "Error") || "Error";
      message = textOf(error.message ?? "");
      stack = error.stack === undefined ? undefined : clean(stackOf(textOf(error.stack)), 16_000);
    } else {
      message = textOf(error);
    }
    permanent = name === "NonRetryableError" || error instanceof NonRetryableError
      || startsWith(message, ["NonRetryableError"]);
  } catch {
    message = "(an error that cannot be read)";
  }
  if (leaving && !leavesWhole(error, name)) {
    message = message === "" ? name : `${name}: ${message}`;
    name = "Error";
  }
  const plain = { name: clean(name, 256), message: clean(message, 30_000) };
  if (stack !== undefined) plain.stack = stack;
  if (permanent) plain.permanent = true;
  return plain;
}

/** An error the worker told of, as code catches it. */
function errorFrom({ name, message }) {
  const BuiltIn = BUILT_IN[name];
  const error = name === "NonRetryableError" ? new NonRetryableError(message) : new (BuiltIn ?? $Error)(message);
  if (BuiltIn === undefined && name !== undefined && error.name !== name) {
    defineProperty(error, "name", { value: name, configurable: true, writable: true });
  }
  return error;
}

/** An error of the platform's own. */
function fault(name, message) {
  return errorFrom({ name, message });
}
