// Texts that are URLs and that are none, setters, and search parameters.
const inputs=[["http://example.com"],
  ["HTTP://User:Pa ss@EXAMPLE.com:80/a/../b/./c?q=a b'#f g"],
  ["//x/y","https://a.b/c"],
  ["../d?x","http://a/b/c/e"],
  ["?q","http://a/b#h"],
  ["#z","http://a/b?c"],
  ["","http://a/b?c#d"],
  ["http://1.2.3"],
  ["http://0x7f.1"],
  ["http://256.1.1.1"],
  ["http://[::1]:8080/"],
  ["http://[1:0:0:2::3]"],
  ["http://[::ffff:1.2.3.4]/"],
  ["http://[1::2::3]"],
  ["mailto:a@b.c"],
  ["javascript:alert(1)"],
  ["http://bücher.example/ü?ü#ü"],
  ["http://例え.テスト"],
  ["file:///C|/x/../y"],
  ["file:c:\\a\\b"],
  ["/x","file:///C:/a/b"],
  ["http:\\\\x\\y"],
  ["http:foo","http://a/b/c"],
  ["http:/foo","http://a/b/c"],
  ["https:foo","http://a/b/c"],
  ["foo://bar/../x"],
  ["foo:/a/../b"],
  ["foo:a/../b"],
  ["web+demo:/.//not-a-host/"],
  ["http://a b/"],
  ["http://a%41b/"],
  ["http://a/%2e%2E/b"],
  ["http://u@/x"],
  ["http://:80"],
  ["http://a:99999"],
  ["http://a:x"],
  ["https://a:443/"],
  ["non-special://[::1]:3/x"],
  ["http://a/b?c%zz"],
  ["\thttp://a/\nb "],
  ["blob:https://a.b/c"],
  ["//","http://a"],
  ["http://"],
  ["x","mailto:y"],
  ["#x","mailto:y"],
  ["http://ex.com/a|b`d{e}f\"g<h>i"],
  ["ftp://a:21/;x"],
  ["ws://a:80/"],
  ["http://a//b//../c"],
  ["http://xn--bcher-kva.example/"],
  ["http://faß.de/"],
  ["http://a.b.:8/"],
  ["http://4294967295"],
  ["http://4294967296"],
  ["http://09.1.1.1"],
  ["foo://a b"],
  ["foo://ho%20st/p"],
  ["http://ａ.com"],
  ["file://localhost/x"],
  ["file://host/x"],
  ["a:b#c d"]];
const out = [];
for(const a of inputs){ try{const u=new URL(...a);
out.push([a,u.href,u.origin,u.protocol,u.username,u.password,u.host,u.hostname,u.port,u.pathname,u.search,u.hash])}catch(e){out.push([a,e.name])} }
const set=[["http://a/b","host","x:9"],
  ["http://a/b","host","x:"],
  ["http://a:8/b","hostname","y:9"],
  ["http://a:8/b","port","80"],
  ["http://a:8/b","port","7x"],
  ["http://a:8/b","port","x"],
  ["http://a/b","protocol","https"],
  ["http://a:443/b","protocol","https:foo"],
  ["http://a/b","protocol","foo"],
  ["http://a/b","pathname","x y?#"],
  ["http://a/b","pathname",""],
  ["http://a/b?c","search",""],
  ["http://a/b?c","search","?x y"],
  ["http://a/b","hash","q r"],
  ["http://a/b","username","a:b"],
  ["mailto:x","host","y"],
  ["mailto:x","pathname","y"],
  ["http://a/b","href","http://z"],
  ["http://a/","hostname",""],
  ["foo://a/b","hostname",""],
  ["http://a/","host","[::2]:5"],
  ["file:///x","host","localhost"],
  ["file:///x","port","5"]];
for(const [u,k,v] of set){const x=new URL(u); x[k]=v;
out.push([u,k,v,x.href])}
const p=new URLSearchParams("?a=1&b=2&a=3&c=%F0%9F%98%80+x&=&d");
p.append("é","~'()*");
p.delete("b");
p.set("a","9");
out.push([p.toString(),p.size,[...p],p.get("zz"),p.getAll("a"),p.has("d",""),p.has("d","x")]);
p.sort();
out.push(p.toString()); const u=new URL("http://a/?x=1");
u.searchParams.append("y","z z");
out.push(u.href);
u.search="?k=v";
out.push([...u.searchParams]);
u.searchParams.delete("k");
out.push(u.href);
out.push(new URLSearchParams({a:1,b:"x"}).toString(), new URLSearchParams([["q","w"]]).toString());
