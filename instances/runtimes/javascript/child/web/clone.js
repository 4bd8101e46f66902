// structuredClone: any graph of values, cycles included, as the HTML standard copies it.
// Names: structuredClone
// Needs: events

const {
  $Array, $BigInt, $Date, $Error, $Map, $Number, $Object, $Promise, $RegExp, $Set, $String, BUILT_IN, GLOBAL,
  SafeMap, SafeSet, VIEWS, define, defineProperty, domError, getOwnPropertyDescriptor, getPrototypeOf, getTime,
  isArray, isBuffer, isDate, isError, isMap, isSet, isView, known, mapForEach, needs, ownKeys, setForEach, sliced,
  textOf, the, uncurry, viewTag, web,
} = core;

const { Boolean: $Boolean } = GLOBAL;
const { WeakMap, WeakSet, WeakRef } = GLOBAL;
const toText = uncurry($Object.prototype.toString);
/** Objects that look plain but stand for something that cannot be copied. */
const UNCLONEABLE = new SafeSet(["[object Generator]", "[object AsyncGenerator]", "[object Response]", "[object Request]",
  "[object Headers]", "[object FormData]", "[object AbortSignal]", "[object AbortController]", "[object URL]",
  "[object URLSearchParams]", "[object EventTarget]", "[object Event]"]);

const cannot = (value) => {
  const name = typeof value === "function" ? value.toString() : textOf(value);
  return domError("DataCloneError", `${sliced(name, [0, 200])} could not be cloned.`);
};

define("structuredClone", function structuredClone(value, options) {
  needs(arguments, 1, "structuredClone");
  const memory = new SafeMap();
  const transferred = [...(options?.transfer ?? [])];
  for (const buffer of transferred) {
    if (!isBuffer(buffer)) throw domError("DataCloneError", "only an ArrayBuffer can be transferred");
    if (memory.has(buffer)) throw domError("DataCloneError", "an ArrayBuffer is transferred twice");
    if (buffer.detached) throw domError("DataCloneError", "the ArrayBuffer is detached");
    memory.set(buffer, undefined);
  }

  const copy = (item) => {
    if (typeof item === "symbol" || typeof item === "function") throw cannot(item);
    if (typeof item !== "object" || item === null) return item;
    const known = memory.get(item);
    if (known !== undefined) return known;
    const result = made(item);
    memory.set(item, result);
    fill(item, result);
    return result;
  };

  /** The copy of an object, empty so far. */
  const made = (item) => {
    if (isArray(item)) return new $Array(item.length);
    if (isDate(item)) return new $Date(getTime(item, []));
    if (isMap(item)) return new $Map();
    if (isSet(item)) return new $Set();
    if (isView(item)) {
      const View = VIEWS[viewTag(item, []) ?? "DataView"];
      if (item.buffer.detached) throw domError("DataCloneError", "the ArrayBuffer is detached");
      return new View(copy(item.buffer), item.byteOffset, item.length ?? item.byteLength);
    }
    if (isBuffer(item)) {
      if (item.detached) throw domError("DataCloneError", "the ArrayBuffer is detached");
      return item.slice();  // what is transferred is detached once everything was copied: a failure leaves it whole
    }
    if (isError(item)) {
      const BuiltIn = BUILT_IN[item.name] ?? $Error;
      if (item instanceof web.DOMException) return domError(item.name, item.message);
      const copied = new BuiltIn(item.message === undefined ? "" : textOf(item.message));
      if (!("message" in item)) delete copied.message;
      defineProperty(copied, "stack", { value: textOf(item.stack ?? ""), writable: true, configurable: true });
      return copied;
    }
    if (item instanceof $RegExp) return new $RegExp(item.source, item.flags);
    if (item instanceof $Boolean || item instanceof $Number || item instanceof $String || item instanceof $BigInt) {
      return $Object(item.valueOf());
    }
    if (core.BlobClass !== undefined && item instanceof core.BlobClass) return core.copyBlob(item);
    const kind = toText(item, []);
    if (kind !== "[object Object]" && UNCLONEABLE.has(kind)) throw cannot(item);
    if (item instanceof $Promise || item instanceof WeakMap || item instanceof WeakSet || item instanceof WeakRef) throw cannot(item);
    return {};
  };

  const fill = (item, result) => {
    if (isMap(item)) {
      const pairs = [];
      mapForEach(item, [(inner, key) => { pairs.push([key, inner]); }]);
      for (const [key, inner] of pairs) result.set(copy(key), copy(inner));
    } else if (isSet(item)) {
      const items = [];
      setForEach(item, [(inner) => { items.push(inner); }]);
      for (const inner of items) result.add(copy(inner));
    } else if (isError(item)) {
      if (getOwnPropertyDescriptor(item, "cause")) {
        defineProperty(result, "cause", { value: copy(item.cause), writable: true, configurable: true });
      }
    } else if (isArray(item) || isPlainCopy(result)) {
      const names = ownKeys(item);
      for (let i = 0; i < names.length; i++) {
        const name = names[i];
        if (!getOwnPropertyDescriptor(item, name)?.enumerable) continue;
        defineProperty(result, name, { value: copy(item[name]), writable: true, enumerable: true, configurable: true });
      }
    }
  };
  const isPlainCopy = (result) => getPrototypeOf(result) === $Object.prototype;

  const result = copy(value);
  for (const buffer of transferred) buffer.transfer();
  return result;
});
