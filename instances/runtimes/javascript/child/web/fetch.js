// Headers, Request, Response and fetch. The worker makes the call; a body stays with it until it is read, piece by piece.
// Names: fetch Headers Request Response
// Needs: forms url

const {
  $Number, $Object, $RangeError, $Reflect, $Symbol, $TypeError, $Uint8Array, SafeMap, SafeSet, apply, byteStream,
  bytesOf, cancelCall, charCode, define, defineProperty, drained, floor, formOf, fromBase64, fromCharCode,
  getOwnPropertyDescriptor, getOwnPropertyNames, here, hostCall, its, joined, known, latin1, lazy, multipart, needs,
  once, parse, s, setPrototypeOf, settled, stringify, textOf, the, then, toBase64, toWellFormed, utf8, utf8Text,
  web, webClass,
} = core;

const HTTP_TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const HTTP_VALUE = /^[^\0\r\n]*$/;

lazy(["Headers"], () => {
  const nameOf = (name) => {
    const text = `${name}`;
    if (!HTTP_TOKEN.test(text)) throw new $TypeError(`Invalid header name: ${stringify(text)}`);
    return text.toLowerCase();
  };
  const valueOf = (value) => {
    const text = `${value}`.replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, "");
    if (!HTTP_VALUE.test(text) || /[^\0-\xff]/.test(text)) throw new $TypeError(`Invalid header value: ${stringify(text)}`);
    return text;
  };
  let guard, rawOf;

  class Headers {
    #values = new SafeMap();  // name to list of values
    #fixed = false;

    constructor(init) {
      if (init === undefined) return;
      if (init === null || (typeof init !== "object" && typeof init !== "function")) {
        throw new $TypeError("Headers: the initial headers must be an object or a sequence of pairs");
      }
      if (init instanceof Headers) {
        for (const [name, values] of init.#values) this.#values.set(name, [...values]);
      } else if (init[$Symbol.iterator] !== undefined) {
        for (const pair of init) {
          const fields = [...pair];
          if (fields.length !== 2) throw new $TypeError("Headers: each pair must have a name and a value");
          this.append(fields[0], fields[1]);
        }
      } else {
        for (const name of $Reflect.ownKeys(init)) {
          if (getOwnPropertyDescriptor(init, name)?.enumerable) this.append(name, init[name]);
        }
      }
    }

    static {
      guard = (headers) => { headers.#fixed = true; return headers; };
      rawOf = (headers) => {
        const pairs = [];
        for (const [name, values] of headers.#values) {
          if (name === "set-cookie") for (const value of values) pairs.push([name, value]);
          else pairs.push([name, values.join(", ")]);
        }
        return pairs;
      };
    }

    #change() { if (this.#fixed) throw new $TypeError("Can't modify immutable headers."); }

    append(name, value) {
      needs(arguments, 2, "Headers.append");
      const key = nameOf(name);
      const text = valueOf(value);
      this.#change();
      const known = this.#values.get(key);
      if (known === undefined) this.#values.set(key, [text]); else known.push(text);
    }
    set(name, value) {
      needs(arguments, 2, "Headers.set");
      const key = nameOf(name);
      const text = valueOf(value);
      this.#change();
      this.#values.set(key, [text]);
    }
    delete(name) {
      needs(arguments, 1, "Headers.delete");
      const key = nameOf(name);
      this.#change();
      this.#values.delete(key);
    }
    get(name) {
      needs(arguments, 1, "Headers.get");
      return this.#values.get(nameOf(name))?.join(", ") ?? null;
    }
    has(name) {
      needs(arguments, 1, "Headers.has");
      return this.#values.has(nameOf(name));
    }
    getSetCookie() { return [...(this.#values.get("set-cookie") ?? [])]; }
    getAll(name) {  // of Cloudflare, for Set-Cookie alone
      if (nameOf(name) !== "set-cookie") throw new $TypeError('getAll() can only be used with the header name "Set-Cookie".');
      return this.getSetCookie();
    }
    forEach(callback, self) {
      needs(arguments, 1, "Headers.forEach");
      for (const [name, value] of this.entries()) apply(callback, self, [value, name, this]);
    }
    *entries() { yield* rawOf(this).sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0)); }
    *keys() { for (const [name] of this.entries()) yield name; }
    *values() { for (const [, value] of this.entries()) yield value; }
  }
  webClass(Headers);
  defineProperty(Headers.prototype, $Symbol.iterator, { value: Headers.prototype.entries, writable: true, configurable: true });
  web.guardHeaders = guard;
  web.rawHeaders = rawOf;
  return { Headers };
});

lazy(["Request", "Response"], () => {
  const SECRET = {};
  let bodyFor, partsOf;

  // --- bodies --------------------------------------------------------------------------------------------------------

  /** What a body is made of: `{text}`, `{bytes}`, `{stream}` or `{remote}` (a body the worker holds), and its type. */
  const extract = (body) => {
    if (typeof body === "string") return { text: toWellFormed(body, []), type: "text/plain;charset=UTF-8" };
    if (core.StreamClass !== undefined && body instanceof core.StreamClass) {
      if (body.locked) throw new $TypeError("This ReadableStream is currently locked to a reader.");
      return { stream: body };
    }
    if (typeof body === "object" && body !== null) {
      const bytes = bytesOf(body);
      if (bytes !== undefined) return { bytes: new $Uint8Array(bytes) };
      if (body instanceof web.URLSearchParams) {
        return { text: body.toString(), type: "application/x-www-form-urlencoded;charset=UTF-8" };
      }
      if (body instanceof web.Blob) return { bytes: web.contentOf(body), type: body.type || undefined };
      if (body instanceof web.FormData) return multipart(body);
      if (body[$Symbol.asyncIterator] !== undefined) return { stream: web.ReadableStream.from(body) };
    }
    return { text: toWellFormed(`${body}`, []), type: "text/plain;charset=UTF-8" };
  };

  /** The bytes of a content that is here, undefined of one that is still to come. */
  const bytesIn = (content) => (content.text === undefined ? content.bytes : (content.bytes ??= utf8(content.text)));
  const withoutMark = (text) => (text[0] === "\ufeff" ? text.slice(1) : text);
  const unusable = () => new $TypeError("Body has already been used. It can only be used once. Use tee() first if you need to read it twice.");

  class Body {
    #content = null;   // null: there is no body
    #stream = null;    // made when it is asked for
    #used = false;
    #signal = null;

    constructor(secret) { if (secret !== SECRET) throw new $TypeError("Illegal constructor"); }

    get body() {
      if (this.#content === null) return null;
      return this.#stream ??= this.#content.stream ?? this.#open();
    }

    #open() {
      const { remote } = this.#content;
      if (remote !== undefined) {
        return byteStream(async () => {
          if (remote.closed) return undefined;
          const { b64, done } = await hostCall("read", { body: remote.id, as: "bytes" });
          if (b64 === undefined && !done) throw new $TypeError("the body cannot be read");
          if (done) remote.closed = true;
          return b64 === undefined || b64 === "" ? undefined : fromBase64(b64);
        }, () => closeRemote(remote));
      }
      const bytes = bytesIn(this.#content);
      let left = bytes.length && !this.#used ? new $Uint8Array(bytes) : undefined;
      return byteStream(() => {
        const part = left;
        left = undefined;
        return part;
      });
    }

    get bodyUsed() {
      if (this.#content === null) return false;
      const stream = this.#stream ?? this.#content.stream;
      return this.#used || (stream !== undefined && stream !== null && stream._disturbed === true);
    }

    #locked() {
      const stream = this.#stream ?? this.#content?.stream ?? null;
      return stream !== null && stream.locked;
    }

    /** All of the body: a text if `asText` and it came as one, bytes otherwise. */
    async #consume(asText) {
      if (this.bodyUsed || this.#locked()) throw unusable();
      if (this.#content === null) return asText ? "" : new $Uint8Array();
      this.#signal?.throwIfAborted();
      this.#used = true;
      const { text, remote } = this.#content;
      if (this.#stream === null && asText && text !== undefined) return withoutMark(text);
      const bytes = bytesIn(this.#content);
      if (this.#stream === null && bytes !== undefined) return asText ? utf8Text(bytes) : bytes;
      if (this.#stream === null && remote !== undefined) return readRemote(remote, asText, this.#signal);
      const all = await drained(this.body);
      return asText ? utf8Text(all) : all;
    }

    async text() { return this.#consume(true); }
    async json() { return parse(await this.#consume(true)); }
    async bytes() { return new $Uint8Array(await this.#consume(false)); }
    async arrayBuffer() { return new $Uint8Array(await this.#consume(false)).buffer; }
    async blob() {
      const type = this.headers.get("content-type") ?? "";
      return new web.Blob([await this.#consume(false)], { type });
    }
    async formData() {
      const type = this.headers.get("content-type") ?? "";
      if (/^multipart\/form-data\s*(?:;|$)/i.test(type)) {
        const boundary = /;\s*boundary=(?:"([^"]+)"|([^;\s]+))/i.exec(type);
        if (boundary === null) throw new $TypeError("the content type has no boundary");
        return formOf(await this.#consume(false), boundary[1] ?? boundary[2]);
      }
      if (!/^application\/x-www-form-urlencoded\s*(?:;|$)/i.test(type)) {
        throw new $TypeError(`a body of type "${type}" is no form`);
      }
      const form = new web.FormData();
      for (const [name, value] of new web.URLSearchParams(await this.#consume(true))) form.append(name, value);
      return form;
    }

    static {
      bodyFor = (owner, content, signal = null) => {
        owner.#content = content;
        owner.#signal = signal;
      };
      /** The content, to be given to another. `taken`: the owner has it no longer; else both have it. */
      partsOf = (owner, taken) => {
        if (owner.#content === null) return null;
        if (owner.bodyUsed || owner.#locked()) throw unusable();
        const { text, bytes, type } = owner.#content;
        if (owner.#stream === null && (text !== undefined || bytes !== undefined)) {
          if (taken) owner.#used = true;
          return { ...owner.#content };
        }
        if (taken) {
          const content = owner.#stream === null ? owner.#content : { stream: owner.#stream, type };
          if (content.remote === undefined) {
            const { stream } = content;
            owner.#used = true;
            return { stream: stream.pipeThrough(new web.TransformStream()), type };
          }
          owner.#used = true;
          return content;
        }
        const [mine, other] = owner.body.tee();
        owner.#content = { stream: mine, type };
        owner.#stream = mine;
        return { stream: other, type };
      };
    }
  }

  const closeRemote = (remote) => {
    if (remote.closed) return;
    remote.closed = true;
    if (here().life === null) return;
    then(hostCall("close", { body: remote.id }), () => {}, () => {});
  };

  const readRemote = async (remote, asText, signal) => {
    let gaveUp;
    const aborted = signal === null ? null : settled((_, reject) => {
      gaveUp = () => { closeRemote(remote); reject(signal.reason); };
      web.onAbort(signal, gaveUp);
    });
    if (aborted !== null) then(aborted, () => {}, () => {});
    const next = (call) => (aborted === null ? call : settled((resolve, reject) => {
      then(call, resolve, reject);
      then(aborted, resolve, reject);
    }));
    try {
      const texts = [];
      const chunks = [];
      let size = 0;
      for (;;) {
        const part = await next(hostCall("read", { body: remote.id, as: asText ? "text" : "bytes", whole: true }));
        if (part.text !== undefined) texts[texts.length] = part.text;
        if (part.b64 !== undefined) {
          const bytes = fromBase64(part.b64);
          chunks[chunks.length] = bytes;
          size += bytes.length;
        }
        if (part.done) break;
      }
      remote.closed = true;
      return asText ? texts.join("") : joined(chunks, size);
    } finally {
      if (signal !== null) web.offAbort(signal, gaveUp);
    }
  };

  // --- Request -------------------------------------------------------------------------------------------------------

  const METHODS = new SafeSet(["DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"]);
  const methodOf = (method) => {
    const text = `${method}`;
    if (!HTTP_TOKEN.test(text)) throw new $TypeError(`Invalid HTTP method string: ${text}`);
    const upper = text.toUpperCase();
    if (["CONNECT", "TRACE", "TRACK"].includes(upper)) throw new $TypeError(`HTTP method ${upper} is unsupported`);
    return METHODS.has(upper) && upper !== "PATCH" ? upper : text;
  };

  class Request extends Body {
    #method = "GET"; #url; #headers; #redirect = "follow"; #signal; #cf; #cache;

    constructor(input, init) {
      needs(arguments, 1, "Request");
      super(SECRET);
      const options = init ?? {};
      if (typeof options !== "object" && typeof options !== "function") throw new $TypeError("Request: the options must be an object");
      let content = null;
      const source = input instanceof Request ? input : null;
      if (source !== null) {
        this.#url = source.#url;
        this.#method = source.#method;
        this.#redirect = source.#redirect;
        this.#cf = source.#cf;
        this.#cache = source.#cache;
      } else {
        let url;
        try { url = new web.URL(input); } catch { throw new $TypeError(`Invalid URL string: ${textOf(input)}`); }
        if (url.username !== "" || url.password !== "") throw new $TypeError("Request: the URL must not have credentials");
        this.#url = url.href;
      }
      if (options.method !== undefined) this.#method = methodOf(options.method);
      this.#headers = new web.Headers(options.headers ?? source?.headers);
      if (options.redirect !== undefined) {
        if (!["follow", "error", "manual"].includes(options.redirect)) throw new $TypeError(`Invalid redirect value: ${textOf(options.redirect)}`);
        this.#redirect = options.redirect;
      }
      const signal = "signal" in options ? options.signal : source?.signal;
      if (signal !== undefined && signal !== null && !(signal instanceof web.AbortSignal)) throw new $TypeError("Request: signal is no AbortSignal");
      this.#signal = signal ?? null;
      if (options.cf !== undefined) this.#cf = options.cf;
      if (options.cache !== undefined) this.#cache = `${options.cache}`;
      if (options.body !== undefined && options.body !== null) {
        if (this.#method === "GET" || this.#method === "HEAD") throw new $TypeError("Request with a GET or HEAD method cannot have a body.");
        content = extract(options.body);
        if (content.type !== undefined && !this.#headers.has("content-type")) this.#headers.set("content-type", content.type);
      } else if (source !== null && options.body === undefined) {
        content = partsOf(source, true);
        if (content !== null && (this.#method === "GET" || this.#method === "HEAD")) throw new $TypeError("Request with a GET or HEAD method cannot have a body.");
      }
      bodyFor(this, content, this.#signal);
    }

    get method() { return this.#method; }
    get url() { return this.#url; }
    get headers() { return this.#headers; }
    get redirect() { return this.#redirect; }
    get signal() { return this.#signal ??= new web.AbortController().signal; }
    get cf() { return this.#cf; }
    get cache() { return this.#cache ?? "default"; }
    get credentials() { return "same-origin"; }
    get mode() { return "cors"; }
    get destination() { return ""; }
    get referrer() { return "about:client"; }
    get referrerPolicy() { return ""; }
    get integrity() { return ""; }
    get keepalive() { return false; }
    get duplex() { return "half"; }

    clone() {
      const content = partsOf(this, false);
      const copy = new Request(this.#url, { method: this.#method, headers: this.#headers, redirect: this.#redirect, signal: this.#signal, cf: this.#cf });
      bodyFor(copy, content, this.#signal);
      return copy;
    }

    static { web.requestParts = async (request) => ({
      method: request.#method, url: request.#url, headers: request.#headers, redirect: request.#redirect,
      signal: request.#signal, content: await contentOf(request),
    }); }
  }

  /** All of a request's body, `{text}` or `{bytes}`; null if it has none. */
  const contentOf = async (request) => {
    const content = partsOf(request, true);
    if (content === null || content.text !== undefined || content.bytes !== undefined) return content;
    return { bytes: await (content.remote === undefined ? drained(content.stream) : readRemote(content.remote, false, null)) };
  };

  // --- Response ------------------------------------------------------------------------------------------------------

  const NO_BODY = new SafeSet([101, 204, 205, 304]);
  const REDIRECTS = new SafeSet([301, 302, 303, 307, 308]);

  class Response extends Body {
    #status = 200; #statusText = ""; #headers; #url = ""; #redirected = false; #type = "default"; #cf;

    constructor(body = null, init) {
      super(SECRET);
      const options = init ?? {};
      if (typeof options !== "object" && typeof options !== "function") throw new $TypeError("Response: the options must be an object");
      if (options.status !== undefined) {
        const status = floor($Number(options.status));
        if (!((status >= 200 && status <= 599) || status === 101)) {
          throw new $RangeError("Responses may only be constructed with status codes in the range 200 to 599, inclusive.");
        }
        this.#status = status;
      }
      if (options.statusText !== undefined) {
        this.#statusText = `${options.statusText}`;
        if (!HTTP_VALUE.test(this.#statusText)) throw new $TypeError("Invalid statusText");
      }
      this.#headers = new web.Headers(options.headers ?? undefined);
      this.#cf = options.cf;
      let content = null;
      if (body !== null) {
        if (NO_BODY.has(this.#status)) throw new $TypeError(`Response with null body status (101, 204, 205, or 304) cannot have a body.`);
        content = extract(body);
        if (content.type !== undefined && !this.#headers.has("content-type")) this.#headers.set("content-type", content.type);
      }
      bodyFor(this, content);
    }

    static error() {
      const response = new Response();
      response.#type = "error";
      response.#status = 0;
      web.guardHeaders(response.#headers);
      return response;
    }

    static redirect(url, status = 302) {
      needs(arguments, 1, "Response.redirect");
      let location;
      try { location = new web.URL(url).href; } catch { throw new $TypeError(`Invalid URL string: ${textOf(url)}`); }
      if (!REDIRECTS.has(status)) throw new $RangeError(`${textOf(status)} is not a redirect status code.`);
      const response = new Response(null, { status, headers: { location } });
      web.guardHeaders(response.#headers);
      return response;
    }

    static json(value, init) {
      needs(arguments, 1, "Response.json");
      const text = stringify(value);
      if (text === undefined) throw new $TypeError("Value is not JSON serializable");
      const headers = new web.Headers(init?.headers ?? undefined);
      if (!headers.has("content-type")) headers.set("content-type", "application/json");
      return new Response(text, { ...init, headers });
    }

    get status() { return this.#status; }
    get ok() { return this.#status >= 200 && this.#status <= 299; }
    get statusText() { return this.#statusText; }
    get headers() { return this.#headers; }
    get url() { return this.#url; }
    get redirected() { return this.#redirected; }
    get type() { return this.#type; }
    get cf() { return this.#cf; }
    get webSocket() { return null; }

    clone() {
      const copy = new Response();
      bodyFor(copy, partsOf(this, false));
      copy.#status = this.#status;
      copy.#statusText = this.#statusText;
      copy.#headers = new web.Headers(this.#headers);
      copy.#url = this.#url;
      copy.#redirected = this.#redirected;
      copy.#type = this.#type;
      return copy;
    }

    static {
      /** What the worker answered, as a response. */
      web.responseFrom = ({ status, statusText, headers, url, redirected, body }, signal) => {
        const response = new Response();
        response.#status = status;
        response.#statusText = statusText;
        for (const [name, value] of headers) {
          try { response.#headers.append(name, value); } catch { /* a header that no fetch may show */ }
        }
        web.guardHeaders(response.#headers);
        response.#url = url;
        response.#redirected = redirected;
        if (body !== null) {
          const remote = { id: body, closed: false };
          bodyFor(response, { remote }, signal);
          if (signal !== null) web.onAbort(signal, () => closeRemote(remote));
        }
        return response;
      };
    }
  }
  webClass(Request);
  webClass(Response);
  const shared = getOwnPropertyNames(Body.prototype).filter((name) => name !== "constructor");
  for (const Class of [Request, Response]) {
    for (const name of shared) {
      defineProperty(Class.prototype, name, { ...getOwnPropertyDescriptor(Body.prototype, name), enumerable: true });
    }
    setPrototypeOf(Class.prototype, $Object.prototype);
  }
  return { Request, Response };
});

define("fetch", async function fetch(input, init) {
  needs(arguments, 1, "fetch");
  const request = new web.Request(input, init);
  const { method, url, headers, redirect, signal, content } = await web.requestParts(request);
  if (signal !== null) signal.throwIfAborted();
  if (url.startsWith("data:")) return dataResponse(url);
  if (!/^https?:/.test(url)) throw new $TypeError(`Fetch API cannot load: ${url}`);
  const wanted = { method, url: new web.URL(url).href.replace(/#.*$/s, ""), headers: web.rawHeaders(headers), redirect };
  if (content?.text !== undefined) wanted.text = content.text;
  else if (content !== null) wanted.body = toBase64(content.bytes, []);
  const answer = await settled((resolve, reject) => {
    let call = 0;
    const gaveUp = () => {
      cancelCall(call);
      reject(signal.reason);
    };
    const over = () => { if (signal !== null) web.offAbort(signal, gaveUp); };
    then(hostCall("fetch", wanted, (number) => { call = number; }), (value) => { over(); resolve(value); },
      (error) => { over(); reject(error); });
    if (signal !== null) web.onAbort(signal, gaveUp);
  });
  return web.responseFrom(answer, signal);
});

function dataResponse(url) {
  const found = /^data:([^,]*?)(;\s*base64\s*)?,([^#]*)/is.exec(url);
  if (found === null) throw new $TypeError("Fetch API cannot load: the data URL is not valid");
  const text = latin1(utf8(found[3])).replace(/%([0-9a-f]{2})/gi, (_, hex) => fromCharCode($Number.parseInt(hex, 16)));
  let bytes;
  if (found[2] !== undefined) {
    try { bytes = fromBase64(text.replace(/\s/g, "")); } catch { throw new $TypeError("Fetch API cannot load: the data URL is not valid"); }
  } else {
    bytes = $Uint8Array.from(text, (char) => charCode(char, 0));
  }
  const type = found[1] === "" ? "text/plain;charset=US-ASCII" : found[1];
  return new web.Response(bytes, { headers: { "content-type": type } });
}
