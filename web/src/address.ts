// The address says what is open: `#/<conversation>?document=<document>`, both, one of them or none.

export interface Address {
  conversation: string;
  document: string;
}

export function address(): Address {
  const [, path = "", query] = /^#\/([^?]*)(?:\?(.*))?$/.exec(location.hash) ?? [];
  return { conversation: uuid(path), document: uuid(new URLSearchParams(query).get("document") ?? "") };
}

/** Where one gets to when this changes, and the rest stays open. */
export function linkTo(change: Partial<Address>): string {
  const { conversation, document } = { ...address(), ...change };
  if (document) return `#/${conversation}?document=${document}`;
  return conversation ? `#/${conversation}` : "#";
}

export function go(change: Partial<Address>): void {
  location.hash = linkTo(change);
}

/** Whether it names a document by what can be the name of none. */
export function isGarbled(): boolean {
  const query = location.hash.split("?", 2)[1];
  return !!new URLSearchParams(query).get("document") && !address().document;
}

/** A UUID with or without its dashes. Anything else is none. */
function uuid(text: string): string {
  const digits = /^[0-9a-f-]+$/i.test(text) ? text.replaceAll("-", "").toLowerCase() : "";
  return digits.length === 32 ? digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5") : "";
}
