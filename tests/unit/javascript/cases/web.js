// The web's classes: what they give, and the name of the error they throw.
const out = [];
const T = async (work) => {
  try { out.push((await work()) ?? null); } catch (error) { out.push(`throws ${error?.name ?? String(error)}`); }
};
const text = (bytes) => new TextDecoder().decode(bytes);
const read = async (stream) => { const all = []; for await (const part of stream) all.push(part); return all; };

// Headers, requests and responses
await T(() => [...new Headers({ b: "1", A: "2" })]);
await T(() => new Headers([["a", "1"], ["a", "2"]]).get("A"));
await T(() => new Headers({ a: "\t x y \n" }).get("a"));
await T(() => new Headers({ "": "x" }));
await T(() => new Headers({ a: "x\0" }));
await T(() => new Headers("a"));
await T(() => Object.prototype.toString.call(new Headers()));
await T(() => new Request("http://a/b#c", { method: "patch" }).method);
await T(() => new Request("http://a/b", { method: "post" }).method);
await T(() => new Request("/relative").url);
await T(() => { const r = new Request("http://a/", { method: "POST", body: "x" }); return [r.headers.get("content-type"), r.bodyUsed, r.redirect]; });
await T(() => { const r = new Request("http://a/", { method: "POST", body: "x", headers: { "content-type": "y/z" } }); return r.clone().headers.get("content-type"); });
await T(async () => { const r = new Request("http://a/", { method: "POST", body: "x" }); await r.text(); return new Request(r).url; });
await T(async () => { const r = new Request("http://a/", { method: "POST", body: "x" }); return new Request(r, { body: "y" }).text(); });
await T(() => new Request("http://a/", { body: "x" }));
await T(() => new Response("x", { status: 404 }).ok);
await T(() => new Response("x", { status: 304 }));
await T(() => new Response(null, { status: 204 }).body);
await T(() => new Response(undefined).body);
await T(() => new Response("x", { statusText: "a\nb" }));
await T(() => new Response(new URLSearchParams("a=b")).headers.get("content-type"));
await T(() => new Response(new Uint8Array(2)).headers.get("content-type"));
await T(async () => [...new Uint8Array(await new Response("é").arrayBuffer())]);
await T(async () => (await new Response("abc").blob()).size);
await T(async () => { const r = new Response("abc"); r.body.getReader(); return r.text(); });
await T(async () => { const r = new Response("abc"); const c = r.clone(); return [await c.text(), await r.text(), r.bodyUsed]; });
await T(async () => { const r = new Response("abc"); await r.text(); r.clone(); });
await T(async () => { const r = new Response("abc"); const reader = r.body.getReader(); await reader.read(); reader.releaseLock(); return [r.bodyUsed, await r.text()]; });
await T(async () => new Response("not json").json());
await T(async () => new Response("").json());
await T(() => new Response(new ReadableStream({ start(c) { c.enqueue("text"); c.close(); } })).text());
await T(() => new Response(5).text());
await T(() => new Response({ a: 1 }).text());
await T(() => Response.json(undefined));
await T(() => Response.json({ a: [1] }).text());
await T(() => Response.redirect("http://a/", 200));
await T(() => Response.error().status);
await T(async () => (await fetch("data:,a%20b")).text());

// Blobs and forms
await T(async () => { const b = new Blob(["abc", new Uint8Array([100]), new Blob(["e"])], { type: "A/B" }); return [b.size, b.type, await b.text(), await b.slice(1, -1).text(), b.slice(1, 2, "x/y").type]; });
await T(async () => (await new Blob(["abc"]).slice(5, 9).text()).length);
await T(() => new Blob("abc"));
await T(() => new Blob([], { type: "\u00e9" }).type);
await T(async () => text((await read(new Blob(["stream"]).stream()))[0]));
await T(() => { const f = new File(["x"], "n.txt", { lastModified: 5, type: "t/p" }); return [f.name, f.lastModified, f.size, f.type, f instanceof Blob]; });
await T(() => new File(["x"]));
await T(() => { const f = new FormData(); f.append("a", 1); f.append("a", null); f.set("b", "x"); f.set("a", "z"); f.delete("c"); return [...f]; });
await T(() => { const f = new FormData(); f.append("a", new Blob(["x"]), "n"); const v = f.get("a"); return [v instanceof File, v.name, v.type]; });
await T(() => new FormData().append("a"));
await T(() => new FormData().append("a", "b", "c"));
await T(() => new FormData().get("missing"));

