// What emitters do.
const EV = await load("node:events");
const out = [];
const T = async (work) => {
  try { out.push((await work()) ?? null); } catch (error) { out.push([error.name, error.code ?? null, error.message]); }
};
const E=new EV.EventEmitter(); const got=[]; E.on("a",(x)=>got.push(x)); E.once("a",(x)=>got.push("once"+x)); E.prependListener("a",()=>got.push("pre")); E.emit("a",1); E.emit("a",2);
await T(() => got);
await T(() => [E.listenerCount("a"),E.eventNames(),E.emit("zz")]);
await T(() => E.emit("error",new TypeError("boom")));
await T(() => E.emit("error",5));
await T(async()=>{const p=EV.once(E,"b");E.emit("b",1,2);return p});
await T(async()=>{const r=[];queueMicrotask(()=>{E.emit("c",1);E.emit("c",2)});for await(const [v] of EV.on(E,"c")){r.push(v);if(v===2)break}return r});
await T(() => E.on("x",5));
class Sub extends EV.EventEmitter{constructor(){super();this.y=1}} await T(() => {const s=new Sub();let r;s.on("q",function(){r=this===s});s.emit("q");return [r,s instanceof EV.EventEmitter]});
