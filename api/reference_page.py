"""The reference of the API as one HTML page, made from the OpenAPI document. It loads nothing from elsewhere."""

import re
from html import escape
from itertools import groupby
from typing import Any

import msgspec
from litestar import Request
from litestar.openapi.plugins import OpenAPIRenderPlugin

from api.openapi import complete

Json = dict[str, Any]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #222;
overflow-wrap: anywhere; }
code { font: 14px/1.4 ui-monospace, monospace; } a { color: #0b57d0; } nav li { margin: .1rem 0; }
section { border-top: 1px solid #ddd; padding: .5rem 0; } h3 { margin: .5rem 0; }
.method { font-weight: 700; text-transform: uppercase; } .rule, .where { color: #666; font-size: 14px; }
table { border-collapse: collapse; } td { vertical-align: top; padding: .15rem 1.2rem .15rem 0; min-width: 5rem; }
@media (max-width: 40rem) { table, tbody, tr, td { display: block; padding: 0; } tr { padding: .3rem 0; }
nav ul { padding-left: 1rem; } }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; } a { color: #8ab4f8; }
section { border-color: #444; } .rule, .where { color: #999; } }
"""
_RULES = {
    "format": "{}",
    "minLength": "length from {}",
    "maxLength": "length to {}",
    "minimum": "from {}",
    "maximum": "to {}",
    "maxItems": "to {} items",
}


class ReferencePage(OpenAPIRenderPlugin):
    """Rendered on this side, once; the bundled pages of Litestar fetch their scripts from a public server."""

    _rendered: bytes | None = None

    def render(self, request: "Request[Any, Any, Any]", openapi_schema: Json) -> bytes:
        """The page."""
        if self._rendered is None:
            self._rendered = self._page(request, openapi_schema)
        return self._rendered

    def _page(self, request: "Request[Any, Any, Any]", openapi_schema: Json) -> bytes:
        document = complete(openapi_schema)
        info = document["info"]
        operations = [
            (path, method, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ]
        schemas = document["components"]["schemas"]
        body = [
            f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
            f"<p>{_text(info['description'])}</p>",
            f'<p><a href="{escape(self.get_openapi_json_route(request))}">OpenAPI document</a></p>',
            _contents(operations, schemas),
            *(_operation(*operation) for operation in operations),
            "<h2>Schemas</h2>",
            *(_schema(name, schema) for name, schema in schemas.items()),
        ]
        head = (
            '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<link rel="icon" href="data:,"><title>{escape(info["title"])}</title><style>{STYLE}</style>'
        )
        return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(body)}</body></html>".encode()


def _contents(operations: list[tuple[str, str, Json]], schemas: Json) -> str:
    groups = []
    for tag, tagged in groupby(operations, lambda operation: operation[2]["tags"][0]):
        entries = "".join(
            f'<li><a href="#{escape(operation["operationId"])}"><span class="method">{escape(method)}</span> '
            f"<code>{escape(path)}</code></a></li>"
            for path, method, operation in tagged
        )
        groups.append(f"<li>{escape(tag)}<ul>{entries}</ul></li>")
    names = " · ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in schemas)
    return f"<nav><h2>Contents</h2><ul>{''.join(groups)}<li>Schemas<br>{names}</li></ul></nav>"


def _operation(path: str, method: str, operation: Json) -> str:
    rows = [
        _row(p["name"], p["in"], _type(p["schema"]) + _rules(p["schema"]), p.get("description", ""))
        for p in operation.get("parameters", [])
    ]
    if "requestBody" in operation:
        rows.append(_row("body", "", _content(operation["requestBody"]), ""))
    rows += [
        _row(status, "", _content(response), response.get("description") or "")
        for status, response in operation["responses"].items()
    ]
    return (
        f'<section id="{escape(operation["operationId"])}"><h3><span class="method">{escape(method)}</span> '
        f"<code>{escape(path)}</code></h3><p>{_text(operation['description'])}</p>"
        f"<table>{''.join(rows)}</table></section>"
    )


def _schema(name: str, schema: Json) -> str:
    if "properties" in schema:
        required = schema.get("required", [])
        rows = [
            _row(
                field,
                "required" if field in required else "",
                _type(of) + _rules(of),
                of.get("description", ""),
            )
            for field, of in schema["properties"].items()
        ]
        fields = f"<table>{''.join(rows)}</table>"
    else:
        fields = f"<p>{_type(schema)}</p>"
    description = _text(schema.get("description", ""))
    return f'<section id="{escape(name)}"><h3><code>{escape(name)}</code></h3><p>{description}</p>{fields}</section>'


def _row(name: str, where: str, kind: str, description: str) -> str:
    """`kind` is HTML already."""
    return (
        f'<tr><td><code>{escape(name)}</code> <span class="where">{escape(where)}</span>'
        f"<td>{kind}<td>{_text(description)}"
    )


def _content(described: Json) -> str:
    return ", ".join(
        f"{_type(of.get('schema', {}))} ({escape(media_type)})"
        for media_type, of in (described.get("content") or {}).items()
    )


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}"><code>{name}</code></a>'
    if "contentSchema" in schema:
        return f"stream of {_type(schema['contentSchema'])}"
    for union in ("oneOf", "anyOf", "allOf"):
        if union in schema:
            return " or ".join(dict.fromkeys(_type(part) + _rules(part) for part in schema[union]))
    if "enum" in schema:
        return " · ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    kind = schema.get("type", "any")
    kinds = kind if isinstance(kind, list) else [kind]
    name = " or ".join(escape(str(part)) for part in kinds)
    return f"{name} of {_type(schema['items'])}{_rules(schema['items'])}" if "items" in schema else name


def _rules(schema: Json) -> str:
    """Format, limits and default."""
    rules = [said.format(_number(schema[word])) for word, said in _RULES.items() if word in schema]
    if schema.get("default") is not None:
        rules.append(f"default {msgspec.json.encode(schema['default']).decode()}")
    return f' <span class="rule">({escape("; ".join(rules))})</span>' if rules else ""


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(text: str) -> str:
    """Plain text, in which backticks mark code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
