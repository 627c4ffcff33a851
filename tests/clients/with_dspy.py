"""dspy: predictions with typed fields."""

from __future__ import annotations

import dspy
import pytest


@pytest.fixture(scope="module")
def model(text_address):
    return dspy.LM("openai/any", api_base=text_address, api_key="none", temperature=0, max_tokens=300, cache=False)


def test_it_answers(model):
    assert model("Say hello.")[0]


def test_fields_by_its_json_adapter(text_address):
    # It sends schemas to servers that it knows to take them; of OpenAI's it knows by name only OpenAI's own models.
    model = dspy.LM("lm_studio/any", api_base=text_address, api_key="none", temperature=0, max_tokens=300, cache=False)
    with dspy.context(lm=model, adapter=dspy.JSONAdapter()):
        said = dspy.Predict("question: str -> answer: str, certain: bool")(question="Is the sky blue?")
    assert isinstance(said.answer, str)
    assert isinstance(said.certain, bool)
