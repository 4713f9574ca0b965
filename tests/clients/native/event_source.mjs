// Follows a run as a browser's EventSource does: a ticket in the URL, resuming by itself. STREAM in the environment.
import { EventSource } from "eventsource";

const tell = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + "\n");

const source = new EventSource(process.env.STREAM);
source.onopen = () => tell("open");
source.onerror = ({ code, message }) => tell("error", { code, message, closed: source.readyState === 2 });
source.onmessage = ({ data, lastEventId }) => {
  const event = JSON.parse(data);
  tell("message", { id: lastEventId, data: event });
  if (["done", "error", "cancelled"].includes(event.type)) {
    source.close();
    tell("end");
  }
};
