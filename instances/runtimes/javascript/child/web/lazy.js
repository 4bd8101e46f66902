// The web's globals. Each is made when it is first asked for: a sandbox that needs none pays for none.
// Names: navigator self

const {
  $Symbol, $TypeError, $Uint8Array, GLOBAL, are, create, defineProperty, getOwnPropertyDescriptor,
  getOwnPropertyNames, isBuffer, isView, its, s, the, when,
} = core;

/** APIs by name, for the prelude's own use: `web.URL`, whatever user code made of the globals. */
const web = create(null);

/** Globals `names` are what `factory()` gives, called once, at the first use of any of them. */
function lazy(names, factory) {
  let made;
  const make = () => (made ??= factory());
  for (const name of names) {
    const own = (value) => defineProperty(GLOBAL, name, { value, writable: true, configurable: true, enumerable: false });
    defineProperty(web, name, { get: () => make()[name] });
    defineProperty(GLOBAL, name, {
      get() {
        const value = make()[name];
        own(value);
        return value;
      },
      set: own,
      configurable: true,
      enumerable: false,
    });
  }
}

/** Give methods and accessors of a class the enumerability of Web IDL, and its tag. */
function webClass(Class, name = Class.name) {
  for (const key of getOwnPropertyNames(Class.prototype)) {
    if (key === "constructor" || key[0] === "_") continue;
    const descriptor = getOwnPropertyDescriptor(Class.prototype, key);
    descriptor.enumerable = true;
    defineProperty(Class.prototype, key, descriptor);
  }
  defineProperty(Class.prototype, $Symbol.toStringTag, { value: name, configurable: true });
  return Class;
}

/** What `make()` gives, made when it is first asked for. */
const once = (make) => {
  let made;
  return () => (made ??= make());
};

const needs = (given, wanted, where) => {
  if (given.length < wanted) {
    throw new $TypeError(`${where}: ${wanted} argument${wanted > 1 ? "s" : ""} required, but only ${given.length} present`);
  }
};

/** The bytes of a view or a buffer, not copied; undefined for anything else. */
function bytesOf(value) {
  if (isView(value)) return new $Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  return isBuffer(value) ? new $Uint8Array(value) : undefined;
}

function joined(chunks, size) {
  if (chunks.length === 1) return chunks[0];
  const all = new $Uint8Array(size);
  let at = 0;
  for (let i = 0; i < chunks.length; i++) {
    all.set(chunks[i], at);
    at += chunks[i].length;
  }
  return all;
}

defineProperty(GLOBAL, "self", { value: GLOBAL, writable: true, configurable: true });
lazy(["navigator"], () => {
  class Navigator {
    get userAgent() { return "Cloudflare-Workers"; }
    get language() { return "en"; }
    get languages() { return ["en"]; }
    get hardwareConcurrency() { return 1; }
  }
  webClass(Navigator);
  return { navigator: new Navigator() };
});

core.assign(core, { web, lazy, webClass, needs, once, bytesOf, joined });
