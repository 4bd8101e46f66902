// Calls of node:crypto.
const { createHash, createHmac, randomBytes, timingSafeEqual, randomInt } = await load("node:crypto");
const out = [];
const T = async (work) => {
  try { out.push((await work()) ?? null); } catch (error) { out.push([error.name, error.code ?? null, error.message]); }
};
await T(() => createHash("md5").update("a").update(new Uint8Array([1,2])).digest("hex"));
await T(() => createHash("sha512").update("héllo").digest("base64"));
await T(() => createHash("SHA224").update("x".repeat(300)).digest("base64url"));
await T(() => createHmac("sha384","k".repeat(200)).update("x").digest("hex"));
await T(() => {const h=createHash("sha1").update("a");const c=h.copy();return [h.digest("hex"),c.update("b").digest("hex")]});
await T(() => {const h=createHash("sha1");h.digest();h.digest()});
await T(() => randomBytes(5).length);
await T(() => timingSafeEqual(new Uint8Array(2),new Uint8Array(3)));
await T(() => {const n=randomInt(3,5);return n>=3&&n<5});
