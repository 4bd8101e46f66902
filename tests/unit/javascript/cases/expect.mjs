// Writes what Node answers to the cases beside this file: `node expect.mjs`. The engine must answer the same.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

const Work = Object.getPrototypeOf(async () => {}).constructor;
for (const name of readdirSync(import.meta.dirname).filter((one) => one.endsWith(".js"))) {
  const body = readFileSync(`${import.meta.dirname}/${name}`, "utf8");
  const out = await new Work("load", `${body}\nreturn out;`)((specifier) => import(specifier));
  const lines = out.map((one) => `  ${JSON.stringify(one ?? null)}`);
  writeFileSync(`${import.meta.dirname}/${name.replace(".js", ".json")}`, `[\n${lines.join(",\n")}\n]\n`);
}
