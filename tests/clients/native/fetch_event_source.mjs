// Posts a message and reads its run from the answer; after a break it posts again, with the last id. POST in the
// environment: {url, headers, body}.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
const { fetchEventSource } = await import("@microsoft/fetch-event-source");

const tell = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + "\n");

const { url, headers, body } = JSON.parse(process.env.POST);
await fetchEventSource(url, {
  method: "POST",
  headers: { "Content-Type": "application/json", ...headers },
  body: JSON.stringify(body),
  onopen: async ({ status }) => tell("open", { status }),
  onmessage: ({ id, event, data }) => tell("message", { id, name: event, data: JSON.parse(data) }),
  onerror: (error) => {
    tell("error", { message: String(error) });
    return 50; // milliseconds until it posts again
  },
});
tell("end");
