// What assertions throw.
const assert = (await load("node:assert")).default;
const out = [];
const T = async (work) => {
  try { out.push((await work()) ?? null); } catch (error) { out.push([error.name, error.code ?? null, error.message]); }
};
for (const f of [
  () => assert(1),
  () => assert(0,"zero"),
  () => assert.deepStrictEqual({a:1},{a:1}),
  () => assert.throws(()=>{throw new TypeError("x")},TypeError),
  () => assert.throws(()=>{throw new TypeError("xyz")},/xyz/),
  () => assert.throws(()=>{throw new TypeError("xyz")},{message:"xyz",name:"TypeError"}),
  () => assert.throws(()=>{}),
  () => assert.rejects(Promise.reject(new Error("q")),/q/),
  () => assert.rejects(Promise.resolve(1)),
  () => assert.match("abc",/b/),
  () => assert.equal(1,"1"),
  () => assert.ifError(null),
  () => assert.fail("boo"),
  () => assert.notStrictEqual(1,2),
  () => assert.doesNotThrow(()=>1)]) await T(f);
