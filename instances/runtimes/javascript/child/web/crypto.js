// crypto. Chance is of the context: seeded outside steps, of the attempt inside. Short inputs are hashed here, without
// asking anybody, long ones by the worker.
// Names: crypto Crypto CryptoKey SubtleCrypto
// Needs: events encoding hashes

const {
  $Number, $TypeError, $Uint8Array, HASHES, Hasher, Mac, SafeSet, assign, bytesOf, create, domError, fromBase64,
  here, hostCall, isView, lazy, needs, randomBytes, textOf, the, toBase64, viewTag, web, webClass,
} = core;

lazy(["crypto", "Crypto", "CryptoKey", "SubtleCrypto"], () => {
  const SECRET = {};
  const QUICK = 2048;
  const names = create(null);
  assign(names, { "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512", MD5: "md5" });
  const HEX_DIGITS = "0123456789abcdef";

  const unsupported = (what) => domError("NotSupportedError", `${what} is not supported`);
  const algorithmName = (algorithm) => {
    const name = typeof algorithm === "object" && algorithm !== null ? algorithm.name : algorithm;
    if (name === undefined) throw new $TypeError("the algorithm has no name");
    return `${name}`.toUpperCase();
  };
  const hashOf = (algorithm) => {
    const name = algorithmName(algorithm);
    if (names[name] === undefined) throw unsupported(`The algorithm ${name}`);
    return name;
  };
  const dataOf = (data, where) => {
    const bytes = bytesOf(data);
    if (bytes === undefined) throw new $TypeError(`${where}: the data must be an ArrayBuffer or a view of one`);
    return new $Uint8Array(bytes);
  };
  const plain = (bytes) => bytes.buffer;

  const digest = async (name, data) => {
    if (data.length <= QUICK || here().life === null) return new Hasher(names[name]).update(data).digest();
    return fromBase64(await hostCall("digest", { alg: name, data: toBase64(data, []) }));
  };
  const mac = async (name, key, data) => {
    if (data.length <= QUICK || here().life === null) return new Mac(names[name], key).update(data).digest();
    return fromBase64(await hostCall("hmac", { alg: name, key: toBase64(key, []), data: toBase64(data, []) }));
  };
  const equal = (a, b) => {
    let difference = 0;
    for (let i = 0; i < a.length; i++) difference |= a[i] ^ b[i];
    return difference === 0;
  };

  let secretOf;
  class CryptoKey {
    #secret; #algorithm; #extractable; #usages;

    constructor(secret, bytes, algorithm, extractable, usages) {
      if (secret !== SECRET) throw new $TypeError("Illegal constructor");
      this.#secret = bytes;
      this.#algorithm = algorithm;
      this.#extractable = extractable;
      this.#usages = usages;
    }

    get type() { return "secret"; }
    get extractable() { return this.#extractable; }
    get algorithm() { return this.#algorithm; }
    get usages() { return this.#usages; }

    static {
      secretOf = (key, usage) => {
        if (!(key instanceof CryptoKey)) throw new $TypeError("the key must be a CryptoKey");
        if (usage !== undefined && !key.#usages.includes(usage)) {
          throw domError("InvalidAccessError", `the key may not be used to ${usage}`);
        }
        return key.#secret;
      };
    }
  }

  const USAGES = ["sign", "verify"];
  const usagesOf = (usages) => {
    const wanted = [...usages];
    if (wanted.some((usage) => !USAGES.includes(usage))) throw domError("SyntaxError", "an HMAC key can only sign and verify");
    if (wanted.length === 0) throw domError("SyntaxError", "a secret key must have usages");
    return USAGES.filter((usage) => wanted.includes(usage));
  };
  const hmacOnly = (algorithm) => {
    const name = algorithmName(algorithm);
    if (name !== "HMAC") throw unsupported(`The algorithm ${name}`);
  };
  const hmacKey = (bytes, hash, extractable, usages) => new CryptoKey(SECRET, bytes,
    { name: "HMAC", length: 8 * bytes.length, hash: { name: hash } }, !!extractable, usages);

  class SubtleCrypto {
    constructor(secret) { if (secret !== SECRET) throw new $TypeError("Illegal constructor"); }

    async digest(algorithm, data) {
      needs(arguments, 2, "digest");
      return plain(await digest(hashOf(algorithm), dataOf(data, "digest")));
    }

    async importKey(format, data, algorithm, extractable, usages) {
      needs(arguments, 5, "importKey");
      hmacOnly(algorithm);
      if (algorithm.hash === undefined) throw new $TypeError("the algorithm has no hash");
      const hash = hashOf(algorithm.hash);
      const wanted = usagesOf(usages);
      let bytes;
      if (format === "raw") {
        bytes = dataOf(data, "importKey");
      } else if (format === "jwk") {
        if (data?.kty !== "oct" || typeof data.k !== "string") throw domError("DataError", "the JSON web key is no secret key");
        try { bytes = fromBase64(data.k, { alphabet: "base64url" }); } catch { throw domError("DataError", "the key is not in base64url"); }
      } else {
        throw unsupported(`The key format ${textOf(format)}`);
      }
      if (bytes.length === 0) throw domError("DataError", "the key is empty");
      return hmacKey(bytes, hash, extractable, wanted);
    }

    async generateKey(algorithm, extractable, usages) {
      needs(arguments, 3, "generateKey");
      hmacOnly(algorithm);
      const hash = hashOf(algorithm.hash);
      const wanted = usagesOf(usages);
      const bits = algorithm.length === undefined ? 8 * HASHES[names[hash]].block : $Number(algorithm.length);
      if (!(bits > 0) || bits % 8 !== 0) throw domError("OperationError", "the length must be a number of whole bytes");
      return hmacKey(randomBytes(new $Uint8Array(bits / 8)), hash, extractable, wanted);
    }

    async exportKey(format, key) {
      needs(arguments, 2, "exportKey");
      const bytes = secretOf(key);
      if (!key.extractable) throw domError("InvalidAccessError", "the key is not extractable");
      if (format === "raw") return plain(new $Uint8Array(bytes));
      if (format !== "jwk") throw unsupported(`The key format ${textOf(format)}`);
      return { kty: "oct", k: toBase64(bytes, [{ alphabet: "base64url", omitPadding: true }]),
        alg: `HS${key.algorithm.hash.name.slice(4)}`, key_ops: [...key.usages], ext: true };
    }

    async sign(algorithm, key, data) {
      needs(arguments, 3, "sign");
      hmacOnly(algorithm);
      return plain(await mac(secretHash(key), secretOf(key, "sign"), dataOf(data, "sign")));
    }

    async verify(algorithm, key, signature, data) {
      needs(arguments, 4, "verify");
      hmacOnly(algorithm);
      const given = dataOf(signature, "verify");
      const right = await mac(secretHash(key), secretOf(key, "verify"), dataOf(data, "verify"));
      return given.length === right.length && equal(given, right);
    }

    timingSafeEqual(a, b) {
      const left = dataOf(a, "timingSafeEqual");
      const right = dataOf(b, "timingSafeEqual");
      if (left.length !== right.length) throw new $TypeError("Input buffers must have the same byte length");
      return equal(left, right);
    }

    async encrypt(algorithm) { throw unsupported(`The algorithm ${algorithmName(algorithm)}`); }
    async decrypt(algorithm) { throw unsupported(`The algorithm ${algorithmName(algorithm)}`); }
    async deriveBits(algorithm) { throw unsupported(`The algorithm ${algorithmName(algorithm)}`); }
    async deriveKey(algorithm) { throw unsupported(`The algorithm ${algorithmName(algorithm)}`); }
    async wrapKey(format, key, wrapping, algorithm) { throw unsupported(`The algorithm ${algorithmName(algorithm)}`); }
    async unwrapKey(format, key, wrapping, algorithm) { throw unsupported(`The algorithm ${algorithmName(algorithm)}`); }
  }
  const secretHash = (key) => {
    secretOf(key);
    return key.algorithm.hash.name;
  };

  const INTEGERS = new SafeSet(["Int8Array", "Uint8Array", "Uint8ClampedArray", "Int16Array", "Uint16Array", "Int32Array",
    "Uint32Array", "BigInt64Array", "BigUint64Array"]);
  const subtle = new SubtleCrypto(SECRET);
  class Crypto {
    constructor(secret) { if (secret !== SECRET) throw new $TypeError("Illegal constructor"); }

    get subtle() { return subtle; }
    getRandomValues(array) {
      needs(arguments, 1, "getRandomValues");
      if (!isView(array) || !INTEGERS.has(viewTag(array, []))) throw domError("TypeMismatchError", "getRandomValues: not an array of integers");
      if (array.byteLength > 65536) throw domError("QuotaExceededError", "getRandomValues: more than 65536 bytes");
      randomBytes(new $Uint8Array(array.buffer, array.byteOffset, array.byteLength));
      return array;
    }
    randomUUID() {
      const bytes = randomBytes(new $Uint8Array(16));
      bytes[6] = (bytes[6] & 15) | 64;
      bytes[8] = (bytes[8] & 63) | 128;
      let text = "";
      for (let i = 0; i < 16; i++) {
        if (i === 4 || i === 6 || i === 8 || i === 10) text += "-";
        text += HEX_DIGITS[bytes[i] >> 4] + HEX_DIGITS[bytes[i] & 15];
      }
      return text;
    }
  }
  for (const Class of [Crypto, CryptoKey, SubtleCrypto]) webClass(Class);
  const crypto = new Crypto(SECRET);
  web.hasherOf = (algorithm) => new Hasher(names[hashOf(algorithm)]);
  return { crypto, Crypto, CryptoKey, SubtleCrypto };
});
