// Follows one response over whatever breaks the connection, as OpenAI's guide for background streams does it.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY, maxRetries: 0 });
const tell = (event, more = {}) => console.log(JSON.stringify({ event, ...more }));

const seen = [];
let breaks = 0;
let stream = await client.responses.create({
  model: process.env.MODEL,
  input: "go",
  background: true,
  stream: true,
});
while (seen.at(-1)?.type !== "response.completed") {
  const before = seen.length;
  try {
    for await (const event of stream) {
      seen.push(event);
      if (seen.length === before + 15) tell("flowing");
    }
  } catch {
    breaks += 1;
    stream = await client.responses.retrieve(seen[0].response.id, {
      stream: true,
      starting_after: seen.at(-1).sequence_number,
    });
  }
}
tell("completed", {
  breaks,
  numbers: seen.map((event) => event.sequence_number),
  text: seen.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta).join(""),
  final: seen.at(-1).response.output.flatMap((item) => item.content ?? []).map((part) => part.text).join(""),
});
