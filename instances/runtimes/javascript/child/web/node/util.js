// node:util: how values are shown and compared, promisify and what goes with it.
// Names: node:util "util" 'util' node:util/types
// Needs: encoding node/module

const {
  $BigInt, $Error, $Function, $Math, $Number, $Object, $Promise, $RegExp, $String, $Symbol, $Uint8Array, GLOBAL,
  INSPECT, SafeMap, VIEWS, apply, are, assign, defineProperties, defineProperty, floor, getOwnPropertyDescriptor,
  getOwnPropertyNames, getPrototypeOf, getTime, isArray, isBuffer, isDate, isError, isMap, isSet, isView,
  mapForEach, nodeError, nodeModule, once, ownKeys, rejected, resolved, s, setForEach, setPrototypeOf, settled,
  stringify, textOf, then, toWellFormed, uncurry, viewTag, web, when, wrongArgument,
} = core;

const { WeakMap, WeakSet, WeakRef, Boolean: $Boolean } = GLOBAL;

const nodeUtil = once(() => {
  // --- inspect -------------------------------------------------------------------------------------------------------

  const DEFAULTS = { depth: 2, breakLength: 80, compact: 3, maxArrayLength: 100, maxStringLength: 10000, showHidden: false,
    sorted: false, getters: false, colors: false };
  const IDENTIFIER = /^[A-Za-z_$][\w$]*$/;
  const quoted = (text) => {
    const quote = !text.includes("'") ? "'" : !text.includes('"') ? '"' : !text.includes("`") ? "`" : "'";
    const inner = text.replace(/[\x00-\x1f\x7f\\]/g, (char) => (
      { "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f", "\v": "\\v", "\\": "\\\\" }[char]
      ?? `\\x${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`));
    return quote + (quote === "'" ? inner.replaceAll("'", "\\'") : inner) + quote;
  };
  const keyText = (key) => (typeof key === "symbol" ? `[${textOf(key)}]` : IDENTIFIER.test(key) ? key : quoted(key));
  const classOf = (value) => {
    for (let proto = value; proto !== null; proto = getPrototypeOf(proto)) {
      const descriptor = getOwnPropertyDescriptor(proto, "constructor");
      if (typeof descriptor?.value === "function" && descriptor.value.name !== "") return descriptor.value.name;
    }
    return null;
  };
  const number = (value) => (value === 0 && 1 / value < 0 ? "-0" : `${value}`);

  const primitive = (value, options) => {
    switch (typeof value) {
      case "string": {
        const { maxStringLength: most } = options;
        const more = value.length > most ? `... ${value.length - most} more character${value.length - most > 1 ? "s" : ""}` : "";
        return quoted(value.slice(0, most)) + more;
      }
      case "number": return number(value);
      case "bigint": return `${value}n`;
      default: return textOf(value);
    }
  };

  const inspectValue = (value, options, level, seen) => {
    if (value === null || (typeof value !== "object" && typeof value !== "function")) return primitive(value, options);
    const custom = value[INSPECT];
    if (typeof custom === "function" && custom !== inspect) {
      const shown = apply(custom, value, [options.depth === null ? null : options.depth - level, options, inspect]);
      return typeof shown === "string" ? shown.replaceAll("\n", `\n${" ".repeat(2 * level)}`) : inspectValue(shown, options, level, seen);
    }
    if (seen.includes(value)) {
      if (!options.circular.has(value)) options.circular.set(value, options.circular.size + 1);
      return `[Circular *${options.circular.get(value)}]`;
    }
    seen.push(value);
    const text = inspectObject(value, options, level, seen);
    seen.pop();
    const reference = options.circular.get(value);
    return reference === undefined ? text : `<ref *${reference}> ${text}`;
  };

  const inspectObject = (value, options, level, seen) => {
    const name = classOf(value);
    const proto = getPrototypeOf(value);
    const nullPrototype = proto === null;
    const inner = (item) => inspectValue(item, options, level + 1, seen);
    const tag = typeof value[$Symbol.toStringTag] === "string" && value[$Symbol.toStringTag] !== name ? value[$Symbol.toStringTag] : "";
    const tagged = tag === "" ? "" : ` [${tag}]`;
    let names = ownKeys(value);
    if (options.showHidden) names = getOwnPropertyNames(value);
    const symbols = $Object.getOwnPropertySymbols(value).filter((key) => options.showHidden || getOwnPropertyDescriptor(value, key).enumerable);
    let prefix = "";
    let braces = ["{", "}"];
    const items = [];
    const most = options.maxArrayLength ?? Infinity;
    const rest = (total) => { if (total > most) items.push(`... ${total - most} more item${total - most > 1 ? "s" : ""}`); };
    const deep = options.depth !== null && level > options.depth;
    let grouped = false;
    if (!deep && (names.length || symbols.length || value.length || value.size)) options.currentDepth = level;

    if (isArray(value) || (isView(value) && viewTag(value, []) !== undefined)) {
      braces = ["[", "]"];
      const array = isArray(value);
      prefix = array ? (name === "Array" ? "" : `${name ?? "[Array: null prototype]"}(${value.length}) `) : `${name}(${value.length}) `;
      names = names.filter((key) => !/^(?:0|[1-9]\d*)$/.test(key));
      if (deep) return `[${array ? name ?? "Array" : name}]`;
      grouped = true;
      let holes = 0;
      const flush = () => { if (holes) items.push(`<${holes} empty item${holes > 1 ? "s" : ""}>`); holes = 0; };
      for (let i = 0; i < value.length && items.length < most; i++) {
        if (array && !(i in value)) { holes++; continue; }
        flush();
        items.push(inner(value[i]));
      }
      flush();
      rest(value.length);
    } else if (isMap(value)) {
      if (deep) return `[${name}]`;
      mapForEach(value, [(item, key) => { items.push(`${inner(key)} => ${inner(item)}`); }]);
      prefix = `${name}(${value.size}) `;
    } else if (isSet(value)) {
      if (deep) return `[${name}]`;
      setForEach(value, [(item) => { items.push(inner(item)); }]);
      prefix = `${name}(${value.size}) `;
    } else if (isBuffer(value)) {
      const bytes = new $Uint8Array(value);
      const hex = bytes.subarray(0, 50).toHex().replace(/(..)(?=.)/g, "$1 ");
      items.push(`[Uint8Contents]: <${hex}${bytes.length > 50 ? ` ... ${bytes.length - 50} more bytes` : ""}>`, `byteLength: ${bytes.length}`);
      prefix = `${name} `;
    } else if (isDate(value)) {
      const shown = $Number.isNaN(getTime(value, [])) ? "Invalid Date" : value.toISOString();
      if (names.length === 0) return shown;
      prefix = `${shown} `;
    } else if (value instanceof $RegExp) {
      if (names.length === 0) return textOf(value);
      prefix = `${textOf(value)} `;
    } else if (isError(value)) {
      let stack = typeof value.stack === "string" && value.stack !== "" ? value.stack : `[${textOf(value)}]`;
      if (level > 0) stack = stack.replaceAll("\n", `\n${" ".repeat(2 * level)}`);
      names = names.filter((key) => !["stack", "message", "name"].includes(key) || !stack.includes(textOf(value[key])));
      if ("cause" in value && !names.includes("cause")) items.push(`[cause]: ${inner(value.cause)}`);
      if (isArray(value.errors) && !names.includes("errors")) items.push(`[errors]: ${inner(value.errors)}`);
      if (names.length === 0 && items.length === 0) return stack;
      prefix = `${stack} `;
    } else if (typeof value === "function") {
      const kind = /^class\b/.test($Function.prototype.toString.call(value)) ? "class" : proto?.constructor?.name ?? "Function";
      const parent = kind === "class" && typeof proto === "function" && proto.name ? ` extends ${proto.name}` : "";
      const label = kind === "class" ? `[class ${value.name || "(anonymous)"}${parent}]` : `[${kind}${value.name ? `: ${value.name}` : " (anonymous)"}]`;
      if (names.length === 0) return label;
      prefix = `${label} `;
    } else if (value instanceof $Promise) {
      prefix = `${name} `;
      items.push("<unknown>");
    } else if (value instanceof WeakMap || value instanceof WeakSet) {
      return `${name} { <items unknown> }`;
    } else if (value instanceof $Number || value instanceof $String || value instanceof $Boolean) {
      const label = `[${name}: ${primitive(value.valueOf(), options)}]`;
      names = names.filter((key) => !/^\d+$/.test(key));
      if (names.length === 0) return label;
      prefix = `${label} `;
    } else {
      if (deep) return `[${nullPrototype ? `${tag || "Object"}: null prototype` : name + tagged}]`;
      if (nullPrototype) prefix = `[${tag || "Object"}: null prototype] `;
      else if (name !== "Object" || tagged !== "") prefix = `${name}${tagged} `;
    }

    const pairs = [];
    for (const key of [...names, ...symbols]) {
      const descriptor = getOwnPropertyDescriptor(value, key);
      if (descriptor === undefined) continue;
      const shown = descriptor.get !== undefined ? (descriptor.set !== undefined ? "[Getter/Setter]" : "[Getter]")
        : descriptor.set !== undefined ? "[Setter]" : inner(descriptor.value);
      pairs.push(`${descriptor.enumerable ? keyText(key) : `[${textOf(key)}]`}: ${shown}`);
    }
    if (options.sorted) pairs.sort(typeof options.sorted === "function" ? options.sorted : undefined);
    return layout([...items, ...pairs], prefix, braces, options, level, grouped && pairs.length === 0);
  };

  /** Entries on one line when they are short and few, else a line each; long arrays of short items in columns. */
  const layout = (entries, prefix, braces, options, level, array) => {
    if (entries.length === 0) return `${prefix}${braces[0]}${braces[1]}`;
    let output = entries;
    let isGrouped = false;
    if (array && entries.length > 6) {
      output = columns(entries, options);
      isGrouped = output !== entries;
    }
    const indent = " ".repeat(2 * level);
    if (!isGrouped && options.currentDepth - level < options.compact) {
      const start = output.length + 2 * level + braces[0].length + prefix.length + 10;
      const length = output.reduce((sum, entry) => sum + entry.length, 0) + output.length + start;
      if (length <= options.breakLength && !output.some((entry) => entry.includes("\n")) && !prefix.includes("\n")) {
        return `${prefix}${braces[0]} ${output.join(", ")} ${braces[1]}`;
      }
    }
    return `${prefix}${braces[0]}\n${indent}  ${output.join(`,\n${indent}  `)}\n${indent}${braces[1]}`;
  };
  const columns = (entries, options) => {
    const extra = /^\.\.\. \d+ more items?$/.test(entries[entries.length - 1]) ? 1 : 0;
    const count = entries.length - extra;
    const lengths = entries.slice(0, count).map((entry) => entry.length);
    const longest = $Math.max(...lengths) + 2;
    const total = lengths.reduce((sum, length) => sum + length + 2, 0);
    if (!(longest * 3 + 2 < options.breakLength && (total / longest > 5 || longest <= 8))) return entries;
    const bias = $Math.sqrt(longest - total / entries.length);
    const biased = $Math.max(longest - 3 - bias, 1);
    const width = $Math.min($Math.round($Math.sqrt(2.5 * biased * count) / biased),
      floor((options.breakLength - 2) / longest), 12, 15);
    if (width <= 1) return entries;
    const widths = [];
    for (let i = 0; i < width; i++) {
      let most = 0;
      for (let j = i; j < count; j += width) most = $Math.max(most, lengths[j]);
      widths.push(most + 2);
    }
    const rightAligned = entries.slice(0, count).every((entry) => /^-?[\d.]+n?$|^NaN$|^-?Infinity$/.test(entry));
    const lines = [];
    for (let i = 0; i < count; i += width) {
      const last = $Math.min(i + width, count);
      let line = "";
      for (let j = i; j < last - 1; j++) {
        const cell = `${entries[j]}, `;
        line += rightAligned ? cell.padStart(widths[j - i]) : cell.padEnd(widths[j - i]);
      }
      line += rightAligned ? entries[last - 1].padStart(widths[last - 1 - i] - 2) : entries[last - 1];
      lines.push(line);
    }
    if (extra) lines.push(entries[count]);
    return lines;
  };

  function inspect(value, options, ...old) {
    const given = typeof options === "object" && options !== null ? options
      : { showHidden: options ?? false, ...(old[0] === undefined ? {} : { depth: old[0] }) };
    const merged = { ...DEFAULTS, ...given, circular: new SafeMap(), currentDepth: 0, stylize: (text) => text };
    if (merged.depth === undefined) merged.depth = DEFAULTS.depth;
    if (merged.depth === Infinity) merged.depth = null;
    if (merged.compact === true) merged.compact = 3;
    if (merged.compact === false) merged.compact = 0;
    const text = inspectValue(value, merged, 0, []);
    if (merged.circular.size === 0 || !merged.circular.has(value) || text.startsWith("<ref")) return text;
    return `<ref *${merged.circular.get(value)}> ${text}`;
  }
  inspect.custom = INSPECT;
  inspect.defaultOptions = DEFAULTS;

  const formatWithOptions = (options, ...values) => {
    let text = "";
    let at = 0;
    if (typeof values[0] === "string") {
      at = 1;
      text = values[0].replace(/%([sdifjoOc%])/g, (whole, kind) => {
        if (kind === "%") return "%";
        if (at >= values.length) return whole;
        const value = values[at++];
        switch (kind) {
          case "s": return typeof value === "string" || typeof value === "function" ? textOf(value) : typeof value === "bigint" ? `${value}n`
            : typeof value === "object" && value !== null && typeof value.toString === "function" && value.toString !== $Object.prototype.toString
              && !isArray(value) && (isError(value) || getPrototypeOf(value)?.constructor?.prototype?.toString !== value.toString || isDate(value))
              ? textOf(value) : inspect(value, { ...options, depth: 0 });
          case "d": return typeof value === "bigint" ? `${value}n` : typeof value === "symbol" || typeof value === "object" ? number($Number(textOf(value))) : number($Number(value));
          case "i": return typeof value === "bigint" ? `${value}n` : number($Number.parseInt(textOf(value)));
          case "f": return number($Number.parseFloat(textOf(value)));
          case "j": try { return stringify(value) ?? "undefined"; } catch { return "[Circular]"; }
          case "c": return "";
          case "o": return inspect(value, { ...options, showHidden: true, depth: 4 });
          default: return inspect(value, options);
        }
      });
    }
    for (; at < values.length; at++) {
      const value = values[at];
      text += (at > 0 ? " " : "") + (typeof value === "string" ? value : inspect(value, options));
    }
    return text;
  };
  const format = (...values) => formatWithOptions({}, ...values);

  // --- comparison ----------------------------------------------------------------------------------------------------

  const sameKeys = (a, b, strict) => {
    const names = ownKeys(a);
    if (names.length !== ownKeys(b).length) return null;
    for (const name of names) if (!getOwnPropertyDescriptor(b, name)?.enumerable) return null;
    if (!strict) return names;
    const symbols = (value) => $Object.getOwnPropertySymbols(value).filter((key) => getOwnPropertyDescriptor(value, key).enumerable);
    const mine = symbols(a);
    if (mine.length !== symbols(b).length) return null;
    return mine.every((key) => getOwnPropertyDescriptor(b, key)?.enumerable) ? [...names, ...mine] : null;
  };

  const deepEqual = (a, b, strict, memory) => {
    if (a === b) return a !== 0 || !strict || $Object.is(a, b);
    if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) {
      if (strict) return $Object.is(a, b);
      if (typeof a === "object" && a !== null || typeof b === "object" && b !== null) return false;
      return a == b || (a !== a && b !== b);  // eslint-disable-line eqeqeq -- what loose equality means
    }
    if (strict && getPrototypeOf(a) !== getPrototypeOf(b)) return false;
    if (isArray(a) !== isArray(b) || toTag(a, []) !== toTag(b, [])) return false;
    if (isArray(a) && a.length !== b.length) return false;
    if (isDate(a) !== isDate(b) || (isDate(a) && !$Object.is(getTime(a, []), getTime(b, [])))) return false;
    if (a instanceof $RegExp && (a.source !== b.source || a.flags !== b.flags || a.lastIndex !== b.lastIndex)) return false;
    if (isError(a) && (a.message !== b.message || a.name !== b.name || !deepEqual(a.cause, b.cause, strict, memory))) return false;
    if (a instanceof $Number || a instanceof $String || a instanceof $Boolean || a instanceof $BigInt) {
      if (!$Object.is(a.valueOf(), b.valueOf())) return false;
    }
    if (isView(a) || isBuffer(a)) {
      const left = isView(a) ? new $Uint8Array(a.buffer, a.byteOffset, a.byteLength) : new $Uint8Array(a);
      const right = isView(b) ? new $Uint8Array(b.buffer, b.byteOffset, b.byteLength) : new $Uint8Array(b);
      if (left.length !== right.length) return false;
      if (!strict && (viewTag(a, []) ?? "").startsWith("Float")) return a.every((item, i) => item === b[i]);
      for (let i = 0; i < left.length; i++) if (left[i] !== right[i]) return false;
      return true;
    }
    if (a instanceof WeakMap || a instanceof WeakSet || a instanceof $Promise) return false;
    for (const [left, right] of memory) if (left === a) return right === b;
    const deeper = [...memory, [a, b]];
    if (isMap(a)) { if (!isMap(b) || !sameMaps(a, b, strict, deeper)) return false; }
    else if (isSet(a) && (!isSet(b) || !sameSets(a, b, strict, deeper))) return false;
    const keys = sameKeys(a, b, strict);
    return keys !== null && keys.every((key) => deepEqual(a[key], b[key], strict, deeper));
  };
  const sameSets = (a, b, strict, memory) => {
    if (a.size !== b.size) return false;
    const left = [];
    setForEach(b, [(item) => { left.push(item); }]);
    let same = true;
    setForEach(a, [(item) => {
      const at = !same ? -1 : left.findIndex((other) => deepEqual(item, other, strict, memory));
      if (at < 0) same = false; else left.splice(at, 1);
    }]);
    return same;
  };
  const sameMaps = (a, b, strict, memory) => {
    if (a.size !== b.size) return false;
    const left = [];
    mapForEach(b, [(item, key) => { left.push([key, item]); }]);
    let same = true;
    mapForEach(a, [(item, key) => {
      const at = !same ? -1 : left.findIndex(([other, value]) => deepEqual(key, other, strict, memory) && deepEqual(item, value, strict, memory));
      if (at < 0) same = false; else left.splice(at, 1);
    }]);
    return same;
  };

  // --- the rest ------------------------------------------------------------------------------------------------------

  const CUSTOM = $Symbol.for("nodejs.util.promisify.custom");
  const needsFunction = (value, name) => {
    if (typeof value !== "function") throw wrongArgument(name, "of type function", value);
  };
  const promisify = (original) => {
    needsFunction(original, "original");
    if (original[CUSTOM] !== undefined) return original[CUSTOM];
    function promised(...values) {
      return settled((resolve, reject) => {
        apply(original, this, [...values, (error, value) => { if (error) reject(error); else resolve(value); }]);
      });
    }
    return defineProperties(setPrototypeOf(promised, getPrototypeOf(original)), $Object.getOwnPropertyDescriptors(original));
  };
  promisify.custom = CUSTOM;
  const callbackify = (original) => {
    needsFunction(original, "original");
    return function called(...values) {
      const callback = values.pop();
      needsFunction(callback, "last argument");
      then(resolved(apply(original, this, values)), (value) => queueMicrotask(() => callback(null, value)),
        (error) => queueMicrotask(() => callback(error ?? nodeError($Error, "ERR_FALSY_VALUE_REJECTION", "Promise was rejected with falsy value"))));
    };
  };
  const tagIs = (name) => (value) => toTag(value ?? 0, []) === `[object ${name}]`;
  const isTyped = (name) => (value) => isView(value) && viewTag(value, []) === name;
  const types = {
    isDate: (value) => isDate(value), isMap: (value) => isMap(value), isSet: (value) => isSet(value),
    isRegExp: (value) => value instanceof $RegExp, isNativeError: (value) => isError(value),
    isPromise: (value) => value instanceof $Promise, isWeakMap: (value) => value instanceof WeakMap,
    isWeakSet: (value) => value instanceof WeakSet, isArrayBuffer: (value) => isBuffer(value),
    isAnyArrayBuffer: (value) => isBuffer(value), isSharedArrayBuffer: () => false, isArrayBufferView: (value) => isView(value),
    isTypedArray: (value) => isView(value) && viewTag(value, []) !== undefined, isDataView: (value) => isView(value) && viewTag(value, []) === undefined,
    isAsyncFunction: tagIs("AsyncFunction"), isGeneratorFunction: (value) => tagIs("GeneratorFunction")(value) || tagIs("AsyncGeneratorFunction")(value),
    isGeneratorObject: (value) => tagIs("Generator")(value) || tagIs("AsyncGenerator")(value), isMapIterator: tagIs("Map Iterator"),
    isSetIterator: tagIs("Set Iterator"), isArgumentsObject: tagIs("Arguments"), isModuleNamespaceObject: tagIs("Module"),
    isNumberObject: (value) => value instanceof $Number, isStringObject: (value) => value instanceof $String,
    isBooleanObject: (value) => value instanceof $Boolean, isBigIntObject: (value) => value instanceof $BigInt,
    isSymbolObject: (value) => value instanceof $Symbol, isProxy: () => false, isExternal: () => false,
    isBoxedPrimitive: (value) => [$Number, $String, $Boolean, $BigInt, $Symbol].some((Box) => value instanceof Box),
  };
  for (const name of ownKeys(VIEWS)) if (name !== "DataView") types[`is${name}`] = isTyped(name);

  return {
    inspect, format, formatWithOptions, promisify, callbackify, types,
    isDeepStrictEqual: (a, b) => deepEqual(a, b, true, []),
    isDeepEqual: (a, b) => deepEqual(a, b, false, []),
    deprecate: (original) => original,
    inherits: (Class, Super) => {
      defineProperty(Class, "super_", { value: Super, writable: true, configurable: true });
      setPrototypeOf(Class.prototype, Super.prototype);
    },
    stripVTControlCharacters: (text) => `${text}`.replace(/\u001b\[[0-9;]*[A-Za-z]/g, ""),
    toUSVString: (text) => toWellFormed(`${text}`, []),
    debuglog: () => assign(() => {}, { enabled: false }),
    debug: () => assign(() => {}, { enabled: false }),
    aborted: (signal) => settled((resolve) => { if (signal.aborted) resolve(); else signal.addEventListener("abort", resolve, { once: true }); }),
    isArray,
    TextEncoder: web.TextEncoder,
    TextDecoder: web.TextDecoder,
  };
});
const toTag = uncurry($Object.prototype.toString);
const { queueMicrotask } = GLOBAL;

nodeModule(["node:util", "util"], () => {
  const { isDeepEqual, ...fields } = nodeUtil();
  return fields;
});
nodeModule(["node:util/types", "util/types"], () => nodeUtil().types);

core.assign(core, { nodeUtil });
