"""What the server can be asked for, as an OpenAPI 3.1 document and a page, made of the structs that read bodies.

The page holds all that it shows: it loads nothing, from here or elsewhere, and has no script.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import msgspec
from starlette.routing import Route

from opsin import __version__
from opsin.serve.fields import Fields

_REFERENCE = "#/components/schemas/"
_PARAMETER = re.compile(r"\{(\w+)(?::(\w+))?\}")
_TYPES = {"int": "integer", "path": "string", "str": "string"}
_ABOUT = (
    "Answers questions about pictures and text, as OpenAI's API and llama-server do. null means absent. A field of "
    "which only some values are listed is not supported yet: these ask for nothing. What stands nowhere is left aside."
)
_STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:auto;padding:1rem;color:#222;background:#fff}"
    "code{font-family:ui-monospace,monospace}td{vertical-align:top;padding:.2rem 1rem .2rem 0}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}a{color:#8bf}}"
)


@dataclass(frozen=True)
class Described:
    """A route, and what is read from the bodies sent there: each kind reads its own fields of the same body.

    `form` is the schema of a form in place of JSON. One that is not `built` tells so whoever asks, and is not offered;
    a `shared` one asks no model for anything.
    """

    route: Route
    body: tuple[type[Fields], ...] = ()
    built: bool = True
    form: Mapping[str, Any] | None = None
    shared: bool = False


def document(described: Sequence[Described], prefix: str = "", names: Sequence[str] = ()) -> Mapping[str, Any]:
    """The OpenAPI document of these routes. `names` are those of the model, where they are known."""
    kinds = list(dict.fromkeys(kind for one in described for kind in one.body))
    references, schemas = msgspec.json.schema_components(kinds, ref_template=_REFERENCE + "{name}")
    together = {kind.__name__: kind.together for kind in _subclasses(Fields)}
    for name, schema in schemas.items():
        _let_be_null(schema)
        schema.update(together[name])
    by_kind = dict(zip(kinds, references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for one in (one for one in described if one.built):
        path = _PARAMETER.sub(r"{\1}", one.route.path)
        for method in sorted((one.route.methods or set()) - {"HEAD"}):
            body = [by_kind[kind] for kind in one.body]
            paths.setdefault(path, {})[method.lower()] = _operation(one, body, names)
    return {
        "openapi": "3.1.0",
        "info": {"title": "opsin", "version": __version__, "description": _ABOUT},
        **({"servers": [{"url": prefix}]} if prefix else {}),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(described: Described, body: list[Any], names: Sequence[str]) -> dict[str, Any]:
    error = "What is wrong, with the path of the field: {error: {message, type, param, code}}"
    made: dict[str, Any] = {
        "summary": (described.route.endpoint.__doc__ or "").partition("\n")[0],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": _parameter(name, kind, names)}
            for name, kind in _PARAMETER.findall(described.route.path)
        ],
        "responses": {"200": {"description": "The answer"}},
    }
    if body:
        schema = body[0] if len(body) == 1 else {"allOf": body}
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        made["responses"]["400"] = {"description": error}
    if described.form is not None:
        content = {"multipart/form-data": {"schema": described.form}}
        made["requestBody"] = {"required": True, "content": content}
        made["responses"]["400"] = {"description": error}
    return made


def _parameter(name: str, kind: str, names: Sequence[str]) -> dict[str, Any]:
    """A part of a path; one that is called `name` is a model's."""
    return {"type": _TYPES[kind or "str"], **({"enum": [*names]} if name == "name" and names else {})}


def _subclasses(kind: type[Fields]) -> Iterator[type[Fields]]:
    for one in kind.__subclasses__():
        yield one
        yield from _subclasses(one)


def _let_be_null(schema: dict[str, Any]) -> None:
    """null means absent, wherever a field may be. What a field is stands beside its type, not within."""
    for name, field in schema["properties"].items():
        for inner in field.get("anyOf", ()):
            if "description" in inner:
                field["description"] = inner.pop("description")
        if name in schema.get("required", ()) or "enum" in field or {"type": "null"} in field.get("anyOf", ()):
            continue
        if field.get("type") != "null":
            told = {key: field.pop(key) for key in ("description", "default") if key in field}
            schema["properties"][name] = {"anyOf": [field, {"type": "null"}], **told}


def page(written: Mapping[str, Any]) -> bytes:
    """A document as HTML."""
    schemas = written["components"]["schemas"]
    parts = [f"<h1>opsin {escape(written['info']['version'])}</h1>", f"<p>{escape(written['info']['description'])}</p>"]
    parts.append('<p>The same for programs: <a href="openapi.json">openapi.json</a></p><h2>Addresses</h2><table>')
    for path, methods in written["paths"].items():
        for method, operation in methods.items():
            schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            links = " and ".join(_link(reference["$ref"]) for reference in schema.get("allOf", [schema]) if reference)
            what = escape(operation["summary"]) + (f" Takes {links}." if links else "")
            parts.append(f"<tr><td><code>{method.upper()} {escape(path)}</code></td><td>{what}</td></tr>")
    parts.append("</table>")
    for name, schema in schemas.items():
        parts.append(f'<h2 id="{name}">{name}</h2><p>{escape(schema.get("description", ""))}</p><table>')
        for field, declared in schema["properties"].items():
            kind, told = _kind(declared), escape(declared.get("description", ""))
            parts.append(f"<tr><td><code>{field}</code></td><td>{kind}</td><td>{told}</td></tr>")
        parts.append("</table>")
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>opsin: API</title><style>{_STYLE}</style>'
    return "\n".join([head, *parts, "</html>"]).encode()


def _link(reference: str) -> str:
    name = escape(reference.removeprefix(_REFERENCE))
    return f'<a href="#{name}">{name}</a>'


def _kind(schema: Mapping[str, Any]) -> str:
    """What a value is, in words."""
    if "$ref" in schema:
        return _link(schema["$ref"])
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"] if one != {"type": "null"})
    if "enum" in schema:
        return "only " + ", ".join(escape(msgspec.json.encode(value).decode()) for value in schema["enum"])
    if "prefixItems" in schema:
        return f"list of {', '.join(f'({_kind(one)})' for one in schema['prefixItems'])}"
    if "items" in schema:
        return f"list of ({_kind(schema['items'])})"
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = "" if low is None or high is None else f", {low} to {high}"
    return escape(str(schema.get("type", "anything"))) + bounds
