// Hash functions in JavaScript: for what must be answered at once, and for what is too short to ask the worker.
// Needs: lazy

const {
  $ArrayBuffer, $BigInt, $DataView, $Math, $Number, $Uint8Array, GLOBAL, are, assign, create, floor, once, s, the,
  then, when,
} = core;

/** The constants of SHA-2 are the first bits of roots of the first primes: found when they are first needed. */
const constants = once(() => {
  const primes = [];
  for (let n = 2; primes.length < 80; n++) if (primes.every((prime) => n % prime !== 0)) primes[primes.length] = n;
  const root = (prime, degree) => {  // floor(prime ** (1 / degree) * 2 ** 64), by Newton's method from above
    const target = $BigInt(prime) << (64n * $BigInt(degree));
    let guess = ($BigInt($Math.ceil(prime ** (1 / degree) * 2 ** 40)) + 1n) << 24n;
    for (;;) {
      const next = degree === 2 ? (guess + target / guess) / 2n : (2n * guess + target / (guess * guess)) / 3n;
      if (next >= guess) return guess;
      guess = next;
    }
  };
  const words = (values) => {
    const found = new Int32Array(2 * values.length);
    values.forEach((value, i) => {
      found[2 * i] = $Number((value >> 32n) & 0xffffffffn);
      found[2 * i + 1] = $Number(value & 0xffffffffn);
    });
    return found;
  };
  const cubes = words(primes.map((prime) => root(prime, 3)));
  const squares = words(primes.slice(0, 16).map((prime) => root(prime, 2)));
  const every = (array, from, count, odd) => Int32Array.from({ length: count }, (_, i) => array[2 * (from + i) + odd]);
  return {
    k512: cubes,
    k256: every(cubes, 0, 64, 0),
    h512: squares.slice(0, 16),
    h384: squares.slice(16, 32),
    h256: every(squares, 0, 8, 0),
    h224: every(squares, 8, 8, 1),
    md5: Int32Array.from({ length: 64 }, (_, i) => floor($Math.abs($Math.sin(i + 1)) * 2 ** 32) | 0),
  };
});
const { Int32Array } = GLOBAL;

const rotl = (x, n) => (x << n) | (x >>> (32 - n));

