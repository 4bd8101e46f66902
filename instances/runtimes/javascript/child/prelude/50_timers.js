// setTimeout and its family: the worker holds the clock, the callback runs in the context that set it.

const timers = new SafeMap();
let timerNumber = 0;
const MAX_DELAY = 2147483647;

function setTimer(callback, delay, repeat, values) {
  if (typeof callback !== "function") throw new $TypeError("the callback must be a function");
  if (current.life === null) throw new $Error("Disallowed operation called within global scope");
  checkCalls(current.life);
  const timer = { number: ++timerNumber, call: 0 };
  const wait = $Math.max($Number(delay) || 0, repeat ? 1 : 0);
  timers.set(timer.number, timer);
  const arm = () => {
    then(hostCall("timer", { ms: $Math.min(wait, MAX_DELAY) }, (call) => { timer.call = call; }), () => {
      if (!timers.has(timer.number)) return;
      if (repeat) arm(); else timers.delete(timer.number);
      apply(callback, undefined, values);
    }, () => timers.delete(timer.number));
  };
  arm();
  return timer.number;
}

function clearTimer(number) {
  const timer = timers.get(number);
  if (timer === undefined) return;
  timers.delete(number);
  cancelCall(timer.call);
}

function define(name, value) {
  defineProperty(GLOBAL, name, { value, writable: true, configurable: true, enumerable: true });
}
define("setTimeout", function setTimeout(callback, delay = 0, ...values) { return setTimer(callback, delay, false, values); });
define("setInterval", function setInterval(callback, delay = 0, ...values) { return setTimer(callback, delay, true, values); });
define("clearTimeout", function clearTimeout(number) { clearTimer(number); });
define("clearInterval", function clearInterval(number) { clearTimer(number); });
define("queueMicrotask", function queueMicrotask(callback) {
  if (typeof callback !== "function") throw new $TypeError("the callback must be a function");
  then(resolved(), () => callback());
});
define("scheduler", freeze({
  wait: (delay, options) => settled((resolve, reject) => {
    const number = setTimer(resolve, delay, false, []);
    options?.signal?.addEventListener("abort", () => { clearTimer(number); reject(options.signal.reason); });
  }),
}));
