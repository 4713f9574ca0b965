"""The reference of the API as one HTML page, made from the OpenAPI document. It loads nothing from elsewhere."""

from html import escape
from typing import Any

from litestar import Request
from litestar.openapi.plugins import OpenAPIRenderPlugin

Json = dict[str, Any]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
code, pre { font: 14px/1.4 ui-monospace, monospace; } pre { background: #f5f5f5; padding: .75rem; overflow: auto; }
section { border-top: 1px solid #ddd; padding: .5rem 0; } .method { font-weight: 700; text-transform: uppercase; }
td, th { text-align: left; vertical-align: top; padding: .1rem 1rem .1rem 0; }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; } pre { background: #242424; }
a { color: #8ab4f8; } section { border-color: #444; } }
"""


class ReferencePage(OpenAPIRenderPlugin):
    """Rendered on this side; the bundled pages of Litestar fetch their scripts from a public server."""

    def render(self, request: "Request[Any, Any, Any]", openapi_schema: Json) -> bytes:
        """The page."""
        info = openapi_schema["info"]
        operations = [
            _operation(path, method, operation)
            for path, methods in openapi_schema["paths"].items()
            for method, operation in methods.items()
        ]
        schemas = openapi_schema["components"].get("schemas", {})
        body = [
            f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
            f"<p>{escape(info.get('description', ''))}</p>",
            f'<p><a href="{escape(self.get_openapi_json_route(request))}">OpenAPI document</a></p>',
            *operations,
            "<h2>Schemas</h2>",
            *(_schema(name, schema) for name, schema in sorted(schemas.items())),
        ]
        head = f'<meta charset="utf-8"><title>{escape(info["title"])}</title><style>{_STYLE}</style>'
        return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(body)}</body></html>".encode()


def _operation(path: str, method: str, operation: Json) -> str:
    rows = [
        f"<tr><td><code>{escape(p['name'])}</code><td>{escape(p['in'])}<td>{_type(p.get('schema', {}))}"
        f"<td>{escape(p.get('description', ''))}"
        for p in operation.get("parameters", [])
    ]
    if "requestBody" in operation:
        rows.append(f"<tr><td>body<td><td>{_content(operation['requestBody'])}<td>")
    rows += [
        f"<tr><td>{escape(status)}<td><td>{_content(response)}<td>{escape(response.get('description') or '')}"
        for status, response in operation.get("responses", {}).items()
    ]
    return (
        f'<section><h3><span class="method">{escape(method)}</span> <code>{escape(path)}</code></h3>'
        f"<p>{escape(operation.get('description') or operation.get('summary') or '')}</p>"
        f"<table>{''.join(rows)}</table></section>"
    )


def _schema(name: str, schema: Json) -> str:
    if "enum" in schema:
        fields = f"<pre>{escape(' · '.join(map(str, schema['enum'])))}</pre>"
    else:
        required = schema.get("required", [])
        rows = [
            f"<tr><td><code>{escape(field)}</code><td>{_type(of)}<td>{'required' if field in required else ''}"
            for field, of in schema.get("properties", {}).items()
        ]
        fields = f"<table>{''.join(rows)}</table>"
    description = escape(schema.get("description", ""))
    return f'<section id="{escape(name)}"><h3><code>{escape(name)}</code></h3><p>{description}</p>{fields}</section>'


def _content(described: Json) -> str:
    return ", ".join(
        f"{_type(of.get('schema', {}))} ({escape(media_type)})"
        for media_type, of in (described.get("content") or {}).items()
    )


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}"><code>{name}</code></a>'
    for union in ("oneOf", "anyOf", "allOf"):
        if union in schema:
            return " or ".join(dict.fromkeys(_type(part) for part in schema[union]))
    if "enum" in schema:
        return " · ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    kind = schema.get("type", "any")
    kinds = kind if isinstance(kind, list) else [kind]
    name = " or ".join(escape(str(part)) for part in kinds)
    return f"{name} of {_type(schema['items'])}" if "items" in schema else name
