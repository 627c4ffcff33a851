"""/openapi.json says what the server takes, /docs shows it and loads nothing."""

from __future__ import annotations

import re

import pytest
from starlette.routing import Route
from test_chat import MESSAGES

from opsin.serve.chat import ChatFields
from opsin.serve.completions import CompletionFields
from opsin.serve.conversation import Conversation
from opsin.serve.fields import unbuilt_fields
from opsin.serve.raw_prompts import Prompts

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
TAKEN = [
    ("/v1/chat/completions", {"messages": MESSAGES}),
    (
        "/v1/chat/completions",
        {"messages": MESSAGES, "top_p": 0.5, "max_tokens": None, "stop": ["a", "b"], "n": 2},
    ),
    ("/v1/chat/completions", {"messages": MESSAGES, "stream": None, "stream_options": {"include_usage": True}}),
    ("/v1/chat/completions", {"messages": MESSAGES, "tools": [], "logit_bias": {}, "nobody_knows": [1]}),
    ("/v1/chat/completions", {"messages": [{**MESSAGES[0], "name": None, "prefix": None}], "seed": 5.0}),
    (
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "image_url": None}]}],
            "stream_options": {"include_usage": None},
            "reasoning": {"effort": None, "max_tokens": 5.0},
        },
    ),
    ("/v1/chat/completions", {"messages": MESSAGES, "detail": "low", "max_pixels": 5, "min_image_tokens": None}),
    ("/apply-template", {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}),
    ("/v1/completions", {"prompt": "hi", "logprobs": 1, "seed": -1}),
    ("/completion", {"prompt": [5, "hi", 6], "n_predict": 1}),
    ("/completion", {"prompt": ["hi", [5, 6]], "n_predict": 1}),
    ("/completion", {"prompt": "hi", "n_predict": 1, "logit_bias": {"5": -1.5, "so": False}, "samplers": "kt"}),
    ("/completion", {"prompt": "hi", "n_predict": 1, "logit_bias": [[5, False], ["so", 2]], "samplers": ["top_k"]}),
    ("/completion", {"prompt": [5.0, "hi", 6.0], "n_predict": 1.0, "allowed_token_ids": [5.0]}),
    ("/completion", {"prompt": [[5.0, 6]], "n_predict": 1, "grammar_triggers": [{"type": 1.0, "value": "x"}]}),
    ("/tokenize", {"content": ["hi", 5], "add_special": None}),
    ("/tokenize", {"content": ["hi", 5.0]}),
    ("/detokenize", {"tokens": [5, 6]}),
]
REFUSED = [
    ("/v1/chat/completions", {}),
    ("/v1/chat/completions", {"messages": []}),
    ("/v1/chat/completions", {"messages": [{"content": "hi"}]}),
    ("/v1/chat/completions", {"messages": [{"role": "user"}]}),
    ("/v1/chat/completions", {"messages": [{"role": "nobody", "content": "hi"}]}),
    ("/tokenize", {"content": ["hi", 5.5]}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi", "name": "a\n"}]}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{**PICTURE, "resized_width": 5}]}]}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{**PICTURE, "min_pixels": 0}]}]}),
    ("/v1/chat/completions", {"messages": MESSAGES, "detail": "medium"}),
    ("/v1/chat/completions", {"messages": MESSAGES, "repeat_last_n": -2}),
    ("/v1/chat/completions", {"messages": MESSAGES, "tools": [{"type": "function"}]}),
    ("/v1/chat/completions", {"messages": MESSAGES, "stream_options": {"include_usage": "yes"}}),
    ("/v1/chat/completions", {"messages": MESSAGES, "stop": ["a"] * 65}),
    ("/v1/chat/completions", {"messages": MESSAGES, "truncate": 5}),
    ("/completion", {"prompt": [None]}),
    ("/completion", {"prompt": {"prompt": "x"}}),
    ("/detokenize", {"tokens": "5"}),
]


def fits(value: object, schema: dict, schemas: dict) -> bool:
    """Whether a value is what a schema says, as far as our document uses the language."""
    if "$ref" in schema:
        return fits(value, schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "allOf" in schema:
        return all(fits(value, one, schemas) for one in schema["allOf"])
    if "anyOf" in schema:
        own = {key: part for key, part in schema.items() if key != "anyOf"}
        kind = {"type": "object", "properties": {}} if "properties" in own else {}
        return fits(value, own, schemas) and any(fits(value, kind | one, schemas) for one in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    return fits_kind(value, schema, schemas)


def fits_kind(value: object, schema: dict, schemas: dict) -> bool:
    """The same of a schema that says a type."""
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": int | float}
    kind = schema.get("type")
    value = int(value) if kind == "integer" and isinstance(value, float) and value.is_integer() else value
    if kind is None:
        return True
    if isinstance(kind, list):
        return any(fits(value, {**schema, "type": one}, schemas) for one in kind)
    if kind == "null" or value is None:
        return kind == "null" and value is None
    if not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return False
    if kind == "object":
        known = schema.get("properties", dict.fromkeys(value, schema.get("additionalProperties")))
        return all(name in value for name in schema.get("required", ())) and all(
            fits(part, known[name], schemas) for name, part in value.items() if name in known
        )
    if kind == "array":
        count = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        kinds = schema.get("prefixItems", [schema.get("items", {})] * len(value))
        return count and all(fits(part, kind, schemas) for part, kind in zip(value, kinds, strict=True))
    if kind == "string":
        return re.search(schema.get("pattern", ""), value) is not None
    return kind == "boolean" or schema.get("minimum", value) <= value <= schema.get("maximum", value)


@pytest.fixture(scope="module")
def document(server):
    return server.ask("/openapi.json").json


@pytest.fixture
def taken(document):
    def taken(path: str, body: object) -> bool:
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        return fits(body, schema, document["components"]["schemas"])

    return taken


def test_the_document_has_every_route_with_its_methods_and_says_what_it_does(server, document):
    routes = [route for route in server.server.config.app.routes if isinstance(route, Route)]
    there = {(re.sub(r":\w+}", "}", r.path), m.lower()) for r in routes for m in r.methods - {"HEAD"}}
    told = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert told < there
    for path, method in there - told:
        body = {} if method == "post" else None
        assert server.ask(path.replace("{id}", "1"), body, method=method.upper()).status == 501, (path, method)
    assert ("/infill", "post") not in told  # this model has no tokens for it
    assert document["paths"]["/v1/models/{name}"]["get"]["parameters"][0]["schema"]["enum"] == server.service.names
    assert all(document["paths"][path][method]["summary"] for path, method in told)


def test_every_field_that_is_declared_says_what_it_is_or_what_it_takes(document):
    for name, schema in document["components"]["schemas"].items():
        for field, declared in schema["properties"].items():
            assert declared.get("description") or "$ref" in str(declared), (name, field)


@pytest.mark.parametrize(("path", "body"), TAKEN)
def test_what_the_document_allows_is_taken(server, taken, path, body):
    assert taken(path, body)
    assert server.ask(path, body).status == 200


@pytest.mark.parametrize(("path", "body"), REFUSED)
def test_what_the_document_forbids_is_refused(server, taken, path, body):
    assert not taken(path, body)
    assert server.ask(path, body).status == 400


@pytest.mark.parametrize(("path", "kinds"), [
    ("/v1/chat/completions", (Conversation, ChatFields)), ("/completion", (Prompts, CompletionFields)),
])  # fmt: skip
def test_fields_that_are_not_built_stand_there_with_what_asks_for_nothing(taken, path, kinds):
    body = dict(TAKEN[0][1] if "chat" in path else {"prompt": "hi"})
    for kind in kinds:
        for name, harmless in unbuilt_fields(kind).items():
            assert not taken(path, {**body, name: "xyzzy"})
            assert all(taken(path, {**body, name: value}) for value in (None, *harmless))


def test_the_page_shows_each_address_and_field_and_loads_nothing(server, document):
    reply = server.ask("/docs")
    html = reply.body.decode()
    assert reply.headers["content-type"].startswith("text/html")
    for path in document["paths"]:
        assert path in html
    for name, schema in document["components"]["schemas"].items():
        assert f'id="{name}"' in html
        assert all(f"<code>{field}</code>" in html for field in schema["properties"])
    assert not re.search(r"src=|<link|<script|url\(|@import|https?://", html)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'none'" in policy and "style-src 'sha256-" in policy
    assert set(re.findall(r'href="([^"#]+)', html)) == {"openapi.json"}
