"""llm, the command: schemas, tools, attachments, as its user configures a model of OpenAI's kind."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR4nGP8z4AdMOEQH6QSAAnBAQ9Gk7m9AAAAAElFTkSuQmCC"
)


@pytest.fixture(scope="module")
def llm(tmp_path_factory, text_address, sight_address):
    home = tmp_path_factory.mktemp("llm")
    kinds = {"supports_schema": True, "supports_tools": True, "can_stream": True}
    models = [
        {"model_id": "text", "model_name": "any", "api_base": text_address, "api_key_name": "none", **kinds},
        {"model_id": "sight", "model_name": "any", "api_base": sight_address, "api_key_name": "none", "vision": True},
    ]
    (home / "extra-openai-models.yaml").write_text(json.dumps(models))
    (home / "keys.json").write_text('{"none": "none"}')

    def run(*words):
        command = [str(Path(sys.executable).with_name("llm")), *words]
        environment = os.environ | {"LLM_USER_PATH": str(home)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_it_answers(llm):
    done = llm("-m", "text", "Say hello.", "-o", "max_tokens", "20")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_schemas(llm):
    done = llm("-m", "text", "Ann is 30 years old.", "--schema", "name, age int", "-o", "max_tokens", "200")
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout)["age"], int)


def test_tools(llm):
    done = llm("-m", "text", "Which version?", "--tool", "llm_version", "-o", "max_tokens", "60")
    assert done.returncode == 0, done.stderr


def test_attachments(llm, tmp_path):
    path = tmp_path / "pixel.png"
    path.write_bytes(PIXEL)
    done = llm("-m", "sight", "How many circles are there?", "-a", str(path), "-o", "max_tokens", "20")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
