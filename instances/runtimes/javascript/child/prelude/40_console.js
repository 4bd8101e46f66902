// console, as instance logs. One line per call, cut at 8,192 characters.

const LINE = 8192;
const LEVELS = { log: "info", info: "info", debug: "debug", trace: "debug", warn: "warn", error: "error", dir: "info", dirxml: "info", assert: "error" };

/** A value as a console shows it. */
function show(value, depth, seen) {
  switch (typeof value) {
    case "string": return depth === 0 ? value : stringify(value);
    case "bigint": return `${value}n`;
    case "symbol": return textOf(value);
    case "function": return `[${/^class\b/.test(textOf(value)) ? "class" : "Function"}: ${value.name || "(anonymous)"}]`;
    case "object": break;
    default: return 1 / value === -Infinity ? "-0" : `${value}`;
  }
  if (value === null) return "null";
  if (isError(value)) return stackOf(textOf(value.stack ?? value));
  if (seen.has(value)) return "[Circular]";
  if (depth > 4) return isArray(value) ? "[Array]" : "[Object]";
  seen.add(value);
  const text = showObject(value, depth, seen);
  seen.delete(value);
  return text;
}

function showObject(value, depth, seen) {
  if (isDate(value)) {
    const time = getTime(value, []);
    return time - time === 0 ? value.toISOString() : "Invalid Date";
  }
  if (value instanceof $RegExp) return textOf(value);
  const inner = [];
  const more = (total) => { if (total > 100) inner[inner.length] = `... ${total - 100} more items`; };
  if (isArray(value) || (isView(value) && viewTag(value, []) !== undefined)) {
    for (let i = 0; i < value.length && i < 100; i++) inner[i] = show(value[i], depth + 1, seen);
    more(value.length);
    const name = isArray(value) ? "" : `${viewTag(value, [])}(${value.length}) `;
    return inner.length ? `${name}[ ${inner.join(", ")} ]` : `${name}[]`;
  }
  if (isMap(value)) {
    mapForEach(value, [(item, key) => { inner[inner.length] = `${show(key, depth + 1, seen)} => ${show(item, depth + 1, seen)}`; }]);
    return `Map(${inner.length}) { ${inner.join(", ")} }`;
  }
  if (isSet(value)) {
    setForEach(value, [(item) => { inner[inner.length] = show(item, depth + 1, seen); }]);
    return `Set(${inner.length}) { ${inner.join(", ")} }`;
  }
  if (isBuffer(value)) return `ArrayBuffer { byteLength: ${apply(bufferLength, value, [])} }`;
  if (value instanceof $Promise) return "Promise { <pending> }";
  const names = ownKeys(value);
  for (let i = 0; i < names.length && i < 100; i++) {
    const descriptor = getOwnPropertyDescriptor(value, names[i]);
    const shown = descriptor && descriptor.get ? "[Getter]" : show(value[names[i]], depth + 1, seen);
    inner[i] = `${/^[A-Za-z_$][\w$]*$/.test(names[i]) ? names[i] : stringify(names[i])}: ${shown}`;
  }
  const proto = getPrototypeOf(value);
  const name = proto !== null && proto !== $Object.prototype ? proto.constructor?.name ?? "" : "";
  return `${name ? `${name} ` : ""}${inner.length ? `{ ${inner.join(", ")} }` : "{}"}`;
}

function line(values) {
  let from = 0;
  let text = "";
  if (typeof values[0] === "string" && values[0].includes("%")) {
    let next = 1;
    from = 1;
    text = values[0].replace(/%([sdifjoOc%])/g, (whole, kind) => {
      if (kind === "%") return "%";
      if (next >= values.length) return whole;
      const value = values[next++];
      from = next;
      switch (kind) {
        case "s": return typeof value === "string" ? value : show(value, 1, new SafeSet());
        case "d": return typeof value === "object" ? "NaN" : `${$Number(value)}`;
        case "i": return `${$Number.parseInt(value)}`;
        case "f": return `${$Number.parseFloat(value)}`;
        case "j": return stringify(value) ?? "undefined";
        case "c": return "";
        default: return show(value, 1, new SafeSet());
      }
    });
  }
  for (let i = from; i < values.length; i++) {
    text += (i > 0 ? " " : "") + show(values[i], 0, new SafeSet());
    if (text.length > LINE) break;
  }
  return text;
}

function log(level, values) {
  const { life, step } = current;
  if (life === null || life.lines >= MAX_LINES || life.logged > MAX_LOGGED) return;
  life.lines++;
  let text;
  try { text = line(values); } catch (error) { text = `(a value that cannot be shown: ${textOf(error)})`; }
  const message = clean(life.indent ? `${"  ".repeat(life.indent)}${text}` : text, LINE);
  life.logged += message.length;
  request({ op: "log", r: life.number, level, message, inside: step });
}
// Beyond what the worker keeps of a run's log, so that it sees that there was more.
const MAX_LINES = 10_001;
const MAX_LOGGED = 1 << 20;

const consoleObject = create($Object.prototype);
for (const name of ownKeys(LEVELS)) {
  const level = LEVELS[name];
  defineProperty(consoleObject, name, {
    value: { [name](...values) {
      if (name === "assert") {
        if (values[0]) return;
        values = ["Assertion failed:", ...values.slice(1)];
      }
      if (name === "dir") values = values.slice(0, 1);
      if (name === "trace") values = ["Trace:", ...values];
      log(level, values);
    } }[name],
    writable: true, configurable: true, enumerable: true,
  });
}
const counters = new SafeMap();
const watches = new SafeMap();
assign(consoleObject, {
  group(...values) { if (values.length) log("info", values); if (current.life) current.life.indent = $Math.min(current.life.indent + 1, 20); },
  groupCollapsed(...values) { consoleObject.group(...values); },
  groupEnd() { if (current.life) current.life.indent = $Math.max(current.life.indent - 1, 0); },
  table(value) { log("info", [value]); },
  count(label = "default") { const n = (counters.get(`${label}`) ?? 0) + 1; counters.set(`${label}`, n); log("info", [`${label}: ${n}`]); },
  countReset(label = "default") { counters.delete(`${label}`); },
  time(label = "default") { watches.set(`${label}`, nowMillis()); },
  timeLog(label = "default", ...values) { log("info", [`${label}: ${nowMillis() - (watches.get(`${label}`) ?? nowMillis())}ms`, ...values]); },
  timeEnd(label = "default") { consoleObject.timeLog(label); watches.delete(`${label}`); },
  clear() {}, profile() {}, profileEnd() {}, timeStamp() {},
});
defineProperty(GLOBAL, "console", { value: consoleObject, writable: true, configurable: true });
