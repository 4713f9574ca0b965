// Who is in a room, and in which colour. States come from others' browsers: nothing of them is taken unseen.

import type { Awareness } from "y-protocols/awareness";

export interface Peer {
  client: number;
  name: string;
  color: string;
  isAgent: boolean;
  isMe: boolean;
}

/** White on each can be read, and each can be seen on light and dark paper. */
const COLORS = ["#0b7285", "#a8480f", "#7048b6", "#2b6cb0", "#b0306a", "#3f7d20", "#8a6100", "#a3281e"];

/** The same for the same name, so that somebody's tabs look alike. */
export function colorOf(name: string): string {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + letter.codePointAt(0)!) >>> 0;
  return COLORS[sum % COLORS.length]!;
}

export function showMyself(awareness: Awareness, name: string): void {
  const color = colorOf(name);
  awareness.setLocalStateField("user", { name, color, colorLight: `${color}33` });
}

export function readPeer(state: Record<string, unknown>): Omit<Peer, "client" | "isMe"> {
  const { name, color, agent } = (state["user"] ?? {}) as Record<string, unknown>;
  const shown = typeof name === "string" && name.trim() ? name.trim().slice(0, 60) : "Somebody";
  const isColor = typeof color === "string" && /^#[0-9a-f]{6}$/i.test(color);
  return { name: shown, color: isColor ? color : colorOf(shown), isAgent: agent === true };
}

/** Everybody once, however many tabs they have open: agents first, and whoever asks last. */
export function peersIn(awareness: Awareness): Peer[] {
  const found = new Map<string, Peer>();
  for (const [client, state] of awareness.getStates()) {
    const peer = { ...readPeer(state), client, isMe: client === awareness.clientID };
    const key = `${peer.isAgent}:${peer.name}`;
    if (peer.isMe || !found.has(key)) found.set(key, peer);
  }
  const rank = ({ isAgent, isMe }: Peer) => (isAgent ? 0 : isMe ? 2 : 1);
  return [...found.values()].sort((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name));
}
