// Calls of node:util.
const { inspect, format, promisify, isDeepStrictEqual, types } = await load("node:util");
const out = [];
const T = async (work) => {
  try { out.push((await work()) ?? null); } catch (error) { out.push([error.name, error.code ?? null, error.message]); }
};
for (const v of [
  1, -0, "a'b", "x\ny", null, undefined, 10n, Symbol("q"), [1,2,3], {a:1,b:"x"}, {a:{b:{c:{d:1}}}}, [[[[1]]]],
  new Map([["a",{b:1}]]), new Set([1,"2"]), new Date(0), /x/g, [,1,,], ()=>1, function foo(){}, class A{},
  class B2 extends Array{}, new (class Foo{x=1}), Object.create(null), {"a-b":1,[Symbol("s")]:2},
  [undefined,null], new Uint8Array([1,2]), new ArrayBuffer(2), Array.from({length:120},(_,i)=>i),
  Array.from({length:10},(_,i)=>"item"+i), {get a(){return 1},set b(v){}}, new String("x"), "y".repeat(100),
  {long1:"a".repeat(30),long2:"b".repeat(30),long3:"c".repeat(30)}, {a:[{b:{c:1}}]}, [["a","b"],["c"]],
  Object.assign(()=>{},{x:1}), new WeakMap(), {a:1n,f(){}},
]) await T(() => inspect(v));
const cyc={n:1};cyc.self=cyc;cyc.arr=[cyc];
await T(() => inspect(cyc));
await T(() => inspect({[inspect.custom](){return "custom!"}}));
await T(() => inspect({a:{b:{c:{}}}},{depth:0}));
await T(() => inspect({a:{b:{c:{d:{}}}}},{depth:null}));
for (const a of [["%s %d %i %f %j %o %O %%","a",1.5,"2.7","3.3",{a:1},[1],{b:2},"rest",{c:3}],["a","b",1],[{a:1},"x"],["%s",null,undefined],["%s",{a:1}],["%s",10n],["%d","x"],["100%"],["%s",()=>1]]) await T(() => format(...a));
await T(() => promisify((x,cb)=>cb(null,x+1))(1));
await T(() => promisify((cb)=>cb(new RangeError("r")))());
for (const [a,b] of [[{a:[1,{b:2}]},{a:[1,{b:2}]}],[[1],["1"]],[new Set([{a:1}]),new Set([{a:1}])],[new Map([[1,{}]]),new Map([[1,[]]])],[0,-0],[NaN,NaN],[new Date(1),new Date(1)],[{a:undefined},{}],[/a/g,/a/i],[new Uint8Array([1]),new Uint8Array([1])],[[1,,2],[1,undefined,2]],[new Error("a"),new Error("a")],[Object.create(null),{}]]) await T(() => isDeepStrictEqual(a,b));
await T(() => [types.isDate(new Date),types.isPromise(Promise.resolve()),types.isUint8Array(new Uint8Array()),types.isRegExp(/x/),types.isAsyncFunction(async()=>1)]);
