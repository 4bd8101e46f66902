// What the parts of the web (folder `web`) stand on. Each is a function of `core`, loaded when the script mentions it.

const core = {
  GLOBAL, $Object, $Array, $Map, $Set, $Promise, $Error, $Date, $JSON, $Number, $String, $BigInt, $RegExp, $Math, $Reflect,
  $Function, $TypeError, $RangeError, $Symbol, $ArrayBuffer, $Uint8Array, $DataView,
  stringify, parse, create, defineProperty, defineProperties, freeze, getPrototypeOf, setPrototypeOf, ownKeys, assign,
  getOwnPropertyDescriptor, getOwnPropertyNames, isArray, apply, construct, floor, imul, uncurry, SafeMap, SafeSet,
  then, settled, resolved, rejected, textOf, toWellFormed, sliced, hostCall, cancelCall, BUILT_IN,
  toBase64, fromBase64, viewTag, isDate, getTime, isMap, isSet, isBuffer, isView, isError, mapForEach, setForEach, VIEWS,
  bufferLength, define, setTimer, clearTimer, log, nowMillis, randomBytes, namespace, nodeModules, env, regExpText,
  /** Called when the script's flags are known, before its modules run. */
  whenLoaded: [],
  here: () => current,
  hasFlag: (name) => flags.has(name),
  /** The class of streams, once there is one: before that, no value is a stream. */
  StreamClass: undefined,
  /** A stream that yields what was stored of one. A script that can have stored one has the streams. */
  storedStream: (pieces) => pieces,
};

function onPart() {
  const part = arrived;
  arrived = undefined;
  part(core);
}
