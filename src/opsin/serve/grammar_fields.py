"""Fields that hold an answer to a form: a JSON schema, a grammar, a choice."""

from __future__ import annotations

from typing import Annotated, Any

from opsin.serve.fields import unbuilt
from opsin.serve.sampling_fields import SamplingFields


class GrammarFields(SamplingFields, kw_only=True):
    """What form an answer must have. A struct of msgspec extends one other: each page of fields the page before."""

    response_format: Annotated[Any, unbuilt({}, {"type": "text"})] = None
    grammar: Annotated[Any, unbuilt("")] = None
    json_schema: Annotated[Any, unbuilt({})] = None
    format: Annotated[Any, unbuilt("")] = None
    structured_outputs: Annotated[Any, unbuilt({})] = None
    structural_tag: Annotated[Any, unbuilt()] = None
    guided_json: Annotated[Any, unbuilt()] = None
    guided_regex: Annotated[Any, unbuilt()] = None
    guided_choice: Annotated[Any, unbuilt()] = None
    guided_grammar: Annotated[Any, unbuilt()] = None
