"""Is every JSON schema obeyed, or refused by the name of what cannot be held to? Through a server, streamed and not.

    python tests/serve/obey_schemas.py                       # opsin-nano: JSON Schema's test suite, 1,000 made schemas
    python tests/serve/obey_schemas.py --model SmolLM2.gguf --made 1000

What a schema takes is checked with `jsonschema`. `oneOf` is held to as `anyOf`, and checked so. An answer that is
longer than it may be (`length`) is asked for again, up to three times, and counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import jsonschema
from made_schemas import DRAFTS, Case, made, suite
from running_server import Running, running

VALIDATORS = {"draft7": jsonschema.Draft7Validator, "draft2020-12": jsonschema.Draft202012Validator}
QUESTION = "Give me a short example as JSON, without white space."
TRIES = 4
# How a refusal begins that names no keyword, because the fault is the whole schema's.
_WHOLE = ("Unsatisfiable schema", "the schema is false", "nothing obeys", "too large")
_MORE = ("Unimplemented keys", "Unknown format")  # of what a $ref leads to, as to a dialect's own schema


def ask(server: Running, case: Case, number: int, *, stream: bool, tokens: int, tries: int = TRIES) -> str:
    """What came of a schema: obeyed, refused, long, or what is wrong, in words."""
    format = {"type": "json_schema", "json_schema": {"name": "x", "schema": case.schema}}
    body = {
        "messages": [{"role": "user", "content": QUESTION}], "max_tokens": tokens, "response_format": format,
        "temperature": 1.0, "stream": stream,
    }  # fmt: skip
    for attempt in range(tries):
        reply = server.ask("/v1/chat/completions", {**body, "seed": number * TRIES + attempt})
        if reply.status == 400:
            return _refused(case, reply.json["error"])
        if reply.status != 200:
            return f"status {reply.status}: {reply.body[:200]!r}"
        text, reason = _streamed(reply.events) if stream else _whole(reply.json)
        if reason == "stop":
            return _checked(case, text) if not attempt else f"again {_checked(case, text)}"
    return "long"


def _whole(told: Mapping[str, object]) -> tuple[str, str]:
    choice = told["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]


def _streamed(events: Iterable[Mapping[str, object]]) -> tuple[str, str]:
    choices = [choice for event in events for choice in event["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices), choices[-1]["finish_reason"]


def _refused(case: Case, error: Mapping[str, object]) -> str:
    """Whether a refusal names one of the schema's own keywords."""
    keywords = set(_keys(case.schema))
    message = error["message"]
    if any(word in message for word in (*keywords, *_WHOLE, *_MORE)):
        return "refused"
    return f"refused without a keyword: {message}"


def _keys(value: object) -> Iterable[str]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield key
            yield from _keys(part)
    elif isinstance(value, list):
        for part in value:
            yield from _keys(part)


def _checked(case: Case, text: str) -> str:
    """Whether a text obeys, as `jsonschema` sees it."""
    try:
        value = json.loads(text)
    except ValueError:
        return f"no JSON: {text!r:.200}"
    faults = [error.message for error in VALIDATORS[case.draft](_held(case.schema)).iter_errors(value)]
    return f"{text!r:.200} does not obey: {faults[0]:.200}" if faults else "obeyed"


def _held(schema: object) -> object:
    """A schema as it is held to."""
    if isinstance(schema, Mapping):
        return {("anyOf" if key == "oneOf" else key): _held(part) for key, part in schema.items()}
    return [_held(part) for part in schema] if isinstance(schema, list) else schema


def examine(
    server: Running, cases: list[Case], *, tokens: int, tries: int = TRIES, streams: int = 16
) -> dict[str, Counter[str]]:
    """All cases, streamed and not; outcomes by kinds of cases. Prints what is wrong."""
    found: dict[str, Counter[str]] = {}
    jobs = [(case, number, stream) for number, case in enumerate(cases) for stream in (False, True)]
    with ThreadPoolExecutor(streams) as pool:
        outcomes = pool.map(lambda job: ask(server, job[0], job[1], stream=job[2], tokens=tokens, tries=tries), jobs)
        for (case, _, stream), outcome in zip(jobs, outcomes, strict=True):
            is_known = outcome in ("obeyed", "again obeyed", "refused", "long")
            if not is_known:
                print(f"{case.name}{' (stream)' if stream else ''}: {outcome}", flush=True)
            kind = case.draft if case.name.startswith("draft") else "made"
            found.setdefault(kind, Counter())[outcome if is_known else "wrong"] += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--made", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=400)
    options = parser.parse_args()
    import opsin

    start, cases = time.perf_counter(), suite()
    if isinstance(cases, str):
        sys.exit(cases)
    with (
        opsin.load(options.model, context=1024, sequences=16) as model,
        running(lambda: model, name="model") as server,
    ):
        found = examine(server, [*cases, *made(options.made, options.seed)], tokens=options.tokens)
    for kind, outcomes in found.items():
        print(kind, dict(outcomes))
    print(f"{time.perf_counter() - start:.0f} s")
    enough = all(sum(found[d].values()) - found[d]["refused"] >= 2 * least for d, least in DRAFTS.items())
    sys.exit(1 if not enough or any(outcomes["wrong"] for outcomes in found.values()) else 0)


if __name__ == "__main__":
    main()