function sha1Block(h, view, at) {
  const w = new Int32Array(80);
  for (let i = 0; i < 16; i++) w[i] = view.getInt32(at + 4 * i);
  for (let i = 16; i < 80; i++) w[i] = rotl(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
  let [a, b, c, d, e] = h;
  for (let i = 0; i < 80; i++) {
    const f = i < 20 ? ((b & c) | (~b & d)) + 0x5a827999 : i < 40 ? (b ^ c ^ d) + 0x6ed9eba1
      : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc : (b ^ c ^ d) + 0xca62c1d6;
    const t = (rotl(a, 5) + f + e + w[i]) | 0;
    e = d; d = c; c = rotl(b, 30); b = a; a = t;
  }
  h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e;
}

function sha256Block(h, view, at) {
  const { k256: k } = constants();
  const w = new Int32Array(64);
  for (let i = 0; i < 16; i++) w[i] = view.getInt32(at + 4 * i);
  for (let i = 16; i < 64; i++) {
    const x = w[i - 15];
    const y = w[i - 2];
    w[i] = w[i - 16] + (rotl(x, 25) ^ rotl(x, 14) ^ (x >>> 3)) + w[i - 7] + (rotl(y, 15) ^ rotl(y, 13) ^ (y >>> 10));
  }
  let [a, b, c, d, e, f, g, n] = h;
  for (let i = 0; i < 64; i++) {
    const s = (n + (rotl(e, 26) ^ rotl(e, 21) ^ rotl(e, 7)) + ((e & f) ^ (~e & g)) + k[i] + w[i]) | 0;
    const t = (s + (rotl(a, 30) ^ rotl(a, 19) ^ rotl(a, 10)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    n = g; g = f; f = e; e = (d + s) | 0; d = c; c = b; b = a; a = t;
  }
  h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e; h[5] += f; h[6] += g; h[7] += n;
}

/** 64-bit words are pairs: high at even places, low at odd ones. */
function sha512Block(h, view, at) {
  const { k512: k } = constants();
  const w = new Int32Array(160);
  for (let i = 0; i < 32; i++) w[i] = view.getInt32(at + 4 * i);
  for (let i = 32; i < 160; i += 2) {
    const xh = w[i - 30], xl = w[i - 29], yh = w[i - 4], yl = w[i - 3];
    const sh = ((xh >>> 1) | (xl << 31)) ^ ((xh >>> 8) | (xl << 24)) ^ (xh >>> 7);
    const sl = ((xl >>> 1) | (xh << 31)) ^ ((xl >>> 8) | (xh << 24)) ^ ((xl >>> 7) | (xh << 25));
    const th = ((yh >>> 19) | (yl << 13)) ^ ((yl >>> 29) | (yh << 3)) ^ (yh >>> 6);
    const tl = ((yl >>> 19) | (yh << 13)) ^ ((yh >>> 29) | (yl << 3)) ^ ((yl >>> 6) | (yh << 26));
    const low = (w[i - 31] >>> 0) + (sl >>> 0) + (w[i - 13] >>> 0) + (tl >>> 0);
    w[i + 1] = low;
    w[i] = w[i - 32] + sh + w[i - 14] + th + floor(low / 4294967296);
  }
  const v = new Int32Array(h);
  for (let i = 0; i < 160; i += 2) {
    const eh = v[8], el = v[9], ah = v[0], al = v[1];
    const s1h = ((eh >>> 14) | (el << 18)) ^ ((eh >>> 18) | (el << 14)) ^ ((el >>> 9) | (eh << 23));
    const s1l = ((el >>> 14) | (eh << 18)) ^ ((el >>> 18) | (eh << 14)) ^ ((eh >>> 9) | (el << 23));
    const chl = (el & v[11]) ^ (~el & v[13]);
    const chh = (eh & v[10]) ^ (~eh & v[12]);
    const l1 = (v[15] >>> 0) + (s1l >>> 0) + (chl >>> 0) + (k[i + 1] >>> 0) + (w[i + 1] >>> 0);
    const h1 = (v[14] + s1h + chh + k[i] + w[i] + floor(l1 / 4294967296)) | 0;
    const s0h = ((ah >>> 28) | (al << 4)) ^ ((al >>> 2) | (ah << 30)) ^ ((al >>> 7) | (ah << 25));
    const s0l = ((al >>> 28) | (ah << 4)) ^ ((ah >>> 2) | (al << 30)) ^ ((ah >>> 7) | (al << 25));
    const mh = (ah & v[2]) ^ (ah & v[4]) ^ (v[2] & v[4]);
    const ml = (al & v[3]) ^ (al & v[5]) ^ (v[3] & v[5]);
    const l2 = (l1 >>> 0) + (s0l >>> 0) + (ml >>> 0);
    const h2 = h1 + s0h + mh + floor(l2 / 4294967296);
    const l3 = (v[7] >>> 0) + (l1 >>> 0);
    const h3 = v[6] + h1 + floor(l3 / 4294967296);
    v.copyWithin(2, 0, 14);
    v[0] = h2; v[1] = l2; v[8] = h3; v[9] = l3;
  }
  for (let i = 0; i < 16; i += 2) {
    const low = (h[i + 1] >>> 0) + (v[i + 1] >>> 0);
    h[i + 1] = low;
    h[i] += v[i] + floor(low / 4294967296);
  }
}

const MD5_TURNS = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21];

function md5Block(h, view, at) {
  const { md5: k } = constants();
  let [a, b, c, d] = h;
  for (let i = 0; i < 64; i++) {
    let f, g;
    if (i < 16) { f = (b & c) | (~b & d); g = i; }
    else if (i < 32) { f = (d & b) | (~d & c); g = (5 * i + 1) % 16; }
    else if (i < 48) { f = b ^ c ^ d; g = (3 * i + 5) % 16; }
    else { f = c ^ (b | ~d); g = (7 * i) % 16; }
    const t = (a + f + k[i] + view.getInt32(at + 4 * g, true)) | 0;
    a = d; d = c; c = b;
    b = (b + rotl(t, MD5_TURNS[4 * (i >> 4) + (i & 3)])) | 0;
  }
  h[0] += a; h[1] += b; h[2] += c; h[3] += d;
}

const STARTS = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0];
/** By name: bytes of a block, of the result; how it starts, and what a block does. */
const HASHES = create(null);
assign(HASHES, {
  md5: { block: 64, size: 16, start: () => Int32Array.from(STARTS.slice(0, 4)), turn: md5Block },
  sha1: { block: 64, size: 20, start: () => Int32Array.from(STARTS), turn: sha1Block },
  sha224: { block: 64, size: 28, start: () => constants().h224.slice(), turn: sha256Block },
  sha256: { block: 64, size: 32, start: () => constants().h256.slice(), turn: sha256Block },
  sha384: { block: 128, size: 48, start: () => constants().h384.slice(), turn: sha512Block },
  sha512: { block: 128, size: 64, start: () => constants().h512.slice(), turn: sha512Block },
});

/** A hash being made: `update(bytes)` as often as wanted, then `digest()`. */
class Hasher {
  constructor(name, from) {
    this.kind = HASHES[name];
    this.name = name;
    this.state = from === undefined ? this.kind.start() : from.state.slice();
    this.buffer = from === undefined ? new $Uint8Array(this.kind.block) : from.buffer.slice();
    this.view = new $DataView(this.buffer.buffer);
    this.used = from === undefined ? 0 : from.used;
    this.length = from === undefined ? 0 : from.length;
  }

  update(bytes) {
    const { block, turn } = this.kind;
    this.length += bytes.length;
    let at = 0;
    if (this.used > 0) {
      at = $Math.min(block - this.used, bytes.length);
      this.buffer.set(bytes.subarray(0, at), this.used);
      this.used += at;
      if (this.used < block) return this;
      turn(this.state, this.view, 0);
      this.used = 0;
    }
    const view = new $DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (; at + block <= bytes.length; at += block) turn(this.state, view, at);
    this.buffer.set(bytes.subarray(at));
    this.used = bytes.length - at;
    return this;
  }

  digest() {
    const { block, size, turn } = this.kind;
    const little = this.name === "md5";
    this.buffer[this.used++] = 0x80;
    if (this.used > block - block / 8) {
      this.buffer.fill(0, this.used);
      turn(this.state, this.view, 0);
      this.used = 0;
    }
    this.buffer.fill(0, this.used);
    const high = floor(this.length / 2 ** 29);
    const low = (this.length % 2 ** 29) * 8;
    this.view.setUint32(block - (little ? 4 : 8), high, little);
    this.view.setUint32(block - (little ? 8 : 4), low, little);
    turn(this.state, this.view, 0);
    const result = new $DataView(new $ArrayBuffer(4 * this.state.length));
    for (let i = 0; i < this.state.length; i++) result.setInt32(4 * i, this.state[i], little);
    return new $Uint8Array(result.buffer.slice(0, size));
  }
}

/** HMAC: as a `Hasher`. */
class Mac {
  constructor(name, key) {
    const { block } = HASHES[name];
    const padded = new $Uint8Array(block);
    padded.set(key.length > block ? new Hasher(name).update(key).digest() : key);
    this.inner = new Hasher(name).update(padded.map((byte) => byte ^ 0x36));
    this.outer = new Hasher(name).update(padded.map((byte) => byte ^ 0x5c));
  }

  update(bytes) {
    this.inner.update(bytes);
    return this;
  }

  digest() { return this.outer.update(this.inner.digest()).digest(); }
}

core.assign(core, { HASHES, Hasher, Mac });
