// node:process, as much as portable code asks for.
// Names: process node:process
// Needs: node/module

const {
  $BigInt, $TypeError, apply, assign, env, floor, freeze, known, log, nodeError, nodeGlobal, nodeModule,
  nodeModules, nowMillis, once, ownKeys, resolved, then,
} = core;

const nodeProcess = once(() => {
  const variables = {};
  for (const name of ownKeys(env)) if (typeof env[name] === "string") variables[name] = env[name];
  return {
    env: variables,
    argv: [],
    execArgv: [],
    platform: "linux",
    arch: "x64",
    version: "v22.19.0",
    versions: freeze({ node: "22.19.0" }),
    pid: 1,
    title: "workerd",
    browser: false,
    features: {},
    nextTick(callback, ...values) {
      if (typeof callback !== "function") throw nodeError($TypeError, "ERR_INVALID_ARG_TYPE", 'The "callback" argument must be of type function.');
      then(resolved(), () => apply(callback, undefined, values));
    },
    cwd: () => "/bundle",
    uptime: () => 0,
    hrtime: assign((since) => {
      const now = nowMillis();
      const [seconds, nanos] = [floor(now / 1000), (now % 1000) * 1e6];
      if (since === undefined) return [seconds, nanos];
      return nanos < since[1] ? [seconds - since[0] - 1, nanos - since[1] + 1e9] : [seconds - since[0], nanos - since[1]];
    }, { bigint: () => $BigInt(floor(nowMillis())) * 1000000n }),
    emitWarning(warning) { log("warn", [warning]); },
    getBuiltinModule: (name) => nodeModules.find(([known]) => known === name)?.[1](),
    on() { return this; },
    once() { return this; },
    off() { return this; },
    removeListener() { return this; },
    emit: () => false,
  };
});
nodeModule(["node:process", "process"], nodeProcess);
nodeGlobal("process", nodeProcess);
