// Who is asking: a token, kept in this browser only. It never stands in a URL that is sent anywhere.

import { computed, signal } from "@preact/signals";
import { isOwedBy, mayLose } from "./unsent";

const TOKEN = "throughline.token";
const WORKSPACE = "throughline.workspace";

export const token = signal(localStorage.getItem(TOKEN));
const chosenWorkspace = signal(localStorage.getItem(WORKSPACE));

export interface Workspace {
  id: string;
  name: string;
  role: string;
}

/** What the token says of its workspaces. The server checks the token; this is only for choosing. */
export const workspaces = computed(() => (token.value ? readWorkspaces(token.value) : []));

export const workspace = computed(() => {
  const found = workspaces.value.find(({ id }) => id === chosenWorkspace.value);
  return (found ?? workspaces.value[0])?.id;
});

/** A viewer changes nothing; the server sees to that, the page only does not offer it. */
export const isViewer = computed(() => workspaces.value.find(({ id }) => id === workspace.value)?.role === "viewer");

/** Who is asking in which workspace; empty: nobody. What was written as one is sent as no other. */
export const whoAndWhere = computed(() => idOf(claimsOf(token.value ?? "")?.sub, workspace.value));

const idOf = (who: string | undefined, where: string | undefined) => (who && where ? JSON.stringify([who, where]) : "");

/** As others see whoever is here. */
export const myName = computed(() => {
  const { name, email, sub } = claimsOf(token.value ?? "") ?? {};
  return name || email || sub || "Somebody";
});

/**
 * Moves the token of a link such as `/#token=…` out of the address, which is never sent to a server; whether there was
 * one. A link of somebody else's must not sign anybody in as another without a word.
 */
export function takeTokenFromAddress(keep: (text: string) => boolean): boolean {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given === null) return false;
  history.replaceState(null, "", location.pathname);
  const [now, then] = [token.value, given].map((text) => claimsOf(text ?? "")?.sub);
  if (now === undefined || now === then || confirm(`Sign in as ${then} instead of ${now}?`)) keep(given);
  return true;
}

/** False for what cannot be a token. */
export function keepToken(text: string): boolean {
  const kept = saveToken(text);
  if (kept) token.value = text.trim();
  return kept;
}

/**
 * Signs in where the page may know something of somebody. Who has text here that is not sent goes on with it; for
 * anybody else the page is loaded again, since whatever it knows it knows from another token. False: this is no token.
 */
export function signIn(text: string): boolean {
  const given = text.trim();
  if (!isToken(given)) return false;
  const { sub } = claimsOf(given) ?? {};
  if (isOwedBy((owner) => readWorkspaces(given).some(({ id }) => idOf(sub, id) === owner))) return keepToken(given);
  if (mayLose("Sign in with another token") && saveToken(given)) location.reload();
  return true;
}

const isToken = (text: string) => /^[\w-]+\.[\w-]+\.[\w-]+$/.test(text);

/** For the page as it will be once it is loaded again; as it is now it asks nothing with this token. */
export function saveToken(text: string): boolean {
  const given = text.trim();
  if (!isToken(given)) return false;
  localStorage.setItem(TOKEN, given);
  sessionStorage.removeItem(SIGNED_OUT);
  return true;
}

export function chooseWorkspace(id: string): void {
  localStorage.setItem(WORKSPACE, id);
  chosenWorkspace.value = id;
}

/** Why the page asks for a token again. */
export const refusal = signal("");

export function signOut(why = ""): void {
  localStorage.removeItem(TOKEN);
  refusal.value = why;
  token.value = null;
}

/** Somebody has signed out on purpose: until this tab is closed nobody is signed in without being asked. */
const SIGNED_OUT = "throughline.signed-out";

/** Leaves nothing running of whoever was signed in. */
export function leave(): void {
  if (!mayLose("Sign out")) return;
  sessionStorage.setItem(SIGNED_OUT, "yes");
  signOut();
  location.reload();
}

export const hasLeft = () => sessionStorage.getItem(SIGNED_OUT) !== null;

/** A development server on this machine gives its own browser a token; any other server has nothing at this path. */
export async function askForDevelopmentToken(): Promise<boolean> {
  try {
    const answer = await fetch("/development/token", { method: "POST" });
    return answer.ok && keepToken((await answer.json()).token);
  } catch {
    return false;
  }
}

function readWorkspaces(text: string): Workspace[] {
  const listed = claimsOf(text)?.workspaces;
  if (!Array.isArray(listed)) return [];
  return listed.map((entry) => ({ id: entry.workspace_id, name: entry.workspace_name ?? entry.workspace_id, role: entry.role }));
}

interface Claims {
  sub?: string;
  name?: string;
  email?: string;
  workspaces?: unknown;
}

/** What a token says, which only the server can check. */
function claimsOf(text: string): Claims | undefined {
  try {
    const payload = text.split(".")[1]!.replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(payload), (letter) => letter.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)) ?? undefined;
  } catch {
    return undefined;
  }
}
