// Markdown of a model, as elements. markdown-it parses it; its tokens become elements one by one, so no HTML is ever
// made of text: the page's policy (`require-trusted-types-for`) would not even let it.

import MarkdownIt, { type Token } from "markdown-it";
import { type ComponentChild, h } from "preact";
import { useMemo, useState } from "preact/hooks";

const parser = new MarkdownIt({ html: false, linkify: true, breaks: true });
parser.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
/** Whatever leads elsewhere stays the text that it was written as. */
parser.validateLink = (url) => /^(https?:\/\/|mailto:)/i.test(url);

export function Markdown({ text }: { text: string }) {
  const parsed = useMemo(() => elements(parser.parse(text, {})), [text]);
  return (
    <div class="markdown" dir="auto">
      {parsed}
    </div>
  );
}

function elements(tokens: Token[]): ComponentChild[] {
  const open: { token: Token; before: ComponentChild[] }[] = [];
  let here: ComponentChild[] = [];
  for (const token of tokens) {
    if (token.hidden) continue;
    if (token.nesting === 1) {
      open.push({ token, before: here });
      here = [];
    } else if (token.nesting === -1) {
      const { token: opened, before } = open.pop()!;
      before.push(h(opened.tag, attributes(opened), here));
      here = before;
    } else {
      here.push(leaf(token));
    }
  }
  return here;
}

function attributes(token: Token): Record<string, string> {
  switch (token.tag) {
    case "a":
      return outside(`${token.attrGet("href")}`);
    case "ol":
      return { start: `${token.attrGet("start") ?? 1}` };
    case "td":
    case "th":
      return { class: `${token.attrGet("style") ?? ""}`.replace("text-align:", "align-") };
    default:
      return {};
  }
}

function leaf(token: Token): ComponentChild {
  switch (token.type) {
    case "inline":
      return elements(token.children ?? []);
    case "code_inline":
      return <code>{token.content}</code>;
    case "fence":
    case "code_block":
      return <CodeBlock code={token.content} language={token.info.trim().split(/\s/)[0] ?? ""} />;
    case "image":
      // Fetching it would tell a stranger who reads this, and when.
      return <a {...outside(`${token.attrGet("src")}`)}>{token.content || `${token.attrGet("src")}`}</a>;
    case "softbreak":
    case "hardbreak":
      return <br />;
    case "hr":
      return <hr />;
    default:
      return token.content;
  }
}

function outside(href: string): Record<string, string> {
  return { href, target: "_blank", rel: "noopener noreferrer nofollow" };
}

function CodeBlock({ code, language }: { code: string; language: string }) {
  return (
    <figure class="code">
      <figcaption>
        <span>{language}</span>
        <CopyButton text={code} />
      </figcaption>
      <pre tabIndex={0}>
        <code>{code}</code>
      </pre>
    </figure>
  );
}

export function CopyButton({ text }: { text: string }) {
  const [copied, setCopied] = useState(false);
  // Only a page of HTTPS or of this machine may write to the clipboard.
  if (!navigator.clipboard) return null;
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return (
    <button type="button" class="quiet" onClick={() => void copy()}>
      {copied ? "Copied" : "Copy"}
    </button>
  );
}
