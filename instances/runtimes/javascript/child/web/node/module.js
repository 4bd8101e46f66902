// How `node:` modules are offered.
// Needs: lazy

const {
  $Symbol, $TypeError, GLOBAL, defineProperty, hasFlag, its, namespace, nodeModules, once, s, script, textOf, the,
  when, whenLoaded,
} = core;

const INSPECT = $Symbol.for("nodejs.util.inspect.custom");

const nodeError = (Base, code, message) => {
  const error = new Base(message);
  error.code = code;
  defineProperty(error, "name", { value: error.name, configurable: true, writable: true });
  return error;
};

/** What was given instead of what was wanted, as Node says it. */
const received = (value) => {
  if (value === null || value === undefined) return `${value}`;
  if (typeof value === "function") return `function ${value.name}`;
  if (typeof value === "object") return value.constructor?.name ? `an instance of ${value.constructor.name}` : "an object";
  return `type ${typeof value} (${typeof value === "string" ? `'${value}'` : textOf(value)})`;
};
const wrongArgument = (name, expected, value) => nodeError($TypeError, "ERR_INVALID_ARG_TYPE",
  `The "${name}" argument must be ${expected}. Received ${received(value)}`);

/** What a `node:` module exports: its fields, and all of them as the default. */
const nodeModule = (names, load) => {
  const make = once(() => {
    const fields = load();
    return namespace({ ...fields, default: fields.default ?? fields });
  });
  for (const name of names) nodeModules[nodeModules.length] = [name, make];
};
/** A global of Node's, there when the script has the flag for them. */
const nodeGlobal = (name, load) => {
  whenLoaded[whenLoaded.length] = () => {
    if (!hasFlag("nodejs_compat_v2")) return;
    defineProperty(GLOBAL, name, {
      get() {
        const value = load();
        defineProperty(GLOBAL, name, { value, writable: true, configurable: true });
        return value;
      },
      set(value) { defineProperty(GLOBAL, name, { value, writable: true, configurable: true }); },
      configurable: true,
    });
  };
};

core.assign(core, { INSPECT, nodeError, received, wrongArgument, nodeModule, nodeGlobal });
