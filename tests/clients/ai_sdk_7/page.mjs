// Shows the page of docs/clients/ai-sdk.md, as it stands there, without a browser: what a user does comes as lines of
// JSON, what the page shows goes out as such. PAGE in the environment: {source, token, hash}.
import { rmSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { createElement, StrictMode } from "react";
import { create } from "react-test-renderer";
import { transform } from "esbuild";

const tell = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + "\n");
const { source, api, token, hash } = JSON.parse(process.env.PAGE);

globalThis.location = { hash };
const define = { "import.meta.env.VITE_TOKEN": JSON.stringify(token) };
const { code } = await transform(source, { loader: "jsx", jsx: "automatic", define });
const file = `./page-${process.pid}.mjs`;
writeFileSync(file, code.replaceAll("http://127.0.0.1:8000/ai/chat", api));
const { default: App } = await import(file).finally(() => rmSync(file));

const page = create(createElement(StrictMode, null, createElement(App)));

const words = (node) => (typeof node === "string" ? node : (node?.children ?? []).map(words).join(""));
let shown = "";
setInterval(() => {
  const now = [page.toJSON()].flat().map(words).join("");
  if (now !== shown) tell("page", { text: (shown = now) });
}, 20);

const press = (label) => page.root.find((node) => node.type === "button" && words({ children: node.children }) === label);
const actions = {
  write: ({ text }) => page.root.findByType("input").props.onChange({ target: { value: text } }),
  send: () => page.root.findByType("form").props.onSubmit({ preventDefault() {} }),
  press: ({ label }) => press(label).props.onClick(),
};
for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...given } = JSON.parse(line);
  actions[name](given);
  await new Promise((resolve) => setTimeout(resolve, 20)); // No user is faster than React.
}
