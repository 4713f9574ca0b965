// The example of docs/documents.md (SOURCE), as an application has it that gets another token in time.
import { rm, writeFile } from "node:fs/promises";
import WebSocket from "ws";

globalThis.WebSocket ??= WebSocket; // Node has none of its own before 22.

const { SOURCE, API, DOCUMENT, TOKENS } = process.env;
const file = new URL(`./.example-${process.pid}.mjs`, import.meta.url);
await writeFile(file, SOURCE);
const { openDocument } = await import(file);
await rm(file);

const tokens = JSON.parse(TOKENS);
const token = () => (tokens.length > 1 ? tokens.shift() : tokens[0]);
const say = (event, more = {}) => console.log(JSON.stringify({ event, ...more }));

const { text, provider } = await openDocument(API, DOCUMENT, token);
provider.on("sync", (synced) => synced && say("synced", { text: text.toString() }));
provider.on("connection-close", (event) => event && say("closed", { code: event.code })); // null: by itself
text.observe(() => say("changed", { text: text.toString() }));
process.stdin.on("data", (line) => text.insert(text.length, JSON.parse(line).type));
