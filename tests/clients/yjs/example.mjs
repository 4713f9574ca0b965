// An example of docs/documents.md (SOURCE), as an application has it: with the names that it takes for granted.
import { rm, writeFile } from "node:fs/promises";
import WebSocket from "ws";

globalThis.WebSocket ??= WebSocket; // Node has none of its own before 22.

const { SOURCE, API, DOCUMENT, TOKENS } = process.env;
const tokens = JSON.parse(TOKENS);
const say = (event, more = {}) => console.log(JSON.stringify({ event, ...more }));

const file = new URL(`./.example-${process.pid}.mjs`, import.meta.url);
await writeFile(file, `${SOURCE}\nexport { ${SOURCE.includes("export") ? "" : "text"} };`);
Object.assign(globalThis, { api: API, documentId: DOCUMENT, token: tokens[0] });
const example = await import(file).finally(() => rm(file));

const token = () => (tokens.length > 1 ? tokens.shift() : tokens[0]);
const { text } = example.openDocument?.(API, DOCUMENT, token, (code) => say("refused", { code })) ?? example;
const show = () => say("changed", { text: text.toString() });
text.observe(show);
if (text.length) show(); // It may have come before anybody looked.
process.stdin.on("data", (line) => text.insert(text.length, JSON.parse(line).type));
