// Reads recorded streams through openai-node's stream helper, which refuses what does not fit together.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import OpenAI from "openai";

const folder = process.env.GOLDEN;
const results = {};
for (const name of readdirSync(folder).filter((file) => file.endsWith(".sse"))) {
  const body = `:ok\n\n: hb\n${readFileSync(join(folder, name), "utf8")}`;
  const answer = async () => new Response(body, { headers: { "content-type": "text/event-stream" } });
  const client = new OpenAI({ apiKey: "none", baseURL: "http://nowhere", maxRetries: 0, fetch: answer });
  const response = await client.responses.stream({ response_id: "any" }).finalResponse();
  results[name] = { status: response.status, text: response.output_text, output: response.output };
}
console.log(JSON.stringify({ event: "accumulated", results }));
