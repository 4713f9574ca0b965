import { useLayoutEffect, useRef } from "preact/hooks";
import type { Peer } from "../editor/presence";

const SHOWN = 4;

interface Props {
  peers: Peer[];
  onGoTo: (client: number) => void;
}

/** Who has the document open; a click goes to where they are. */
export function Presence({ peers, onGoTo }: Props) {
  const rest = peers.slice(SHOWN);
  return (
    <ul class="peers" aria-label="Who is here">
      {peers.slice(0, SHOWN).map((peer) => (
        <li key={`${peer.isAgent}:${peer.name}`}>
          <PeerMark peer={peer} onClick={() => onGoTo(peer.client)} />
        </li>
      ))}
      {rest.length > 0 && (
        <li class="rest" title={rest.map(({ name }) => name).join(", ")}>
          +{rest.length}
        </li>
      )}
    </ul>
  );
}

function PeerMark({ peer: { name, color, isAgent, isMe }, onClick }: { peer: Peer; onClick: () => void }) {
  const mark = useRef<HTMLButtonElement>(null);
  useLayoutEffect(() => mark.current?.style.setProperty("--peer", color), [color]);
  const kind = `peer${isAgent ? " agent" : ""}${isMe ? " me" : ""}`;
  const label = `Go to ${name}${isAgent ? ", an agent" : ""}${isMe ? ", you" : ""}`;
  return (
    <button ref={mark} type="button" class={kind} title={label} aria-label={label} onClick={onClick}>
      {isAgent ? "✦" : initials(name)}
      {isAgent && <span class="peer-name">{name}</span>}
    </button>
  );
}

function initials(name: string): string {
  const words = name.split("@")[0]!.split(/[\s._-]+/).filter(Boolean);
  const letters = [words[0], words.length > 1 ? words.at(-1) : undefined].map((word) => [...(word ?? "")][0] ?? "");
  return letters.join("").toUpperCase() || "?";
}
