// Drives the `Chat` that `useChat` is made of: commands come as lines of JSON, what it does and shows goes out as such.
// CHAT in the environment: {api, id, headers, body, load}.
import { createInterface } from "node:readline";

const tell = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + "\n");

// As Chromium has it, so that the package knows a lost connection: Node's own error has other words.
const disconnected = () => new TypeError("network error");

async function browserFetch(url, request = {}) {
  const headers = Object.fromEntries(new Headers(request.headers));
  tell("request", { method: request.method ?? "GET", url: String(url), headers, body: request.body ?? null });
  const response = await fetch(url, request);
  if (response.body === null) return response;
  const reader = response.body.getReader();
  const body = new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (done) controller.close();
        else controller.enqueue(value);
      } catch (error) {
        controller.error(error.name === "AbortError" ? error : disconnected());
      }
    },
    cancel: (reason) => reader.cancel(reason),
  });
  return new Response(body, { status: response.status, headers: response.headers });
}

export async function drive(ai, Chat) {
  const { api, id, headers, body, load } = JSON.parse(process.env.CHAT);
  let messages = [];
  if (load) {
    const stored = await fetch(`${api}/${id}/messages`, { headers });
    messages = await ai.validateUIMessages({ messages: await stored.json() }).catch((error) => {
      throw new Error(`the package refuses the stored messages: ${error}`);
    });
  }
  const chat = new Chat({
    id,
    messages,
    transport: new ai.DefaultChatTransport({ api, headers, body, fetch: browserFetch }),
    onToolCall: ({ toolCall }) => tell("toolCall", { toolCall }),
    onFinish: ({ message, isAbort, isDisconnect, isError }) => tell("finish", { message, isAbort, isDisconnect, isError }),
  });
  chat["~registerMessagesCallback"](() => tell("shown", { message: chat.lastMessage }));
  const commands = {
    send: ({ text, messageId }) => chat.sendMessage({ text, messageId }),
    regenerate: ({ messageId }) => chat.regenerate({ messageId }),
    resume: () => chat.resumeStream(),
    stop: () => chat.stop(),
    cancel: () => fetch(`${api}/${id}/stop`, { method: "POST", headers }),
  };
  tell("ready", { messages });
  for await (const line of createInterface({ input: process.stdin })) {
    const { do: name, ...given } = JSON.parse(line);
    commands[name](given).then(
      () => tell(name, { status: chat.status, error: chat.error?.message ?? null, messages: chat.messages }),
      (error) => tell("threw", { name, error: String(error) }),
    );
  }
}