// Streams
await T(() => read(ReadableStream.from(["a", "b"])));
await T(async () => { const [a, b] = ReadableStream.from([1, 2]).tee(); return [await read(a), await read(b)]; });
await T(async () => { const s = new ReadableStream({ start(c) { c.error(new RangeError("bad")); } }); return read(s); });
await T(async () => { const s = new ReadableStream(); s.getReader(); s.getReader(); });
await T(async () => { let why; const s = new ReadableStream({ cancel(reason) { why = reason; } }); await s.cancel("enough"); return why; });
await T(async () => { let seen = 0; const s = new ReadableStream({ pull(c) { c.enqueue(seen++); if (seen > 5) c.close(); } }); for await (const n of s) if (n === 2) break; return [seen, s.locked]; });
await T(async () => { const t = new TransformStream({ transform: (x, c) => { c.enqueue(x * 2); }, flush: (c) => c.enqueue("end") }); return read(ReadableStream.from([1, 2]).pipeThrough(t)); });
await T(async () => { const t = new TransformStream({ transform() { throw new TypeError("no"); } }); return read(ReadableStream.from([1]).pipeThrough(t)); });
await T(async () => { const log = []; const w = new WritableStream({ write: (x) => { log.push(x); }, close: () => { log.push("closed"); } }, new CountQueuingStrategy({ highWaterMark: 3 })); const g = w.getWriter(); const size = g.desiredSize; g.write(1); g.write(2); const left = g.desiredSize; await g.close(); return [size, left, log]; });
await T(async () => { const w = new WritableStream({ write() { throw new RangeError("full"); } }); const g = w.getWriter(); await g.write(1); });
await T(async () => { const w = new WritableStream(); await w.close(); await w.close(); });
await T(async () => { let why; await ReadableStream.from([1, 2]).pipeTo(new WritableStream({ abort(r) { why = r; } }), { signal: AbortSignal.abort("stop") }); return why; });
await T(async () => { const s = new ReadableStream({ type: "bytes", pull(c) { const v = c.byobRequest?.view; if (v) { v[0] = 7; c.byobRequest.respond(1); } else { c.enqueue(new Uint8Array([1])); } } }); const r = s.getReader({ mode: "byob" }); const { value } = await r.read(new Uint8Array(4)); return [...value]; });
await T(() => new ReadableStream({ type: "other" }));
await T(() => new ByteLengthQueuingStrategy({ highWaterMark: 5 }).size(new Uint8Array(3)));
await T(async () => (await read(ReadableStream.from([new Uint8Array([0xe2]), new Uint8Array([0x82, 0xac])]).pipeThrough(new TextDecoderStream()))).join("|"));
await T(async () => (await read(ReadableStream.from(["\ud83d", "\ude00"]).pipeThrough(new TextEncoderStream()))).map(text).join("|"));
await T(async () => read(ReadableStream.from([new Uint8Array([0xff])]).pipeThrough(new TextDecoderStream("utf-8", { fatal: true }))));

// Events and aborts
await T(() => { const t = new EventTarget(); const seen = []; const f = () => seen.push("f"); t.addEventListener("x", f); t.addEventListener("x", f); t.addEventListener("x", () => seen.push("g")); t.dispatchEvent(new Event("x")); t.removeEventListener("x", f); t.dispatchEvent(new Event("x")); return seen; });
await T(() => { const t = new EventTarget(); const seen = []; t.addEventListener("x", (e) => { seen.push(1); e.stopImmediatePropagation(); }); t.addEventListener("x", () => seen.push(2)); t.dispatchEvent(new Event("x")); return seen; });
await T(() => { const e = new Event("x", { cancelable: true }); e.preventDefault(); return [e.defaultPrevented, e.type, e.bubbles, e.eventPhase, e.target]; });
await T(() => { const e = new Event("x"); e.preventDefault(); return e.defaultPrevented; });
await T(() => new Event());
await T(() => { const c = new AbortController(); c.abort(); return [c.signal.aborted, c.signal.reason.name, c.signal.reason.code]; });
await T(() => AbortSignal.abort("why").throwIfAborted());
await T(() => { const c = new AbortController(); const s = AbortSignal.any([c.signal]); let n = 0; s.addEventListener("abort", () => n++); c.abort(1); c.abort(2); return [n, s.reason]; });
await T(() => [new DOMException("m", "NotFoundError").code, new DOMException("m").name, new DOMException() instanceof Error, DOMException.TIMEOUT_ERR]);

// Copies
await T(() => { const o = { d: new Date(1), e: new TypeError("t") }; const c = structuredClone(o); return [c.d.getTime(), c.e instanceof TypeError, c.e.message]; });
await T(() => structuredClone({ f() {} }));
await T(() => structuredClone(new (class X { constructor() { this.y = 1; } get z() { return 2; } })()));
await T(() => structuredClone([undefined, null, , 1n].map(String)));
await T(() => structuredClone(Object.assign(new Error("m"), { name: "Custom", extra: 1 })).name);
await T(() => { const b = new ArrayBuffer(8); const v = new Uint8Array(b, 4); const c = structuredClone({ v, b }); return [c.v.buffer === c.b, c.v.byteOffset]; });
await T(() => structuredClone());
