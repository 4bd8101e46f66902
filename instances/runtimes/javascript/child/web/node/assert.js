// node:assert, and its strict form.
// Names: node:assert "assert" 'assert' node:assert/strict "assert/strict"
// Needs: node/util

const {
  $Error, $Object, $RegExp, $TypeError, apply, assign, defineProperty, isError, nodeError, nodeModule, nodeUtil,
  once, ownKeys, s, textOf, the,
} = core;

const nodeAssert = once(() => {
  const { inspect, isDeepEqual, isDeepStrictEqual } = nodeUtil();

  class AssertionError extends $Error {
    constructor(options) {
      const { message, actual, expected, operator } = options;
      super(message === undefined ? described(operator, actual, expected) : `${message}`);
      defineProperty(this, "name", { value: "AssertionError", writable: true, configurable: true });
      assign(this, { generatedMessage: message === undefined, code: "ERR_ASSERTION", actual, expected, operator });
    }

    toString() { return `${this.name} [${this.code}]: ${this.message}`; }
  }
  const HEADS = {
    strictEqual: "Expected values to be strictly equal:", deepStrictEqual: "Expected values to be strictly deep-equal:",
    deepEqual: "Expected values to be loosely deep-equal:", notStrictEqual: 'Expected "actual" to be strictly unequal to:',
    notDeepStrictEqual: 'Expected "actual" not to be strictly deep-equal to:',
    notDeepEqual: 'Expected "actual" not to be loosely deep-equal to:',
  };
  const described = (operator, actual, expected) => {
    if (operator === "fail") return "Failed";
    const head = HEADS[operator];
    if (head === undefined) return `${inspect(actual)} ${operator} ${inspect(expected)}`;
    if (operator.startsWith("not")) return `${head} ${inspect(expected)}`;
    return `${head}\n\n${inspect(actual)} !== ${inspect(expected)}\n`;
  };
  const fail = (operator, actual, expected, message) => {
    if (isError(message)) throw message;
    throw new AssertionError({ message, actual, expected, operator });
  };

  const ok = (value, message) => {
    if (value) return;
    fail("==", value, true, message ?? "The expression evaluated to a falsy value");
  };
  function assert(value, message) { ok(value, message); }

  /** Whether an error is what was expected: a class, a pattern, a predicate or an object of fields. */
  const matches = (error, expected, message) => {
    if (expected === undefined) return;
    if (typeof expected === "function") {
      if (expected.prototype !== undefined && error instanceof expected) return;
      if ($Error.isPrototypeOf?.(expected) || expected === $Error) throw error;
      if (apply(expected, {}, [error]) !== true) fail("throws", error, expected, message ?? "The validation function did not return true for the error");
      return;
    }
    if (expected instanceof $RegExp) {
      if (!expected.test(textOf(error))) fail("throws", error, expected, message ?? `The input did not match the regular expression ${expected}. Input:\n\n${inspect(textOf(error))}\n`);
      return;
    }
    const names = isError(expected) ? [...ownKeys(expected), "name", "message"] : ownKeys(expected);
    for (const name of names) {
      const wanted = expected[name];
      if (wanted instanceof $RegExp && typeof error[name] === "string" && wanted.test(error[name])) continue;
      if (!isDeepStrictEqual(error[name], wanted)) fail("throws", error, expected, message ?? `The error's ${name} is ${inspect(error[name])}, not ${inspect(wanted)}`);
    }
  };
  const split = (expected, message) => (typeof expected === "string" ? [undefined, expected] : [expected, message]);
  const missing = (operator, expected, message) => fail(operator, undefined, expected,
    message === undefined ? `Missing expected ${operator === "rejects" ? "rejection" : "exception"}.` : `Missing expected ${operator === "rejects" ? "rejection" : "exception"}: ${message}`);
  const outcome = async (work) => {
    try {
      const promise = typeof work === "function" ? work() : work;
      if (typeof promise?.then !== "function") throw nodeError($TypeError, "ERR_INVALID_RETURN_VALUE", "Expected instance of Promise to be returned");
      await promise;
      return null;
    } catch (error) { return { error }; }
  };

  assign(assert, {
    ok,
    fail: (message) => fail("fail", undefined, undefined, message ?? "Failed"),
    equal(actual, expected, message) {
      if (!(actual == expected || (actual !== actual && expected !== expected))) fail("==", actual, expected, message);
    },
    notEqual(actual, expected, message) {
      if (actual == expected || (actual !== actual && expected !== expected)) fail("!=", actual, expected, message);
    },
    strictEqual(actual, expected, message) { if (!$Object.is(actual, expected)) fail("strictEqual", actual, expected, message); },
    notStrictEqual(actual, expected, message) { if ($Object.is(actual, expected)) fail("notStrictEqual", actual, expected, message); },
    deepEqual(actual, expected, message) { if (!isDeepEqual(actual, expected)) fail("deepEqual", actual, expected, message); },
    notDeepEqual(actual, expected, message) { if (isDeepEqual(actual, expected)) fail("notDeepEqual", actual, expected, message); },
    deepStrictEqual(actual, expected, message) { if (!isDeepStrictEqual(actual, expected)) fail("deepStrictEqual", actual, expected, message); },
    notDeepStrictEqual(actual, expected, message) { if (isDeepStrictEqual(actual, expected)) fail("notDeepStrictEqual", actual, expected, message); },
    match(text, pattern, message) {
      if (typeof text !== "string" || !pattern.test(text)) fail("match", text, pattern, message ?? `The input did not match the regular expression ${pattern}. Input:\n\n${inspect(text)}\n`);
    },
    doesNotMatch(text, pattern, message) {
      if (typeof text === "string" && pattern.test(text)) fail("doesNotMatch", text, pattern, message ?? `The input was expected to not match the regular expression ${pattern}. Input:\n\n${inspect(text)}\n`);
    },
    throws(work, ...rest) {
      const [expected, message] = split(...rest);
      let caught = null;
      try { work(); } catch (error) { caught = { error }; }
      if (caught === null) missing("throws", expected, message);
      matches(caught.error, expected, message);
    },
    doesNotThrow(work, ...rest) {
      const [, message] = split(...rest);
      try { work(); } catch (error) {
        fail("doesNotThrow", error, undefined, `Got unwanted exception${message === undefined ? "." : `: ${message}`}\nActual message: "${textOf(error?.message)}"`);
      }
    },
    async rejects(work, ...rest) {
      const [expected, message] = split(...rest);
      const caught = await outcome(work);
      if (caught === null) missing("rejects", expected, message);
      matches(caught.error, expected, message);
    },
    async doesNotReject(work, ...rest) {
      const [, message] = split(...rest);
      const caught = await outcome(work);
      if (caught !== null) fail("doesNotReject", caught.error, undefined, `Got unwanted rejection${message === undefined ? "." : `: ${message}`}\nActual message: "${textOf(caught.error?.message)}"`);
    },
    ifError(value) {
      if (value === null || value === undefined) return;
      fail("ifError", value, null, `ifError got unwanted exception: ${isError(value) ? value.message : inspect(value)}`);
    },
    AssertionError,
  });
  const strict = assign((value, message) => ok(value, message), assert, {
    equal: assert.strictEqual, notEqual: assert.notStrictEqual, deepEqual: assert.deepStrictEqual,
    notDeepEqual: assert.notDeepStrictEqual,
  });
  strict.strict = strict;
  assert.strict = strict;
  return assert;
});
const exportsOf = (assert) => ({ ...assert, default: assert });
nodeModule(["node:assert", "assert"], () => exportsOf(nodeAssert()));
nodeModule(["node:assert/strict", "assert/strict"], () => exportsOf(nodeAssert().strict));
