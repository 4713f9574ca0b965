// Editors as an application has them: yjs and y-websocket, unmodified. Commands come as lines of JSON with the name of
// an `editor`, what to `do` and its parameters; each is answered by a line, in order.
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import WebSocket from "ws";
import { readAuthMessage } from "y-protocols/auth";
import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";

process.setMaxListeners(0); // Each provider listens for the end of the process.

const AUTH = 2;
const editors = new Map();

// What a browser's WebSocket cannot: headers. `first` is said before anything else, as an application does that
// authenticates in the first message.
const webSocket = (headers, first) =>
  class extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols, { headers });
      if (first !== undefined) this.once("open", () => this.send(first));
    }
  };

class Editor {
  closes = [];
  denials = [];
  met = [];
  typing = 0;

  constructor({ url, params, headers, first, awareness }) {
    this.doc = new Y.Doc();
    this.text = this.doc.getText("content");
    // Without disableBc the editors of one process would meet over BroadcastChannel, with no server at all.
    const options = { params, connect: false, disableBc: true, WebSocketPolyfill: webSocket(headers, first) };
    this.provider = new WebsocketProvider(url, "sync", this.doc, options);
    this.provider.on("connection-close", (event) => event && this.closes.push([event.code, event.reason]));
    this.provider.messageHandlers[AUTH] = (_, decoder) =>
      readAuthMessage(decoder, this.doc, (_doc, reason) => this.denials.push(reason));
    this.provider.awareness.on("change", ({ added, updated }) =>
      this.met.push(...[...added, ...updated].map((client) => this.provider.awareness.getStates().get(client))));
    this.provider.awareness.setLocalState(awareness);
    this.provider.connect();
  }

  insert({ index, text }) {
    this.text.insert(index, text);
  }

  delete({ index, length }) {
    this.text.delete(index, length);
  }

  // Character by character, at a cursor that stays with its neighbours whatever others do meanwhile.
  type({ index, text, pauseMs }) {
    this.#type(Y.createRelativePositionFromTypeIndex(this.text, index, -1), text, pauseMs);
  }

  async #type(cursor, text, pauseMs) {
    this.typing += 1;
    for (const character of text) {
      const { index } = Y.createAbsolutePositionFromRelativePosition(cursor, this.doc);
      this.text.insert(index, character);
      cursor = Y.createRelativePositionFromTypeIndex(this.text, index + character.length, -1);
      await pause(pauseMs);
    }
    this.typing -= 1;
  }

  connect({ params }) {
    if (params) this.provider.params = params;
    this.provider.connect();
  }

  disconnect() {
    this.provider.disconnect();
  }

  // As when the process is killed: nobody says goodbye.
  cut() {
    this.provider.shouldConnect = false;
    this.provider.ws?.terminate();
  }

  show({ awareness }) {
    this.provider.awareness.on("change", ({ added, updated }) =>
      this.met.push(...[...added, ...updated].map((client) => this.provider.awareness.getStates().get(client))));
    this.provider.awareness.setLocalState(awareness);
  }

  report() {
    const { provider, doc } = this;
    return {
      text: this.text.toString(),
      clientId: doc.clientID,
      state: Object.fromEntries(Y.decodeStateVector(Y.encodeStateVector(doc))),
      waiting: doc.store.pendingStructs !== null || doc.store.pendingDs !== null,
      synced: provider.synced,
      awareness: Object.fromEntries(provider.awareness.getStates()),
      met: this.met,
      closes: this.closes,
      denials: this.denials,
      typing: this.typing,
    };
  }
}

const tell = (line) => process.stdout.write(JSON.stringify({ event: "did", ...line }) + "\n");

for await (const line of createInterface({ input: process.stdin })) {
  const { editor, do: name, ...given } = JSON.parse(line);
  try {
    if (name === "open") {
      editors.set(editor, new Editor(given));
      tell({});
    } else {
      tell({ answer: editors.get(editor)[name](given) });
    }
  } catch (error) {
    tell({ error: String(error.stack) });
  }
}
process.exit(0);
