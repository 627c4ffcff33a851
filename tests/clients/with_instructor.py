"""instructor: the modes that its OpenAI client knows."""

from __future__ import annotations

import instructor
import openai
import pytest
from pydantic import BaseModel


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


# Of this mode a model is told in words alone, and a small one needs to be held.
FENCED = r'```json\n\{"name": "[A-Z][a-z]{1,9}", "age": [1-9][0-9]?\}\n```'


@pytest.mark.parametrize(
    ("mode", "more"),
    [("TOOLS", {}), ("TOOLS_STRICT", {}), ("JSON_SCHEMA", {}), ("JSON", {}), ("MD_JSON", {"regex": FENCED})],
)
def test_its_modes(text_address, mode, more):
    plain = openai.OpenAI(base_url=text_address, api_key="none", max_retries=0)
    client = instructor.from_openai(plain, mode=getattr(instructor.Mode, mode))
    asked = [{"role": "user", "content": 'Ann is 30 years old. Who is it? As {"name": "Ann", "age": 30}.'}]
    said = client.chat.completions.create(
        model="any",
        response_model=Person,
        messages=asked,
        temperature=0,
        max_tokens=200,
        max_retries=1,
        extra_body=more,
    )
    assert isinstance(said, Person)


def test_partial_answers(text_address):
    plain = openai.OpenAI(base_url=text_address, api_key="none", max_retries=0)
    client = instructor.from_openai(plain, mode=instructor.Mode.JSON_SCHEMA)
    asked = [{"role": "user", "content": "Ann is 30 years old. Who is it?"}]
    pieces = list(
        client.chat.completions.create_partial(
            model="any", response_model=Person, messages=asked, temperature=0, max_tokens=200
        )
    )
    assert isinstance(pieces[-1].age, int)
