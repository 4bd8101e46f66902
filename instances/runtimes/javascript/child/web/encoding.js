// Text as bytes and back.
// Names: TextEncoder TextDecoder atob btoa
// Needs: events

const {
  $RangeError, $String, $TypeError, $Uint8Array, GLOBAL, apply, are, bytesOf, create, define, domError, fromBase64,
  lazy, needs, the, toBase64, toWellFormed, viewTag, web, webClass,
} = core;

// Nothing is compiled to machine code here, so loops over characters are slow: what V8 does itself is used where it can
// be, down to `escape`, which with `decodeURIComponent` makes UTF-8 a text.
const { escape, unescape, encodeURIComponent, decodeURIComponent } = GLOBAL;
const NOT_ASCII = /[^\0-\x7f]/;
const NOT_LATIN1 = /[^\0-\xff]/;

/** The bytes of a text whose characters are bytes. */
function bytesOfLatin1(text) {
  const { length } = text;
  const bytes = new $Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** UTF-8 of a text; lone surrogates become U+FFFD. */
function utf8(text) {
  return bytesOfLatin1(NOT_ASCII.test(text) ? unescape(encodeURIComponent(toWellFormed(text, []))) : text);
}
const charCode = (text, i) => text.charCodeAt(i);
const { fromCharCode } = $String;
const UNITS_AT_ONCE = 8192;

/** UTF-16 code units collected into a text. */
class Units {
  #text = "";
  #units = [];

  add(unit) {
    this.#units[this.#units.length] = unit;
    if (this.#units.length === UNITS_AT_ONCE) this.#flush();
  }

  addCode(code) {
    if (code < 0x10000) { this.add(code); return; }
    this.add(0xd7c0 + (code >> 10));
    this.add(0xdc00 | (code & 0x3ff));
  }

  #flush() {
    this.#text += apply(fromCharCode, undefined, this.#units);
    this.#units = [];
  }

  text() {
    if (this.#units.length) this.#flush();
    return this.#text;
  }
}

/** The text of bytes that are each one code unit. */
function latin1(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += UNITS_AT_ONCE) {
    text += apply(fromCharCode, undefined, bytes.subarray(at, at + UNITS_AT_ONCE));
  }
  return text;
}

const isAscii = (bytes) => !NOT_ASCII.test(latin1(bytes));

/** The text of UTF-8 without anything wrong in it; undefined if there is. */
function quickUtf8(bytes) {
  const text = latin1(bytes);
  if (!NOT_ASCII.test(text)) return text;
  try { return decodeURIComponent(escape(text)); } catch { return undefined; }
}

/** Where the last character begins, if it is not complete; else the length. */
function wholeCharacters(bytes) {
  for (let back = 1; back <= 3 && back <= bytes.length; back++) {
    const byte = bytes[bytes.length - back];
    if (byte >= 0xc0) return bytes.length - (back < (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) ? back : 0);
    if (byte < 0x80) break;
  }
  return bytes.length;
}

/** Decoders keep what a chunk ended in the middle of. `feed(bytes, units, last)` throws `bad` where it is fatal. */
class Utf8Decoder {
  #code = 0;
  #needed = 0;
  #lower = 0x80;
  #upper = 0xbf;

  get idle() { return this.#needed === 0; }

  feed(bytes, units, last, fatal) {
    const broken = () => {
      if (fatal) throw new $TypeError("The encoded data was not valid for encoding utf-8");
      units.add(0xfffd);
    };
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i];
      if (this.#needed === 0) {
        if (byte < 0x80) units.add(byte);
        else if (byte >= 0xc2 && byte <= 0xdf) { this.#needed = 1; this.#code = byte & 0x1f; }
        else if (byte >= 0xe0 && byte <= 0xef) {
          if (byte === 0xe0) this.#lower = 0xa0;
          if (byte === 0xed) this.#upper = 0x9f;
          this.#needed = 2;
          this.#code = byte & 0xf;
        } else if (byte >= 0xf0 && byte <= 0xf4) {
          if (byte === 0xf0) this.#lower = 0x90;
          if (byte === 0xf4) this.#upper = 0x8f;
          this.#needed = 3;
          this.#code = byte & 7;
        } else broken();
        continue;
      }
      if (byte < this.#lower || byte > this.#upper) {
        this.#needed = 0;
        this.#lower = 0x80;
        this.#upper = 0xbf;
        broken();
        i--;
        continue;
      }
      this.#lower = 0x80;
      this.#upper = 0xbf;
      this.#code = (this.#code << 6) | (byte & 63);
      if (--this.#needed === 0) units.addCode(this.#code);
    }
    if (last && this.#needed) {
      this.#needed = 0;
      this.#lower = 0x80;
      this.#upper = 0xbf;
      broken();
    }
  }
}

class Utf16Decoder {
  #byte = -1;
  #lead = -1;
  #big;

  constructor(big) { this.#big = big; }

  get idle() { return this.#byte < 0 && this.#lead < 0; }

  feed(bytes, units, last, fatal) {
    const broken = () => {
      if (fatal) throw new $TypeError("The encoded data was not valid for encoding utf-16");
      units.add(0xfffd);
    };
    for (let i = 0; i < bytes.length; i++) {
      if (this.#byte < 0) { this.#byte = bytes[i]; continue; }
      const unit = this.#big ? (this.#byte << 8) | bytes[i] : (bytes[i] << 8) | this.#byte;
      this.#byte = -1;
      if (this.#lead >= 0) {
        const lead = this.#lead;
        this.#lead = -1;
        if (unit >= 0xdc00 && unit < 0xe000) { units.add(lead); units.add(unit); continue; }
        broken();
      }
      if (unit >= 0xd800 && unit < 0xdc00) this.#lead = unit;
      else if (unit >= 0xdc00 && unit < 0xe000) broken();
      else units.add(unit);
    }
    if (last && (this.#byte >= 0 || this.#lead >= 0)) {
      this.#byte = this.#lead = -1;
      broken();
    }
  }
}

/** Windows-1252, which the web calls latin1. */
class Latin1Decoder {
  idle = true;

  feed(bytes, units) {
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i];
      units.add(byte > 0x7f && byte < 0xa0 ? charCode(WINDOWS_1252, byte - 0x80) : byte);
    }
  }
}
const WINDOWS_1252 = "\u20ac\x81\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\x8d\u017d\x8f"
  + "\x90\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\x9d\u017e\u0178";

/** Bytes as UTF-8, without a byte order mark: what bodies are read as. */
function utf8Text(bytes) {
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) bytes = bytes.subarray(3);
  return utf8Plain(bytes);
}

function utf8Plain(bytes) {
  const text = quickUtf8(bytes);
  if (text !== undefined) return text;
  const units = new Units();
  new Utf8Decoder().feed(bytes, units, true, false);
  return units.text();
}

lazy(["TextEncoder", "TextDecoder"], () => {
  const LABELS = create(null);
  for (const [name, labels] of [
    ["utf-8", "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8"],
    ["utf-16le", "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le"],
    ["utf-16be", "unicodefffe utf-16be"],
    ["windows-1252", "ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1 iso88591 "
      + "iso_8859-1 iso_8859-1:1987 l1 latin1 us-ascii windows-1252 x-cp1252"],
  ]) for (const label of labels.split(" ")) LABELS[label] = name;

  class TextEncoder {
    get encoding() { return "utf-8"; }
    encode(text = "") { return utf8(`${text}`); }

    encodeInto(text, into) {
      needs(arguments, 2, "encodeInto");
      if (viewTag(into, []) !== "Uint8Array") throw new $TypeError("encodeInto: the destination must be a Uint8Array");
      const source = toWellFormed(`${text}`, []);
      let read = 0;
      let written = 0;
      while (read < source.length) {
        const code = source.codePointAt(read);
        const size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        if (written + size > into.length) break;
        if (size === 1) into[written] = code;
        else into.set(utf8(source.slice(read, read + (size === 4 ? 2 : 1))), written);
        written += size;
        read += size === 4 ? 2 : 1;
      }
      return { read, written };
    }
  }

  class TextDecoder {
    #encoding; #fatal; #keepMark; #decoder;
    #fresh = true;

    constructor(label = "utf-8", options = {}) {
      const name = LABELS[`${label}`.trim().toLowerCase()];
      if (name === undefined) throw new $RangeError(`"${label}" is not an encoding that is supported`);
      this.#encoding = name;
      this.#fatal = !!options?.fatal;
      this.#keepMark = !!options?.ignoreBOM;
    }

    get encoding() { return this.#encoding; }
    get fatal() { return this.#fatal; }
    get ignoreBOM() { return this.#keepMark; }

    decode(input, options) {
      const bytes = input === undefined ? new $Uint8Array() : bytesOf(input);
      if (bytes === undefined) throw new $TypeError("decode: the input must be an ArrayBuffer or a view of one");
      const last = !options?.stream;
      const fresh = this.#fresh;
      let quick = "";
      let rest = bytes;
      if (this.#encoding === "utf-8" && (this.#decoder === undefined || this.#decoder.idle)) {
        const whole = last ? bytes.length : wholeCharacters(bytes);
        const found = quickUtf8(bytes.subarray(0, whole));
        if (found !== undefined) {
          quick = found;
          rest = bytes.subarray(whole);
        }
      }
      this.#decoder ??= this.#encoding === "utf-8" ? new Utf8Decoder()
        : this.#encoding === "windows-1252" ? new Latin1Decoder() : new Utf16Decoder(this.#encoding === "utf-16be");
      const units = new Units();
      try {
        this.#decoder.feed(rest, units, last, this.#fatal);
      } catch (error) {
        this.#decoder = undefined;
        this.#fresh = true;
        throw error;
      }
      const text = quick + units.text();
      this.#fresh = last ? true : fresh && text === "";
      const marked = fresh && !this.#keepMark && this.#encoding !== "windows-1252" && text[0] === "\ufeff";
      return marked ? text.slice(1) : text;
    }
  }
  webClass(TextEncoder);
  webClass(TextDecoder);
  return { TextEncoder, TextDecoder };
});

const bytesToBase64 = (bytes, options) => toBase64(bytes, options === undefined ? [] : [options]);
const invalidCharacter = (message) => domError("InvalidCharacterError", message);

define("btoa", function btoa(text) {
  needs(arguments, 1, "btoa");
  const source = `${text}`;
  if (NOT_LATIN1.test(source)) throw invalidCharacter("btoa: the text has characters outside of Latin-1");
  return bytesToBase64(bytesOfLatin1(source));
});
define("atob", function atob(text) {
  needs(arguments, 1, "atob");
  let source = `${text}`.replace(/[\t\n\f\r ]/g, "");
  if (source.length % 4 === 0) source = source.replace(/==?$/, "");
  if (source.length % 4 === 1 || /[^A-Za-z0-9+/]/.test(source)) throw invalidCharacter("atob: the text is not correctly encoded");
  return latin1(fromBase64(source));
});

core.assign(core, { utf8, charCode, fromCharCode, latin1, utf8Text, utf8Plain, isAscii, Units, Utf8Decoder, bytesToBase64
  });
