// node:buffer, and the global Buffer.
// Names: Buffer node:buffer "buffer" 'buffer'
// Needs: encoding node/module

const {
  $Array, $DataView, $Math, $Number, $RangeError, $String, $Symbol, $TypeError, $Uint8Array, GLOBAL, INSPECT, Units,
  bytesOf, charCode, create, defineProperty, floor, freeze, fromBase64, getOwnPropertyDescriptor,
  getOwnPropertyNames, isArray, isAscii, isBuffer, isView, latin1, nodeError, nodeGlobal, nodeModule, once,
  received, s, setPrototypeOf, toBase64, uncurry, utf8, utf8Plain, web, wrongArgument,
} = core;

const nodeBuffer = once(() => {
  const NAMES = create(null);
  for (const [name, ...more] of [["utf8", "utf-8"], ["hex"], ["base64"], ["base64url"], ["latin1", "binary"], ["ascii"],
    ["utf16le", "utf-16le", "ucs2", "ucs-2"]]) for (const one of [name, ...more]) NAMES[one] = name;
  const encodingOf = (encoding) => {
    if (encoding === undefined || encoding === null || encoding === "") return "utf8";
    const name = NAMES[`${encoding}`.toLowerCase()];
    if (name === undefined) throw nodeError($TypeError, "ERR_UNKNOWN_ENCODING", `Unknown encoding: ${encoding}`);
    return name;
  };

  const lenientBase64 = (text) => {
    let clean = text.replace(/=.*$/s, "").replaceAll("-", "+").replaceAll("_", "/").replace(/[^A-Za-z0-9+/]/g, "");
    if (clean.length % 4 === 1) clean = clean.slice(0, -1);
    return fromBase64(clean);
  };
  const encoded = (text, encoding) => {
    switch (encodingOf(encoding)) {
      case "utf8": return utf8(text);
      case "hex": return $Uint8Array.fromHex(/^(?:[0-9a-fA-F]{2})*/.exec(text)[0]);
      case "base64": case "base64url": return lenientBase64(text);
      case "utf16le": {
        const bytes = new $Uint8Array(2 * text.length);
        for (let i = 0; i < text.length; i++) {
          const unit = charCode(text, i);
          bytes[2 * i] = unit & 255;
          bytes[2 * i + 1] = unit >> 8;
        }
        return bytes;
      }
      default: {
        const bytes = new $Uint8Array(text.length);
        for (let i = 0; i < text.length; i++) bytes[i] = charCode(text, i);
        return bytes;
      }
    }
  };
  const decoded = (bytes, encoding) => {
    switch (encodingOf(encoding)) {
      case "utf8": return utf8Plain(bytes);
      case "hex": return toHex(bytes, []);
      case "base64": return toBase64(bytes, []);
      case "base64url": return toBase64(bytes, [{ alphabet: "base64url", omitPadding: true }]);
      case "ascii": return latin1(bytes.map((byte) => byte & 127));
      case "utf16le": {
        const units = new Units();
        for (let i = 0; i + 1 < bytes.length; i += 2) units.add(bytes[i] | (bytes[i + 1] << 8));
        return units.text();
      }
      default: return latin1(bytes);
    }
  };
  const plain = (buffer) => new $Uint8Array(buffer.buffer, buffer.byteOffset, buffer.length);
  const wrap = (bytes) => setPrototypeOf(new $Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength), Buffer.prototype);
  const firstType = (expected, value) => nodeError($TypeError, "ERR_INVALID_ARG_TYPE",
    `The first argument must be ${expected}. Received ${received(value)}`);
  const asBytes = (value, name = "value") => {
    const bytes = bytesOf(value);
    if (bytes === undefined) throw wrongArgument(name, "an instance of Buffer or Uint8Array", value);
    return bytes;
  };
  const sizeOf = (size) => {
    if (typeof size !== "number") throw wrongArgument("size", "of type number", size);
    if (!(size >= 0 && size <= 2 ** 32)) throw nodeError($RangeError, "ERR_OUT_OF_RANGE", `The value of "size" is out of range. It must be >= 0 && <= ${2 ** 32}. Received ${size}`);
    return floor(size);
  };
  const compareBytes = (a, b) => {
    const length = $Math.min(a.length, b.length);
    for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i] < b[i] ? -1 : 1;
    return $Math.sign(a.length - b.length);
  };
  const clamp = (value, length, fallback) => {
    if (value === undefined) return fallback;
    const at = $Math.trunc($Number(value)) || 0;
    return at < 0 ? $Math.max(length + at, 0) : $Math.min(at, length);
  };

  class BufferClass extends $Uint8Array {
    static alloc(size, fill, encoding) {
      const buffer = wrap(new $Uint8Array(sizeOf(size)));
      return fill === undefined || fill === 0 ? buffer : buffer.fill(fill, encoding);
    }
    static allocUnsafe(size) { return Buffer.alloc(size); }
    static allocUnsafeSlow(size) { return Buffer.alloc(size); }

    static from(value, encoding, length) {
      if (typeof value === "string") return wrap(encoded(value, encoding));
      if (typeof value === "object" && value !== null) {
        if (isBuffer(value)) return wrap(new $Uint8Array(value, encoding, length));
        if (isView(value)) return wrap($Uint8Array.from(value));
        if (value instanceof $String) return Buffer.from(value.valueOf(), encoding);
        if (typeof value.length === "number") return wrap($Uint8Array.from(value, (item) => item & 255));
        if (value.type === "Buffer" && isArray(value.data)) return wrap($Uint8Array.from(value.data));
        const primitive = value[$Symbol.toPrimitive]?.("string") ?? value.valueOf?.();
        if (primitive !== undefined && primitive !== null && primitive !== value) return Buffer.from(primitive, encoding, length);
      }
      throw firstType("of type string or an instance of Buffer, ArrayBuffer, or Array or an Array-like Object", value);
    }
    static of(...items) { return wrap($Uint8Array.of(...items)); }
    static copyBytesFrom(view, offset = 0, length = view.length - offset) {
      const part = view.subarray(offset, offset + length);
      return wrap(new $Uint8Array(part.buffer.slice(part.byteOffset, part.byteOffset + part.byteLength)));
    }
    static isBuffer(value) { return value instanceof Buffer; }
    static isEncoding(encoding) { return typeof encoding === "string" && NAMES[encoding.toLowerCase()] !== undefined; }
    static byteLength(value, encoding) {
      if (typeof value === "string") return encoded(value, encoding).length;
      return asBytes(value, "string").length;
    }
    static compare(a, b) { return compareBytes(asBytes(a, "buf1"), asBytes(b, "buf2")); }
    static concat(list, total) {
      if (!isArray(list)) throw wrongArgument("list", "an instance of Array", list);
      const parts = list.map((item, i) => asBytes(item, `list[${i}]`));
      const size = total ?? parts.reduce((sum, part) => sum + part.length, 0);
      const all = new $Uint8Array(size);
      let at = 0;
      for (const part of parts) {
        if (at >= size) break;
        all.set(part.subarray(0, size - at), at);
        at += part.length;
      }
      return wrap(all);
    }

    get parent() { return this.buffer; }
    get offset() { return this.byteOffset; }

    toString(encoding, start, end) {
      const from = start === undefined ? 0 : $Math.max(0, $Math.trunc(start) || 0);
      const to = end === undefined ? this.length : $Math.min(this.length, $Math.trunc(end) || 0);
      return from >= to ? "" : decoded(plain(this).subarray(from, to), encoding);
    }
    toLocaleString(encoding, start, end) { return this.toString(encoding, start, end); }
    toJSON() { return { type: "Buffer", data: $Array.from(plain(this)) }; }
    equals(other) {
      const bytes = asBytes(other, "otherBuffer");
      return bytes.length === this.length && compareBytes(plain(this), bytes) === 0;
    }
    compare(target, targetStart = 0, targetEnd, start = 0, end = this.length) {
      const bytes = asBytes(target, "target");
      return compareBytes(plain(this).subarray(start, end), bytes.subarray(targetStart, targetEnd));
    }
    slice(start, end) { return wrap(plain(this).subarray(start, end)); }
    subarray(start, end) { return wrap(plain(this).subarray(start, end)); }
    copy(target, targetStart = 0, start = 0, end = this.length) {
      const part = plain(this).subarray(start, end).subarray(0, $Math.max(0, target.length - targetStart));
      asBytes(target, "target").set(part, targetStart);
      return part.length;
    }
    write(text, offset, length, encoding) {
      if (typeof offset === "string") { encoding = offset; offset = undefined; length = undefined; }
      else if (typeof length === "string") { encoding = length; length = undefined; }
      const at = offset ?? 0;
      if (at < 0 || at > this.length) throw nodeError($RangeError, "ERR_OUT_OF_RANGE", 'The value of "offset" is out of range.');
      const room = $Math.min(length ?? this.length, this.length - at);
      let bytes = encoded(text, encoding);
      if (bytes.length > room) {
        let cut = room;
        if (encodingOf(encoding) === "utf8") while (cut > 0 && (bytes[cut] & 0xc0) === 0x80) cut--;
        bytes = bytes.subarray(0, cut);
      }
      plain(this).set(bytes, at);
      return bytes.length;
    }
    fill(value, offset, end, encoding) {
      if (typeof offset === "string") { encoding = offset; offset = undefined; end = undefined; }
      else if (typeof end === "string") { encoding = end; end = undefined; }
      const target = plain(this).subarray(offset ?? 0, end ?? this.length);
      if (typeof value === "number" || typeof value === "boolean") { target.fill($Number(value) & 255); return this; }
      const bytes = typeof value === "string" ? encoded(value, encoding) : asBytes(value);
      if (bytes.length === 0) {
        if (typeof value === "string" && value !== "") throw nodeError($TypeError, "ERR_INVALID_ARG_VALUE", `The argument 'value' is invalid. Received '${value}'`);
        target.fill(0);
        return this;
      }
      for (let i = 0; i < target.length; i++) target[i] = bytes[i % bytes.length];
      return this;
    }
    indexOf(value, offset, encoding) { return find(this, value, offset, encoding, 1); }
    lastIndexOf(value, offset, encoding) { return find(this, value, offset, encoding, -1); }
    includes(value, offset, encoding) { return this.indexOf(value, offset, encoding) >= 0; }

    readUIntBE(offset, size) { return readInteger(this, offset, size, false, false); }
    readUIntLE(offset, size) { return readInteger(this, offset, size, true, false); }
    readIntBE(offset, size) { return readInteger(this, offset, size, false, true); }
    readIntLE(offset, size) { return readInteger(this, offset, size, true, true); }
    writeUIntBE(value, offset, size) { return writeInteger(this, value, offset, size, false, false); }
    writeUIntLE(value, offset, size) { return writeInteger(this, value, offset, size, true, false); }
    writeIntBE(value, offset, size) { return writeInteger(this, value, offset, size, false, true); }
    writeIntLE(value, offset, size) { return writeInteger(this, value, offset, size, true, true); }

    swap16() { return swapped(this, 2); }
    swap32() { return swapped(this, 4); }
    swap64() { return swapped(this, 8); }

    [INSPECT]() {
      const shown = toHex(plain(this).subarray(0, 50), []).replace(/(..)(?=.)/g, "$1 ");
      const more = this.length > 50 ? ` ... ${this.length - 50} more byte${this.length > 51 ? "s" : ""}` : "";
      return `<Buffer${shown === "" ? "" : ` ${shown}`}${more}>`;
    }
  }

  const find = (buffer, value, offset, encoding, direction) => {
    if (typeof offset === "string") { encoding = offset; offset = undefined; }
    const bytes = plain(buffer);
    let wanted;
    if (typeof value === "number") wanted = $Uint8Array.of(value & 255);
    else if (typeof value === "string") wanted = encoded(value, encoding);
    else wanted = asBytes(value);
    const last = bytes.length - wanted.length;
    let at = offset === undefined || $Number.isNaN($Number(offset)) ? (direction > 0 ? 0 : last) : $Math.trunc($Number(offset));
    if (at < 0) at += bytes.length;
    if (direction > 0) at = $Math.max(at, 0); else at = $Math.min(at, last);
    if (wanted.length === 0) return $Math.min(at, bytes.length);
    for (; at >= 0 && at <= last; at += direction) {
      let i = 0;
      while (i < wanted.length && bytes[at + i] === wanted[i]) i++;
      if (i === wanted.length) return at;
    }
    return -1;
  };
  const checkPlace = (buffer, offset, size) => {
    if (typeof offset !== "number") throw wrongArgument("offset", "of type number", offset);
    if (!$Number.isInteger(offset)) throw nodeError($RangeError, "ERR_OUT_OF_RANGE", `The value of "offset" is out of range. It must be an integer. Received ${offset}`);
    if (offset < 0 || offset + size > buffer.length) {
      if (buffer.length < size) throw nodeError($RangeError, "ERR_BUFFER_OUT_OF_BOUNDS", "Attempt to access memory outside buffer bounds");
      throw nodeError($RangeError, "ERR_OUT_OF_RANGE",
        `The value of "offset" is out of range. It must be >= 0 and <= ${buffer.length - size}. Received ${offset}`);
    }
  };
  const readInteger = (buffer, offset, size, little, signed) => {
    checkPlace(buffer, offset, size);
    let value = 0;
    for (let i = 0; i < size; i++) value = value * 256 + buffer[little ? offset + size - 1 - i : offset + i];
    return signed && value >= 2 ** (8 * size - 1) ? value - 2 ** (8 * size) : value;
  };
  const checkValue = (value, low, high) => {
    if (value < low || value > high) {
      throw nodeError($RangeError, "ERR_OUT_OF_RANGE", `The value of "value" is out of range. It must be >= ${low} and <= ${high}. Received ${value}`);
    }
  };
  const writeInteger = (buffer, value, offset, size, little, signed) => {
    const whole = $Number(value);
    checkValue(whole, signed ? -(2 ** (8 * size - 1)) : 0, signed ? 2 ** (8 * size - 1) - 1 : 2 ** (8 * size) - 1);
    checkPlace(buffer, offset, size);
    let left = $Math.trunc(whole);
    if (left < 0) left += 2 ** (8 * size);
    for (let i = 0; i < size; i++) {
      buffer[little ? offset + i : offset + size - 1 - i] = left % 256;
      left = floor(left / 256);
    }
    return offset + size;
  };
  const swapped = (buffer, size) => {
    if (buffer.length % size !== 0) throw nodeError($RangeError, "ERR_INVALID_BUFFER_SIZE", `Buffer size must be a multiple of ${8 * size}-bits`);
    for (let at = 0; at < buffer.length; at += size) plain(buffer).subarray(at, at + size).reverse();
    return buffer;
  };

  const proto = BufferClass.prototype;
  const method = (name, value) => defineProperty(proto, name, { value, writable: true, configurable: true });
  const alias = (name) => { if (name.includes("UInt")) method(name.replace("UInt", "Uint"), proto[name]); };
  for (const name of ["readUIntBE", "readUIntLE", "writeUIntBE", "writeUIntLE"]) alias(name);
  for (const [bits, size] of [["8", 1], ["16", 2], ["32", 4]]) {
    for (const kind of ["UInt", "Int"]) {
      for (const order of size === 1 ? [""] : ["LE", "BE"]) {
        const little = order === "LE";
        const signed = kind === "Int";
        method(`read${kind}${bits}${order}`, function read(offset = 0) { return readInteger(this, offset, size, little, signed); });
        method(`write${kind}${bits}${order}`, function write(value, offset = 0) { return writeInteger(this, value, offset, size, little, signed); });
        alias(`read${kind}${bits}${order}`);
        alias(`write${kind}${bits}${order}`);
      }
    }
  }
  for (const [name, size, getter, low, high] of [["Float", 4, "Float32"], ["Double", 8, "Float64"],
    ["BigInt64", 8, "BigInt64", -(2n ** 63n), 2n ** 63n - 1n], ["BigUInt64", 8, "BigUint64", 0n, 2n ** 64n - 1n]]) {
    for (const order of ["LE", "BE"]) {
      const view = (buffer) => new $DataView(buffer.buffer, buffer.byteOffset, buffer.length);
      method(`read${name}${order}`, function read(offset = 0) {
        checkPlace(this, offset, size);
        return view(this)[`get${getter}`](offset, order === "LE");
      });
      method(`write${name}${order}`, function write(value, offset = 0) {
        if (low !== undefined) checkValue(value, low, high);
        checkPlace(this, offset, size);
        view(this)[`set${getter}`](offset, value, order === "LE");
        return offset + size;
      });
      alias(`read${name}${order}`);
      alias(`write${name}${order}`);
    }
  }

  // `Buffer(…)` and `new Buffer(…)` of old, too.
  function Buffer(value, encoding, length) {
    return typeof value === "number" ? Buffer.alloc(value) : Buffer.from(value, encoding, length);
  }
  setPrototypeOf(Buffer, $Uint8Array);
  for (const name of getOwnPropertyNames(BufferClass)) {
    if (name !== "prototype" && name !== "length" && name !== "name") defineProperty(Buffer, name, getOwnPropertyDescriptor(BufferClass, name));
  }
  Buffer.poolSize = 8192;
  Buffer.prototype = proto;
  defineProperty(proto, "constructor", { value: Buffer, writable: true, configurable: true });

  const fields = {
    Buffer,
    SlowBuffer: Buffer,
    kMaxLength: 2 ** 32,
    kStringMaxLength: 2 ** 29 - 24,
    constants: freeze({ MAX_LENGTH: 2 ** 32, MAX_STRING_LENGTH: 2 ** 29 - 24 }),
    INSPECT_MAX_BYTES: 50,
    atob: GLOBAL.atob,
    btoa: GLOBAL.btoa,
    isAscii: (value) => isAscii(asBytes(value, "input")),
    isUtf8: (value) => {
      try { new web.TextDecoder("utf-8", { fatal: true }).decode(asBytes(value, "input")); return true; } catch { return false; }
    },
    transcode: (source, from, to) => Buffer.from(decoded(asBytes(source, "source"), from), to),
    get Blob() { return web.Blob; },
    get File() { return web.File; },
    encodedBytes: encoded,
    decodedText: decoded,
    asBytes,
  };
  return fields;
});

const toHex = uncurry($Uint8Array.prototype.toHex);

nodeModule(["node:buffer", "buffer"], () => {
  const { encodedBytes, decodedText, asBytes, ...fields } = nodeBuffer();
  return fields;
});
nodeGlobal("Buffer", () => nodeBuffer().Buffer);

core.assign(core, { nodeBuffer });
