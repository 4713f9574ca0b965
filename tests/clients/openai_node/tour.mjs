// What an application does with openai-node, once each; what it saw is printed as one line of JSON.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY, maxRetries: 0 });
const ids = (response) => response.output.map((item) => item.id);
const essence = (response) => ({
  id: response.id,
  status: response.status,
  text: response.output_text,
  ids: ids(response),
  types: response.output.map((item) => item.type),
});

async function refusal(action) {
  try {
    await action();
  } catch (error) {
    return { name: error.constructor.name, status: error.status, param: error.param, code: error.code };
  }
  return null;
}

const plain = await client.responses.create({ model: "echo", input: "hello there" });

const words = [];
const stream = client.responses.stream({ model: process.env.MODEL, input: "go" });
const done = new Map();
stream.on("response.output_text.delta", (event) => words.push(event.delta));
stream.on("response.output_item.done", (event) => done.set(event.output_index, event.item));
const streamed = await stream.finalResponse();
const replay = client.responses.stream({ response_id: streamed.id });
const replayed = await replay.finalResponse();
const retrieved = await client.responses.retrieve(streamed.id);

const next = await client.responses.create({ model: "echo", input: "and then?", previous_response_id: plain.id });

const slow = await client.responses.create({
  model: "echo/echo?delayMs=50&repeat=500",
  input: "one",
  background: true,
});
const cancelled = await client.responses.cancel(slow.id);

const models = [];
for await (const model of client.models.list()) models.push(model.id);

console.log(
  JSON.stringify({
    event: "tour",
    plain: essence(plain),
    streamed: essence(streamed),
    replayed: essence(replayed),
    retrieved: essence(retrieved),
    words: words.join(""),
    done: [...done].sort(([left], [right]) => left - right).map(([, item]) => item),
    output: retrieved.output,
    conversations: [plain.conversation.id, next.conversation.id],
    slow: [slow.status, cancelled.status],
    models,
    one: (await client.models.retrieve("echo/echo")).id,
    refusals: [
      await refusal(() => client.responses.create({ model: "echo", input: "x", tools: [{ type: "web_search" }] })),
      await refusal(() => client.responses.create({ model: "nonsense", input: "x" })),
      await refusal(() => client.responses.retrieve("resp_0")),
    ],
  }),
);
