// URL and URLSearchParams, after the URL Standard. Host names that are not ASCII are mapped by NFKC and lower case, which
// is what the standard's mapping does to names people register.
// Names: URL URLSearchParams
// Needs: encoding

const {
  $Array, $Number, $Reflect, $Symbol, $TypeError, apply, assign, create, defineProperty, floor, fromCharCode,
  getOwnPropertyDescriptor, known, lazy, needs, parse, s, the, toWellFormed, utf8, utf8Plain, webClass, when,
} = core;

lazy(["URL", "URLSearchParams"], () => {
  const SPECIAL = create(null);
  assign(SPECIAL, { "http:": "80", "https:": "443", "ws:": "80", "wss:": "443", "ftp:": "21", "file:": "" });
  const special = (url) => SPECIAL[url.scheme] !== undefined;

  // --- percent encoding ----------------------------------------------------------------------------------------------

  const setOf = (text, base) => {
    const found = base ? base.slice() : [];
    for (let i = 0; i < text.length; i++) found[text.charCodeAt(i)] = true;
    return found;
  };
  const CONTROLS = [];
  for (let i = 0; i < 0x20; i++) CONTROLS[i] = true;
  CONTROLS[0x7f] = true;
  const FRAGMENT = setOf(" \"<>`", CONTROLS);
  const QUERY = setOf(" \"#<>", CONTROLS);
  const SPECIAL_QUERY = setOf("'", QUERY);
  const PATH = setOf("?^`{}", QUERY);
  const USERINFO = setOf("/:;=@[\\]|", PATH);
  const HEX = "0123456789ABCDEF";
  const escaped = (byte) => `%${HEX[byte >> 4]}${HEX[byte & 15]}`;

  const encodeWith = (text, set) => {
    let result = "";
    for (const char of text) {
      const code = char.codePointAt(0);
      if (code < 0x80) result += set[code] ? escaped(code) : char;
      else for (const byte of utf8(char)) result += escaped(byte);
    }
    return result;
  };

  const hexValue = (char) => (char === undefined || !/^[0-9A-Fa-f]$/.test(char) ? -1 : $Number.parseInt(char, 16));
  /** Bytes of a text in which %XX stands for a byte. */
  const percentDecoded = (text) => {
    if (!text.includes("%")) return utf8(text);
    const bytes = utf8(text);
    let at = 0;
    for (let i = 0; i < bytes.length; i++) {
      if (bytes[i] === 37 && i + 2 < bytes.length) {
        const high = hexValue(fromCharCode(bytes[i + 1]));
        const low = hexValue(fromCharCode(bytes[i + 2]));
        if (high >= 0 && low >= 0) {
          bytes[at++] = high * 16 + low;
          i += 2;
          continue;
        }
      }
      bytes[at++] = bytes[i];
    }
    return bytes.subarray(0, at);
  };

  // --- hosts ---------------------------------------------------------------------------------------------------------

  const FORBIDDEN_HOST = /[\0\t\n\r #/:<>?@[\\\]^|]/;
  const FORBIDDEN_DOMAIN = /[\0-\x20"#%/:<>?@[\\\]^`{|}\x7f]/;

  const punycode = (label) => {  // RFC 3492
    const input = [...label].map((char) => char.codePointAt(0));
    let output = input.filter((code) => code < 0x80).map((code) => fromCharCode(code)).join("");
    const basic = output.length;
    let handled = basic;
    if (basic) output += "-";
    let n = 128;
    let delta = 0;
    let bias = 72;
    while (handled < input.length) {
      let next = 0x7fffffff;
      for (const code of input) if (code >= n && code < next) next = code;
      delta += (next - n) * (handled + 1);
      n = next;
      for (const code of input) {
        if (code < n) delta++;
        if (code !== n) continue;
        let q = delta;
        for (let k = 36; ; k += 36) {
          const t = k <= bias ? 1 : k >= bias + 26 ? 26 : k - bias;
          if (q < t) break;
          const digit = t + ((q - t) % (36 - t));
          output += fromCharCode(digit < 26 ? digit + 97 : digit + 22);
          q = floor((q - t) / (36 - t));
        }
        output += fromCharCode(q < 26 ? q + 97 : q + 22);
        delta = floor(delta / (handled === basic ? 700 : 2));
        delta += floor(delta / (handled + 1));
        let k = 0;
        for (; delta > 455; k += 36) delta = floor(delta / 35);
        bias = k + floor((36 * delta) / (delta + 38));
        delta = 0;
        handled++;
      }
      delta++;
      n++;
    }
    return `xn--${output}`;
  };

  /** A domain in ASCII; null for what is none. */
  const toAscii = (domain) => {
    if (/^[\0-\x7f]*$/.test(domain)) return domain.toLowerCase();
    const mapped = domain.replace(/[\u00ad\u200b\u2060\ufeff]/g, "").replace(/[\u3002\uff0e\uff61]/g, ".")
      .normalize("NFKC").toLowerCase().normalize("NFC");
    const labels = mapped.split(".").map((label) => (/^[\0-\x7f]*$/.test(label) ? label : punycode(label)));
    if (labels.some((label) => label.length > 63) || /\ufffd/.test(mapped)) return null;
    const ascii = labels.join(".");
    return ascii === "" ? null : ascii;
  };

  const numberOf = (text) => {
    if (text === "") return NaN;
    if (/^0x[0-9a-f]*$/i.test(text)) return text.length === 2 ? 0 : $Number.parseInt(text, 16);
    if (text[0] === "0" && text.length > 1) return /^[0-7]+$/.test(text) ? $Number.parseInt(text, 8) : NaN;
    return /^[0-9]+$/.test(text) ? $Number(text) : NaN;
  };

  /** An IPv4 address; undefined for what does not look like one, null for a broken one. */
  const ipv4 = (domain) => {
    const parts = domain.split(".");
    if (parts[parts.length - 1] === "" && parts.length > 1) parts.pop();
    const end = parts[parts.length - 1];
    if (!/^[0-9]+$/.test(end) && !/^0x[0-9a-f]*$/i.test(end)) return undefined;
    if (parts.length > 4) return null;
    const numbers = parts.map(numberOf);
    const tail = numbers.pop();
    if (numbers.some((number) => !(number <= 255)) || !(tail < 256 ** (4 - numbers.length))) return null;
    let address = tail;
    numbers.forEach((number, i) => { address += number * 256 ** (3 - i); });
    return [24, 16, 8, 0].map((shift) => floor(address / 2 ** shift) % 256).join(".");
  };

  const ipv6 = (text) => {
    const pieces = [];
    let compress = -1;
    let i = 0;
    if (text[0] === ":") {
      if (text[1] !== ":") return null;
      i = 2;
      compress = 0;
    }
    while (i < text.length) {
      if (pieces.length === 8) return null;
      if (text[i] === ":") {
        if (compress >= 0) return null;
        i++;
        compress = pieces.length;
        continue;
      }
      const found = /^[0-9a-fA-F]{0,4}/.exec(text.slice(i))[0];
      const after = text[i + found.length];
      if (after === ".") {
        if (pieces.length > 6) return null;
        const quad = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text.slice(i));
        if (quad === null || quad.slice(1).some((part) => $Number(part) > 255 || /^0./.test(part))) return null;
        pieces.push($Number(quad[1]) * 256 + $Number(quad[2]), $Number(quad[3]) * 256 + $Number(quad[4]));
        i = text.length;
        break;
      }
      if (found === "" || (after !== ":" && after !== undefined)) return null;
      i += found.length;
      if (after === ":" && ++i === text.length) return null;
      pieces.push($Number.parseInt(found, 16));
    }
    if (compress >= 0) {
      if (pieces.length === 8) return null;
      pieces.splice(compress, 0, ...$Array(8 - pieces.length).fill(0));
    }
    if (pieces.length !== 8) return null;
    let best = { at: -1, length: 1 };
    for (let at = 0; at < 8; at++) {
      let { length } = [];
      while (at + length < 8 && pieces[at + length] === 0) length++;
      if (length > best.length) best = { at, length };
      if (length) at += length - 1;
    }
    if (best.at < 0) return `[${pieces.map((piece) => piece.toString(16)).join(":")}]`;
    const hex = (from, to) => pieces.slice(from, to).map((piece) => piece.toString(16)).join(":");
    return `[${hex(0, best.at)}::${hex(best.at + best.length, 8)}]`;
  };

  /** A host as it is serialised; null for what is none. */
  const parseHost = (text, isSpecial) => {
    if (text[0] === "[") return text.endsWith("]") ? ipv6(text.slice(1, -1)) : null;
    if (!isSpecial) return FORBIDDEN_HOST.test(text) ? null : encodeWith(text, CONTROLS);
    const ascii = toAscii(utf8Plain(percentDecoded(text)));
    if (ascii === null || ascii === "" || FORBIDDEN_DOMAIN.test(ascii)) return null;
    const address = ipv4(ascii);
    return address === undefined ? ascii : address;
  };

  // --- parsing -------------------------------------------------------------------------------------------------------

  const isDrive = (text) => /^[A-Za-z][:|]$/.test(text);
  const startsWithDrive = (text) => /^[A-Za-z][:|](?:[/\\?#]|$)/.test(text);
  const singleDot = (part) => part === "." || /^%2e$/i.test(part);
  const doubleDot = (part) => /^(?:\.|%2e)(?:\.|%2e)$/i.test(part);
  const shorten = (url) => {
    if (url.scheme === "file:" && url.path.length === 1 && /^[A-Za-z]:$/.test(url.path[0])) return;
    url.path.pop();
  };
  const noCredentials = (url) => url.host === null || url.host === "" || url.scheme === "file:";

  /** Scheme, credentials, host, port, path (text when opaque), query, fragment; null for what is no URL. */
  const parseUrl = (input, base) => {
    const text = input.replace(/^[\0-\x20]+|[\0-\x20]+$/g, "").replace(/[\t\n\r]/g, "");
    const url = { scheme: "", user: "", password: "", host: null, port: "", path: [], query: null, fragment: null };
    const hash = text.indexOf("#");
    let rest = hash < 0 ? text : text.slice(0, hash);
    if (hash >= 0) url.fragment = encodeWith(text.slice(hash + 1), FRAGMENT);
    const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(rest);
    if (scheme === null) {
      if (!base) return null;
      if (typeof base.path === "string") {
        if (rest !== "" || hash < 0) return null;
        return { ...base, fragment: url.fragment };
      }
      url.scheme = base.scheme;
      return base.scheme === "file:" ? parseFile(url, rest, base) : parseRelative(url, rest, base);
    }
    url.scheme = scheme[1].toLowerCase() + ":";
    rest = rest.slice(scheme[0].length);
    if (url.scheme === "file:") return parseFile(url, rest, base && base.scheme === "file:" ? base : null);
    if (special(url)) {
      if (base && base.scheme === url.scheme && !/^[/\\]{2}/.test(rest) && !/^\/[/\\]/.test(rest)) {
        if (!/^\/\//.test(rest)) return parseRelative(url, rest, base);
      }
      return parseAuthority(url, rest.replace(/^[/\\]+/, ""));
    }
    if (rest.startsWith("//")) return parseAuthority(url, rest.slice(2));
    if (rest.startsWith("/")) return parsePath(url, rest);
    const mark = rest.indexOf("?");
    let path = mark < 0 ? rest : rest.slice(0, mark);
    if (mark >= 0) url.query = encodeWith(rest.slice(mark + 1), QUERY);
    path = encodeWith(path, CONTROLS);
    url.path = url.query !== null || url.fragment !== null ? path.replace(/ $/, "%20") : path;
    return url;
  };

  const slashes = (url) => (special(url) ? /^[/\\]/ : /^\//);

  const parseRelative = (url, rest, base) => {
    const slash = slashes(url);
    if (slash.test(rest)) {
      if (slash.test(rest.slice(1))) {
        return parseAuthority(url, special(url) ? rest.replace(/^[/\\]+/, "") : rest.slice(2));
      }
      assign(url, { user: base.user, password: base.password, host: base.host, port: base.port });
      return parsePath(url, rest);
    }
    assign(url, { user: base.user, password: base.password, host: base.host, port: base.port, path: base.path.slice() });
    if (rest === "") { url.query = base.query; return url; }
    if (rest[0] === "?") return parsePath(url, rest, true);
    shorten(url);
    return parsePath(url, rest);
  };

  const parseFile = (url, rest, base) => {
    url.host = "";
    if (/^[/\\]/.test(rest)) {
      if (/^[/\\]/.test(rest.slice(1))) {
        rest = rest.slice(2);
        const end = /[/\\?]/.exec(rest);
        const name = end === null ? rest : rest.slice(0, end.index);
        if (isDrive(name)) return parsePath(url, rest);
        if (name !== "") {
          const host = parseHost(name, true);
          if (host === null) return null;
          url.host = host === "localhost" ? "" : host;
        }
        return parsePath(url, rest.slice(name.length));
      }
      if (base) {
        url.host = base.host;
        if (!startsWithDrive(rest.slice(1)) && base.path.length && /^[A-Za-z]:$/.test(base.path[0])) url.path = [base.path[0]];
      }
      return parsePath(url, rest);
    }
    if (!base) return parsePath(url, rest);
    assign(url, { host: base.host, path: base.path.slice() });
    if (rest === "") { url.query = base.query; return url; }
    if (rest[0] === "?") return parsePath(url, rest, true);
    if (startsWithDrive(rest)) url.path = []; else shorten(url);
    return parsePath(url, rest);
  };

  const parseAuthority = (url, rest) => {
    const end = (special(url) ? /[/\\?]/ : /[/?]/).exec(rest);
    const authority = end === null ? rest : rest.slice(0, end.index);
    const at = authority.lastIndexOf("@");
    if (at >= 0) {
      const credentials = authority.slice(0, at);
      const colon = credentials.indexOf(":");
      url.user = encodeWith(colon < 0 ? credentials : credentials.slice(0, colon), USERINFO);
      if (colon >= 0) url.password = encodeWith(credentials.slice(colon + 1), USERINFO);
    }
    const place = authority.slice(at + 1);
    const port = /:([^:\]]*)$/.exec(place);
    const name = port === null ? place : place.slice(0, port.index);
    if (name === "" && (special(url) || at >= 0 || port !== null)) return null;
    url.host = name === "" ? "" : parseHost(name, special(url));
    if (url.host === null) return null;
    if (port !== null && port[1] !== "" && !setPort(url, port[1])) return null;
    return parsePath(url, rest.slice(authority.length));
  };

  const setPort = (url, digits) => {
    if (!/^[0-9]+$/.test(digits) || $Number(digits) > 65535) return false;
    const port = `${$Number(digits)}`;
    url.port = SPECIAL[url.scheme] === port ? "" : port;
    return true;
  };

  /** The path and query in `rest`, onto what the path has already. */
  const parsePath = (url, rest, onlyQuery) => {
    const mark = rest.indexOf("?");
    if (mark >= 0) url.query = encodeWith(rest.slice(mark + 1), special(url) ? SPECIAL_QUERY : QUERY);
    if (!onlyQuery) walk(url, mark < 0 ? rest : rest.slice(0, mark));
    return url;
  };

  const walk = (url, path) => {
    const slash = slashes(url);
    if (path === "" && !special(url)) return;
    if (slash.test(path)) path = path.slice(1);
    const parts = path.split(special(url) ? /[/\\]/ : "/");
    parts.forEach((part, i) => {
      const last = i === parts.length - 1;
      if (doubleDot(part)) {
        shorten(url);
        if (last) url.path.push("");
      } else if (singleDot(part)) {
        if (last) url.path.push("");
      } else {
        if (url.scheme === "file:" && url.path.length === 0 && isDrive(part)) part = `${part[0]}:`;
        url.path.push(encodeWith(part, PATH));
      }
    });
  };

  const pathOf = (url) => (typeof url.path === "string" ? url.path : url.path.map((part) => `/${part}`).join(""));
  const hostOf = (url) => (url.host === null ? "" : url.host + (url.port === "" ? "" : `:${url.port}`));
  const serialise = (url, withFragment = true) => {
    let text = url.scheme;
    if (url.host !== null) {
      text += "//";
      if (url.user !== "" || url.password !== "") text += `${url.user}${url.password === "" ? "" : `:${url.password}`}@`;
      text += hostOf(url);
    } else if (typeof url.path !== "string" && url.path.length > 1 && url.path[0] === "") {
      text += "/.";
    }
    text += pathOf(url);
    if (url.query !== null) text += `?${url.query}`;
    return withFragment && url.fragment !== null ? `${text}#${url.fragment}` : text;
  };

  // --- URLSearchParams -----------------------------------------------------------------------------------------------

  const FORM_SAFE = /^[A-Za-z0-9*._-]$/;
  const formEncoded = (text) => {
    let result = "";
    for (const byte of utf8(text)) {
      const char = fromCharCode(byte);
      result += byte === 32 ? "+" : byte < 0x80 && FORM_SAFE.test(char) ? char : escaped(byte);
    }
    return result;
  };
  const formDecoded = (text) => utf8Plain(percentDecoded(text.replaceAll("+", " ")));
  const parseForm = (text) => text.split("&").filter((part) => part !== "").map((part) => {
    const equals = part.indexOf("=");
    return equals < 0 ? [formDecoded(part), ""] : [formDecoded(part.slice(0, equals)), formDecoded(part.slice(equals + 1))];
  });
  const wellFormed = (value) => toWellFormed(`${value}`, []);

  let attach, fill;
  class URLSearchParams {
    #pairs = [];
    #changed = null;

    constructor(init = "") {
      if (typeof init === "object" && init !== null || typeof init === "function") {
        const iterate = init[$Symbol.iterator];
        if (iterate !== undefined && iterate !== null) {
          for (const pair of init) {
            const fields = [...pair];
            if (fields.length !== 2) throw new $TypeError("URLSearchParams: each pair must have a name and a value");
            this.#pairs.push([wellFormed(fields[0]), wellFormed(fields[1])]);
          }
        } else {
          for (const key of $Reflect.ownKeys(init)) {
            if (!getOwnPropertyDescriptor(init, key)?.enumerable) continue;
            const name = wellFormed(key);
            const value = wellFormed(init[key]);
            const known = this.#pairs.find((pair) => pair[0] === name);
            if (known) known[1] = value; else this.#pairs.push([name, value]);
          }
        }
      } else {
        const text = wellFormed(init);
        this.#pairs = parseForm(text[0] === "?" ? text.slice(1) : text);
      }
    }

    static {
      attach = (params, changed) => { params.#changed = changed; };
      fill = (params, query) => { params.#pairs = parseForm(query ?? ""); };
    }

    #update() { if (this.#changed !== null) this.#changed(this.toString()); }

    get size() { return this.#pairs.length; }
    append(name, value) {
      needs(arguments, 2, "URLSearchParams.append");
      this.#pairs.push([wellFormed(name), wellFormed(value)]);
      this.#update();
    }
    delete(name, value) {
      needs(arguments, 1, "URLSearchParams.delete");
      const key = wellFormed(name);
      const wanted = value === undefined ? undefined : wellFormed(value);
      this.#pairs = this.#pairs.filter((pair) => pair[0] !== key || (wanted !== undefined && pair[1] !== wanted));
      this.#update();
    }
    get(name) {
      needs(arguments, 1, "URLSearchParams.get");
      const key = wellFormed(name);
      return this.#pairs.find((pair) => pair[0] === key)?.[1] ?? null;
    }
    getAll(name) {
      needs(arguments, 1, "URLSearchParams.getAll");
      const key = wellFormed(name);
      return this.#pairs.filter((pair) => pair[0] === key).map((pair) => pair[1]);
    }
    has(name, value) {
      needs(arguments, 1, "URLSearchParams.has");
      const key = wellFormed(name);
      const wanted = value === undefined ? undefined : wellFormed(value);
      return this.#pairs.some((pair) => pair[0] === key && (wanted === undefined || pair[1] === wanted));
    }
    set(name, value) {
      needs(arguments, 2, "URLSearchParams.set");
      const key = wellFormed(name);
      const text = wellFormed(value);
      const first = this.#pairs.find((pair) => pair[0] === key);
      if (first === undefined) {
        this.#pairs.push([key, text]);
      } else {
        first[1] = text;
        this.#pairs = this.#pairs.filter((pair) => pair === first || pair[0] !== key);
      }
      this.#update();
    }
    sort() {
      this.#pairs.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
      this.#update();
    }
    forEach(callback, self) {
      needs(arguments, 1, "URLSearchParams.forEach");
      for (let i = 0; i < this.#pairs.length; i++) apply(callback, self, [this.#pairs[i][1], this.#pairs[i][0], this]);
    }
    *entries() { for (let i = 0; i < this.#pairs.length; i++) yield [this.#pairs[i][0], this.#pairs[i][1]]; }
    *keys() { for (let i = 0; i < this.#pairs.length; i++) yield this.#pairs[i][0]; }
    *values() { for (let i = 0; i < this.#pairs.length; i++) yield this.#pairs[i][1]; }
    toString() { return this.#pairs.map(([name, value]) => `${formEncoded(name)}=${formEncoded(value)}`).join("&"); }
  }
  webClass(URLSearchParams);
  defineProperty(URLSearchParams.prototype, $Symbol.iterator, { value: URLSearchParams.prototype.entries, writable: true, configurable: true });

  // --- URL -----------------------------------------------------------------------------------------------------------

  const parsed = (input, base) => {
    let from = null;
    if (base !== undefined) {
      from = parseUrl(wellFormed(base), null);
      if (from === null) return null;
    }
    return parseUrl(wellFormed(input), from);
  };

  class URL {
    #url;
    #params = null;

    constructor(input, base) {
      needs(arguments, 1, "URL");
      this.#url = parsed(input, base);
      if (this.#url === null) {
        const error = new $TypeError("Invalid URL");
        error.code = "ERR_INVALID_URL";
        error.input = `${input}`;
        throw error;
      }
    }

    static canParse(input, base) {
      needs(arguments, 1, "URL.canParse");
      return parsed(input, base) !== null;
    }
    static parse(input, base) {
      needs(arguments, 1, "URL.parse");
      return URL.canParse(input, base) ? new URL(input, base) : null;
    }

    get href() { return serialise(this.#url); }
    set href(value) {
      const found = parseUrl(wellFormed(value), null);
      if (found === null) throw new $TypeError("Invalid URL");
      this.#url = found;
      if (this.#params !== null) fill(this.#params, found.query);
    }
    get origin() {
      const { scheme, path } = this.#url;
      if (scheme === "blob:") {
        const inner = parseUrl(path, null);
        return inner !== null && (inner.scheme === "http:" || inner.scheme === "https:") ? `${inner.scheme}//${hostOf(inner)}` : "null";
      }
      return SPECIAL[scheme] ? `${scheme}//${hostOf(this.#url)}` : "null";
    }
    get protocol() { return this.#url.scheme; }
    set protocol(value) {
      const found = /^([A-Za-z][A-Za-z0-9+.-]*)(?::|$)/.exec(wellFormed(value).replace(/[\t\n\r]/g, ""));
      if (found === null) return;
      const url = this.#url;
      const scheme = `${found[1].toLowerCase()}:`;
      if (special(url) !== (SPECIAL[scheme] !== undefined)) return;
      if (scheme === "file:" && (url.user !== "" || url.password !== "" || url.port !== "")) return;
      if (url.scheme === "file:" && url.host === "") return;
      url.scheme = scheme;
      if (SPECIAL[scheme] === url.port) url.port = "";
    }
    get username() { return this.#url.user; }
    set username(value) { if (!noCredentials(this.#url)) this.#url.user = encodeWith(wellFormed(value), USERINFO); }
    get password() { return this.#url.password; }
    set password(value) { if (!noCredentials(this.#url)) this.#url.password = encodeWith(wellFormed(value), USERINFO); }
    get host() { return hostOf(this.#url); }
    set host(value) { this.#place(wellFormed(value), true); }
    get hostname() { return this.#url.host ?? ""; }
    set hostname(value) { this.#place(wellFormed(value), false); }

    #place(text, withPort) {
      const url = this.#url;
      if (typeof url.path === "string") return;
      const found = (special(url) ? /^[^/\\?#]*/ : /^[^/?#]*/).exec(text.replace(/[\t\n\r]/g, ""))[0];
      const parts = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/s.exec(found);
      if (parts === null || (!withPort && parts[2] !== undefined)) return;
      if (parts[1] === "" && (special(url) && url.scheme !== "file:" || url.user !== "" || url.password !== "" || url.port !== "")) return;
      let host = parts[1] === "" ? "" : parseHost(parts[1], special(url));
      if (host === null) return;
      if (url.scheme === "file:" && host === "localhost") host = "";
      url.host = host;
      const digits = /^[0-9]+/.exec(parts[2] ?? "");
      if (digits !== null && url.scheme !== "file:") setPort(url, digits[0]);
    }

    get port() { return this.#url.port; }
    set port(value) {
      const url = this.#url;
      if (noCredentials(url)) return;
      const text = wellFormed(value).replace(/[\t\n\r]/g, "");
      const digits = /^[0-9]+/.exec(text);
      if (text === "") url.port = ""; else if (digits !== null) setPort(url, digits[0]);
    }
    get pathname() { return pathOf(this.#url); }
    set pathname(value) {
      const url = this.#url;
      if (typeof url.path === "string") return;
      const text = wellFormed(value).replace(/[\t\n\r]/g, "");
      url.path = [];
      walk(url, text.replaceAll("?", "%3F").replaceAll("#", "%23"));
    }
    get search() { return this.#url.query ? `?${this.#url.query}` : ""; }
    set search(value) {
      const text = wellFormed(value).replace(/[\t\n\r]/g, "");
      const url = this.#url;
      url.query = text === "" ? null : encodeWith(text[0] === "?" ? text.slice(1) : text, special(url) ? SPECIAL_QUERY : QUERY);
      if (this.#params !== null) fill(this.#params, url.query);
    }
    get searchParams() {
      if (this.#params === null) {
        this.#params = new URLSearchParams(this.#url.query === null ? "" : `?${this.#url.query}`);
        attach(this.#params, (text) => { this.#url.query = text === "" ? null : text; });
      }
      return this.#params;
    }
    get hash() { return this.#url.fragment ? `#${this.#url.fragment}` : ""; }
    set hash(value) {
      const text = wellFormed(value).replace(/[\t\n\r]/g, "");
      this.#url.fragment = text === "" ? null : encodeWith(text[0] === "#" ? text.slice(1) : text, FRAGMENT);
    }
    toString() { return this.href; }
    toJSON() { return this.href; }
  }
  webClass(URL);
  return { URL, URLSearchParams };
});
