// Blob, File and FormData, and how a form becomes a body and back.
// Names: Blob File FormData
// Needs: streams

const {
  $Math, $Number, $RegExp, $Symbol, $TypeError, $Uint8Array, apply, are, byteStream, bytesOf, defineProperty, floor,
  here, joined, latin1, lazy, needs, nowMillis, s, the, toWellFormed, utf8, utf8Plain, utf8Text, web, webClass,
} = core;

lazy(["Blob", "File", "FormData"], () => {
  let contentOf;

  const normalType = (type) => {
    const text = `${type ?? ""}`;
    return /^[\x20-\x7e]*$/.test(text) ? text.toLowerCase() : "";
  };

  class Blob {
    #bytes;
    #type;

    constructor(parts, options = {}) {
      if (parts !== undefined && (parts === null || typeof parts !== "object" || parts[$Symbol.iterator] === undefined)) {
        throw new $TypeError("Blob: the parts must be a sequence");
      }
      const chunks = [];
      let size = 0;
      for (const part of parts ?? []) {
        let bytes = bytesOf(part);
        if (bytes !== undefined) bytes = new $Uint8Array(bytes);
        else if (part instanceof Blob) bytes = part.#bytes;
        else {
          const text = `${part}`;
          bytes = utf8(options?.endings === "native" ? text.replace(/\r\n?/g, "\n") : text);
        }
        chunks.push(bytes);
        size += bytes.length;
      }
      this.#bytes = joined(chunks, size);
      this.#type = normalType(options?.type);
    }

    get size() { return this.#bytes.length; }
    get type() { return this.#type; }

    slice(start = 0, end = this.size, type = "") {
      const blob = new Blob([], { type });
      const at = (value) => (value < 0 ? $Math.max(this.size + value, 0) : $Math.min(value, this.size));
      const from = at($Math.trunc($Number(start)) || 0);
      blob.#bytes = this.#bytes.subarray(from, $Math.max(from, at($Math.trunc($Number(end)) || 0)));
      return blob;
    }
    async arrayBuffer() { return new $Uint8Array(this.#bytes).buffer; }
    async bytes() { return new $Uint8Array(this.#bytes); }
    async text() { return utf8Text(this.#bytes); }
    stream() {
      let at = 0;
      return byteStream(() => {
        if (at >= this.#bytes.length) return undefined;
        const part = this.#bytes.slice(at, at + 65536);
        at += part.length;
        return part;
      });
    }

    static { contentOf = (blob) => blob.#bytes; }
  }

  class File extends Blob {
    #name; #modified;

    constructor(parts, name, options = {}) {
      needs(arguments, 2, "File");
      super(parts, options);
      this.#name = toWellFormed(`${name}`, []);
      this.#modified = options?.lastModified === undefined ? nowMillis() : $Number(options.lastModified);
    }

    get name() { return this.#name; }
    get lastModified() { return this.#modified; }
  }

  const asFile = (value, name) => {
    if (!(value instanceof Blob)) return toWellFormed(`${value}`, []);
    if (value instanceof File && name === undefined) return value;
    return new File([value], name ?? (value instanceof File ? value.name : "blob"),
      { type: value.type, lastModified: value instanceof File ? value.lastModified : undefined });
  };

  class FormData {
    #entries = [];

    constructor(form) { if (form !== undefined) throw new $TypeError("FormData: there are no form elements here"); }

    append(name, value, filename) {
      needs(arguments, 2, "FormData.append");
      if (filename !== undefined && !(value instanceof Blob)) throw new $TypeError("FormData.append: only a Blob has a file name");
      this.#entries.push([toWellFormed(`${name}`, []), asFile(value, filename === undefined ? undefined : `${filename}`)]);
    }
    set(name, value, filename) {
      needs(arguments, 2, "FormData.set");
      if (filename !== undefined && !(value instanceof Blob)) throw new $TypeError("FormData.set: only a Blob has a file name");
      const key = toWellFormed(`${name}`, []);
      const entry = [key, asFile(value, filename === undefined ? undefined : `${filename}`)];
      const at = this.#entries.findIndex((one) => one[0] === key);
      if (at < 0) { this.#entries.push(entry); return; }
      this.#entries[at] = entry;
      this.#entries = this.#entries.filter((one, i) => i <= at || one[0] !== key);
    }
    delete(name) { this.#entries = this.#entries.filter((one) => one[0] !== `${name}`); }
    get(name) { return this.#entries.find((one) => one[0] === `${name}`)?.[1] ?? null; }
    getAll(name) { return this.#entries.filter((one) => one[0] === `${name}`).map((one) => one[1]); }
    has(name) { return this.#entries.some((one) => one[0] === `${name}`); }
    forEach(callback, self) { for (const [name, value] of this.#entries) apply(callback, self, [value, name, this]); }
    *entries() { for (let i = 0; i < this.#entries.length; i++) yield [this.#entries[i][0], this.#entries[i][1]]; }
    *keys() { for (let i = 0; i < this.#entries.length; i++) yield this.#entries[i][0]; }
    *values() { for (let i = 0; i < this.#entries.length; i++) yield this.#entries[i][1]; }
  }
  for (const Class of [Blob, File, FormData]) webClass(Class);
  defineProperty(FormData.prototype, $Symbol.iterator, { value: FormData.prototype.entries, writable: true, configurable: true });
  web.contentOf = contentOf;
  core.BlobClass = Blob;
  core.copyBlob = (blob) => (blob instanceof File
    ? new File([blob], blob.name, { type: blob.type, lastModified: blob.lastModified }) : new Blob([blob], { type: blob.type }));
  return { Blob, File, FormData };
});

/** A form as multipart bytes, and their type. */
function multipart(form) {
  let boundary = "----formdata-";
  for (let i = 0; i < 4; i++) boundary += floor($Math.random() * 2 ** 32).toString(36);
  const quoted = (text) => text.replace(/\r\n?|\n/g, "%0D%0A").replaceAll('"', "%22");
  const chunks = [];
  let size = 0;
  const add = (bytes) => { chunks.push(bytes); size += bytes.length; };
  for (const [name, value] of form) {
    let head = `--${boundary}\r\nContent-Disposition: form-data; name="${quoted(name)}"`;
    if (typeof value === "string") {
      add(utf8(`${head}\r\n\r\n${value.replace(/\r\n?|\n/g, "\r\n")}\r\n`));
      continue;
    }
    head += `; filename="${quoted(value.name)}"\r\nContent-Type: ${value.type || "application/octet-stream"}\r\n\r\n`;
    add(utf8(head));
    add(web.contentOf(value));
    add(utf8("\r\n"));
  }
  add(utf8(`--${boundary}--\r\n`));
  return { bytes: joined(chunks, size), type: `multipart/form-data; boundary=${boundary}` };
}

/** A form out of multipart bytes. Throws TypeError. */
function formOf(bytes, boundary) {
  const bad = () => new $TypeError("the body is no valid multipart form");
  const text = latin1(bytes);
  const form = new web.FormData();
  const mark = `--${boundary}`;
  let at = text.startsWith(mark) ? mark.length : text.indexOf(`\r\n${mark}`) + mark.length + 2;
  if (at < mark.length + 2 && !text.startsWith(mark)) throw bad();
  while (!text.startsWith("--", at)) {
    const start = text.indexOf("\r\n", at);
    const headEnd = text.indexOf("\r\n\r\n", start);
    const end = text.indexOf(`\r\n${mark}`, headEnd + 2);
    if (start < 0 || headEnd < 0 || end < 0) throw bad();
    const head = utf8Plain(bytes.subarray(start + 2, headEnd));
    const disposition = /^content-disposition:\s*form-data\s*;(.*)$/im.exec(head);
    if (disposition === null) throw bad();
    const field = (key) => {
      const found = new $RegExp(`(?:^|;)\\s*${key}=(?:"([^"]*)"|([^;\\s]*))`, "i").exec(disposition[1]);
      const raw = found === null ? undefined : found[1] ?? found[2];
      return raw?.replaceAll("%22", '"').replaceAll("%0D", "\r").replaceAll("%0A", "\n");
    };
    const name = field("name");
    if (name === undefined) throw bad();
    const content = bytes.subarray(headEnd + 4, $Math.max(end, headEnd + 4));
    const filename = field("filename");
    if (filename === undefined) {
      form.append(name, utf8Plain(content));
    } else {
      const type = /^content-type:\s*(.*?)\s*$/im.exec(head)?.[1] ?? "text/plain";
      form.append(name, new web.File([content], filename, { type }));
    }
    at = end + 2 + mark.length;
  }
  return form;
}

core.assign(core, { multipart, formOf });
