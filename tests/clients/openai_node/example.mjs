// Runs a program of the documentation as it stands, with the packages of this folder.
import { rmSync, writeFileSync } from "node:fs";

const file = new URL(`./node_modules/.example-${process.pid}.mjs`, import.meta.url);
writeFileSync(file, process.env.PROGRAM);
try {
  await import(file);
} finally {
  rmSync(file);
}
console.log('\n{"event": "ended"}');
