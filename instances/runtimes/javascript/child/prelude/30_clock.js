// Time and chance. Outside steps both are the run's own and come out the same in every replay: the clock shows when the
// last outcome was handed over, chance is seeded by the instance. Inside a step they are real.

function nowMillis() {
  return current.step ? current.now : current.life === null ? 0 : current.life.clock;
}

function ContextDate(...parts) {
  if (new.target === undefined) return apply(DateProto.toString, new $Date(nowMillis()), []);
  return construct($Date, parts.length === 0 ? [nowMillis()] : parts, new.target === ContextDate ? ContextDate : new.target);
}
defineProperty(ContextDate, "name", { value: "Date" });
defineProperty(ContextDate, "length", { value: 7 });
ContextDate.prototype = DateProto;
defineProperty(DateProto, "constructor", { value: ContextDate, writable: true, configurable: true });
for (const [name, value] of [["now", function now() { return nowMillis(); }], ["parse", $Date.parse], ["UTC", $Date.UTC]]) {
  defineProperty(ContextDate, name, { value, writable: true, configurable: true });
}
defineProperty(GLOBAL, "Date", { value: ContextDate, writable: true, configurable: true });

defineProperty(GLOBAL, "performance", {
  value: freeze({
    now: () => nowMillis() - (current.life === null ? 0 : current.life.startedAt),
    get timeOrigin() { return current.life === null ? 0 : current.life.startedAt; },
    toJSON() { return { timeOrigin: this.timeOrigin }; },
    mark() {},
    measure() {},
  }),
  writable: true,
  configurable: true,
});

/** xoshiro128**: four words of state. Good for chance, not for secrets. */
function generator(words) {
  let [a, b, c, d] = words;
  if ((a | b | c | d) === 0) a = 1;
  return () => {
    const b5 = imul(b, 5);
    const result = imul((b5 << 7) | (b5 >>> 25), 9) >>> 0;
    const t = b << 9;
    c ^= a; d ^= b; b ^= c; a ^= d; c ^= t;
    d = (d << 11) | (d >>> 21);
    return result;
  };
}

/** Words for a generator from hexadecimal text. */
function wordsOf(hex) {
  const words = [];
  for (let i = 0; i < 4; i++) words[i] = $Number(`0x${sliced(hex, [8 * i, 8 * i + 8])}`) | 0;
  return words;
}

/** A stream of bytes for secrets (ChaCha20), from a key of 32 bytes. */
function cipherStream(key) {
  const view = new $DataView(key.buffer, key.byteOffset, 32);
  const input = [0x61707865, 0x3320646e, 0x79622d32, 0x6b206574];
  for (let i = 0; i < 8; i++) input[4 + i] = view.getUint32(4 * i, true) | 0;
  input[12] = input[13] = input[14] = input[15] = 0;
  const block = new $Uint8Array(64);
  const blockView = new $DataView(block.buffer);
  let used = 64;
  const rotate = (value, bits) => (value << bits) | (value >>> (32 - bits));
  const quarter = (x, a, b, c, d) => {
    x[a] = (x[a] + x[b]) | 0; x[d] = rotate(x[d] ^ x[a], 16);
    x[c] = (x[c] + x[d]) | 0; x[b] = rotate(x[b] ^ x[c], 12);
    x[a] = (x[a] + x[b]) | 0; x[d] = rotate(x[d] ^ x[a], 8);
    x[c] = (x[c] + x[d]) | 0; x[b] = rotate(x[b] ^ x[c], 7);
  };
  const next = () => {
    const x = [];
    for (let i = 0; i < 16; i++) x[i] = input[i];
    for (let round = 0; round < 10; round++) {
      quarter(x, 0, 4, 8, 12); quarter(x, 1, 5, 9, 13); quarter(x, 2, 6, 10, 14); quarter(x, 3, 7, 11, 15);
      quarter(x, 0, 5, 10, 15); quarter(x, 1, 6, 11, 12); quarter(x, 2, 7, 8, 13); quarter(x, 3, 4, 9, 14);
    }
    for (let i = 0; i < 16; i++) blockView.setUint32(4 * i, (x[i] + input[i]) | 0, true);
    input[12] = (input[12] + 1) | 0;
    if (input[12] === 0) input[13] = (input[13] + 1) | 0;
    used = 0;
  };
  return (bytes) => {
    for (let i = 0; i < bytes.length; i++) {
      if (used === 64) next();
      bytes[i] = block[used++];
    }
    return bytes;
  };
}

/** The source of chance where the code is: of the attempt, of the run outside steps, of nothing while loading. */
function chance() {
  const { life, step } = current;
  if (life === null) throw new $Error("Disallowed operation called within global scope");
  if (!step) return life;
  return life.attempts.get(step) ?? life;
}

function randomBytes(bytes) {
  const source = chance();
  source.bytes ??= cipherStream(source.entropy());
  return source.bytes(bytes);
}

defineProperty($Math, "random", {
  value: function random() {
    if (current.life === null) return 0.5;
    const source = chance();
    if (source.next === undefined) {
      const view = new $DataView(source.entropy().buffer);
      source.next = generator([view.getInt32(0), view.getInt32(4), view.getInt32(8), view.getInt32(12)]);
    }
    return (source.next() * 2097152 + (source.next() >>> 11)) / 9007199254740992;
  },
  writable: true,
  configurable: true,
});
