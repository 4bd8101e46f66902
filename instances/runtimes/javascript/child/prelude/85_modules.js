// Modules. Each arrives as a function of (import, export, dynamic import, meta); text, JSON and data as they are.

class WorkflowEntrypoint {
  constructor(ctx, env) { this.ctx = ctx; this.env = env; }
}
class WorkerEntrypoint {
  constructor(ctx, env) { this.ctx = ctx; this.env = env; }
}
class DurableObject {
  constructor(ctx, env) { this.ctx = ctx; this.env = env; }
}
class RpcTarget {}

const env = {};
const builtIn = new SafeMap();
/** Flags of the script. */
let flags = new SafeSet();
/** Uploaded modules by name without a leading "./". */
const modules = new SafeMap();

const bare = (name) => (name.startsWith("./") ? name.slice(2) : name);

/** The name `specifier` means in the module `importer`. */
function resolve(specifier, importer) {
  if (!specifier.startsWith(".")) {
    if (modules.has(specifier)) return specifier;
    return specifier;
  }
  const path = importer.includes("/") ? importer.slice(0, importer.lastIndexOf("/")).split("/") : [];
  for (const part of specifier.split("/")) {
    if (part === "..") path.pop();
    else if (part !== ".") path.push(part);
  }
  return path.join("/");
}

function namespace(fields) {
  const object = create(null);
  for (const name of ownKeys(fields)) defineProperty(object, name, { get: () => fields[name], enumerable: true });
  defineProperty(object, $Symbol.toStringTag, { value: "Module" });
  return object;
}

function importFrom(specifier, importer) {
  const known = builtIn.get(specifier);
  if (known !== undefined) return known();
  const module = modules.get(resolve(specifier, importer)) ?? modules.get(bare(specifier));
  if (module === undefined) throw new $Error(`No such module "${specifier}", imported from "${importer}"`);
  return evaluate(module);
}

/** A static import: the namespace, which must have the names that are asked for. */
function fetchFor(specifier, names, importer) {
  return then(resolved(importFrom(specifier, importer)), (found) => {
    for (const name of names) {
      if (name in found) continue;
      throw new BUILT_IN.SyntaxError(
        `The requested module '${specifier}' does not provide an export named '${name}', imported from '${importer}'`);
    }
    return found;
  });
}

/** The namespace of a module, once its body has run; of one whose body is running, as it is. */
function evaluate(module) {
  if (module.state === "done" || module.state === "running") return module.namespace;
  if (module.state === "failed") throw module.error;
  if (module.body === undefined) {
    module.state = "done";
    return module.namespace;
  }
  module.state = "running";
  const meta = create(null);
  const expose = (getters) => {
    for (const name of ownKeys(getters)) {
      defineProperty(module.namespace, name, { get: getters[name], enumerable: true, configurable: true });
    }
  };
  expose.all = (found) => {  // `export *`: everything but the default, unless the module has a name of its own
    for (const name of ownKeys(found)) {
      if (name === "default" || name in module.namespace) continue;
      defineProperty(module.namespace, name, { get: () => found[name], enumerable: true, configurable: true });
    }
  };
  const dynamic = (specifier) => then(resolved(), () => importFrom(textOf(specifier), module.name));
  const running = module.body((specifier, names) => fetchFor(specifier, names, module.name), expose, dynamic, meta);
  return then(running, () => {
    module.state = "done";
    return module.namespace;
  }, (error) => {
    module.state = "failed";
    module.error = error;
    throw error;
  });
}

/** A module's function, evaluated by the host just before this message. */
let arrived;
defineProperty(GLOBAL, "__module", { configurable: true, set(body) { arrived = body; } });

function addModule({ name, type, text, b64 }) {
  const module = { name: bare(name), state: "new", namespace: create(null), body: undefined, error: undefined };
  defineProperty(module.namespace, $Symbol.toStringTag, { value: "Module" });
  if (type === "text") defineProperty(module.namespace, "default", { value: text, enumerable: true });
  else if (type === "json") defineProperty(module.namespace, "default", { value: parse(text), enumerable: true });
  else if (type === "data") defineProperty(module.namespace, "default", { value: fromBase64(b64).buffer, enumerable: true });
  modules.set(module.name, module);
  return module;
}

function onModule({ name }) {
  const body = arrived;
  arrived = undefined;
  if (typeof body !== "function") throw new $Error(`module "${name}" is not a module`);
  addModule({ name, type: "js" }).body = body;
}

let exported = create(null);

function kindOf(value) {
  if (typeof value === "function") {
    if (value.prototype instanceof WorkflowEntrypoint) return "workflow";
    if (value.prototype instanceof WorkerEntrypoint) return "worker";
  }
  return isObject(value) && typeof value.fetch === "function" ? "worker" : "other";
}

function onLoad(message) {
  delete GLOBAL.__module;
  flags = new SafeSet(message.flags);
  for (const module of message.modules) if (module.type !== "js" && module.type !== "python") addModule(module);
  for (const name of ownKeys(message.vars)) defineProperty(env, name, { value: message.vars[name], enumerable: true });
  for (const name of ownKeys(message.workflows)) {
    defineProperty(env, name, { value: new Workflow(message.workflows[name]), enumerable: true });
  }
  for (const name of ownKeys(message.exports)) {
    defineProperty(classExports, name, { value: new Workflow(message.exports[name]), enumerable: true });
  }
  builtIn.set("cloudflare:workers", () => cloudflareWorkers);
  builtIn.set("cloudflare:workflows", () => cloudflareWorkflows);
  for (const [name, load] of nodeModules) if (flags.has("nodejs_compat") || flags.has("nodejs_compat_v2")) builtIn.set(name, load);
  for (const begin of core.whenLoaded) begin();
  const main = modules.get(bare(message.main));
  let running;
  try {
    if (main === undefined) throw new $Error(`No such module "${message.main}"`);
    running = resolved(evaluate(main));
  } catch (error) { running = rejected(error); }
  then(running, (found) => {
    exported = found;
    post({ op: "loaded", exports: ownKeys(found).map((name) => ({ name: clean(name, 256), kind: kindOf(found[name]) })) });
  }, (error) => post({ op: "load_failed", error: told(error, true) }));
}

const classExports = create(null);
const cloudflareWorkers = namespace({ WorkflowEntrypoint, WorkerEntrypoint, DurableObject, RpcTarget, env,
  exports: classExports, waitUntil() {} });
const cloudflareWorkflows = namespace({ NonRetryableError });
/** `node:` modules, by name: what makes each when it is first imported. */
const nodeModules = [];
