// node:crypto: hashes, HMAC and chance.
// Names: node:crypto "crypto" 'crypto'
// Needs: crypto node/buffer

const {
  $Error, $RangeError, $TypeError, $Uint8Array, HASHES, Hasher, Mac, nodeBuffer, nodeError, nodeModule, ownKeys,
  randomBytes, resolved, textOf, the, then, utf8, web,
} = core;

nodeModule(["node:crypto", "crypto"], () => {
  const { Buffer, encodedBytes, decodedText, asBytes } = nodeBuffer();
  const hashName = (algorithm) => {
    if (typeof algorithm !== "string") throw nodeError($TypeError, "ERR_INVALID_ARG_TYPE", 'The "algorithm" argument must be of type string.');
    const name = algorithm.toLowerCase().replace(/^rsa-/, "").replace(/^sha-/, "sha");
    if (HASHES[name] === undefined) throw nodeError($Error, "ERR_OSSL_EVP_UNSUPPORTED", "Digest method not supported");
    return name;
  };
  const bytesFor = (data, encoding) => (typeof data === "string" ? encodedBytes(data, encoding === "buffer" ? "utf8" : encoding) : asBytes(data, "data"));
  const result = (bytes, encoding) => (encoding === undefined || encoding === null || encoding === "buffer"
    ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length) : decodedText(bytes, encoding));
  const finalized = () => nodeError($Error, "ERR_CRYPTO_HASH_FINALIZED", "Digest already called");

  class Hash {
    #hasher;

    constructor(hasher) { this.#hasher = hasher; }

    update(data, encoding) {
      if (this.#hasher === null) throw finalized();
      this.#hasher.update(bytesFor(data, encoding));
      return this;
    }
    digest(encoding) {
      if (this.#hasher === null) throw finalized();
      const bytes = this.#hasher.digest();
      this.#hasher = null;
      return result(bytes, encoding);
    }
    copy() {
      if (this.#hasher === null) throw finalized();
      return new Hash(new Hasher(this.#hasher.name, this.#hasher));
    }
  }
  class Hmac {
    #mac;

    constructor(mac) { this.#mac = mac; }

    update(data, encoding) {
      if (this.#mac === null) throw finalized();
      this.#mac.update(bytesFor(data, encoding));
      return this;
    }
    digest(encoding) {
      if (this.#mac === null) return result(new $Uint8Array(), encoding);
      const bytes = this.#mac.digest();
      this.#mac = null;
      return result(bytes, encoding);
    }
  }

  const outOfRange = (name, rule, value) => nodeError($RangeError, "ERR_OUT_OF_RANGE",
    `The value of "${name}" is out of range. It must be ${rule}. Received ${textOf(value)}`);
  const fields = {
    createHash: (algorithm) => new Hash(new Hasher(hashName(algorithm))),
    createHmac: (algorithm, key) => new Hmac(new Mac(hashName(algorithm), bytesFor(key))),
    hash: (algorithm, data, encoding = "hex") => result(new Hasher(hashName(algorithm)).update(bytesFor(data)).digest(), encoding),
    getHashes: () => ownKeys(HASHES),
    randomUUID: () => web.crypto.randomUUID(),
    randomBytes(size, callback) {
      if (!(size >= 0 && size < 2 ** 31)) throw outOfRange("size", ">= 0 && <= 2147483647", size);
      const bytes = Buffer.alloc(size);
      randomBytes(bytes);
      if (callback === undefined) return bytes;
      then(resolved(), () => callback(null, bytes));
    },
    randomFillSync(buffer, offset = 0, size = buffer.byteLength - offset) {
      randomBytes(asBytes(buffer, "buffer").subarray(offset, offset + size));
      return buffer;
    },
    randomInt(low, high, callback) {
      if (high === undefined || typeof high === "function") [low, high, callback] = [0, low, high];
      const range = high - low;
      if (!(range > 0 && range <= 2 ** 48 - 1)) throw outOfRange("max", `greater than the value of "min" (${low})`, high);
      const limit = 2 ** 48 - (2 ** 48 % range);
      let value;
      do {
        value = 0;
        for (const byte of randomBytes(new $Uint8Array(6))) value = value * 256 + byte;
      } while (value >= limit);
      value = low + (value % range);
      if (callback === undefined) return value;
      then(resolved(), () => callback(null, value));
    },
    timingSafeEqual(a, b) {
      const left = asBytes(a, "buf1");
      const right = asBytes(b, "buf2");
      if (left.length !== right.length) {
        throw nodeError($RangeError, "ERR_CRYPTO_TIMING_SAFE_EQUAL_LENGTH", "Input buffers must have the same byte length");
      }
      let difference = 0;
      for (let i = 0; i < left.length; i++) difference |= left[i] ^ right[i];
      return difference === 0;
    },
    getRandomValues: (array) => web.crypto.getRandomValues(array),
    Hash, Hmac,
    get webcrypto() { return web.crypto; },
    get subtle() { return web.crypto.subtle; },
  };
  return fields;
});
