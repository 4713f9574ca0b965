import { useLayoutEffect, useRef } from "preact/hooks";
import type { Peer } from "../editor/presence";

const SHOWN = 4;

/** Who has the document open. */
export function Presence({ peers }: { peers: Peer[] }) {
  const rest = peers.slice(SHOWN);
  return (
    <ul class="peers" aria-label="Who is here">
      {peers.slice(0, SHOWN).map((peer) => (
        <PeerMark key={`${peer.isAgent}:${peer.name}`} peer={peer} />
      ))}
      {rest.length > 0 && (
        <li class="rest" title={rest.map(({ name }) => name).join(", ")}>
          +{rest.length}
        </li>
      )}
    </ul>
  );
}

function PeerMark({ peer: { name, color, isAgent, isMe } }: { peer: Peer }) {
  const mark = useRef<HTMLLIElement>(null);
  useLayoutEffect(() => mark.current?.style.setProperty("--peer", color), [color]);
  const said = `${name}${isAgent ? ", an agent" : ""}${isMe ? ", you" : ""}`;
  const kind = `peer${isAgent ? " agent" : ""}${isMe ? " me" : ""}`;
  return (
    <li ref={mark} class={kind} title={said} aria-label={said}>
      <span aria-hidden="true">{isAgent ? "✦" : initials(name)}</span>
      {isAgent && <span class="peer-name">{name}</span>}
    </li>
  );
}

function initials(name: string): string {
  const words = name.split("@")[0]!.split(/[\s._-]+/).filter(Boolean);
  const letters = [words[0], words.length > 1 ? words.at(-1) : undefined].map((word) => [...(word ?? "")][0] ?? "");
  return letters.join("").toUpperCase() || "?";
}
