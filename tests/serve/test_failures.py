"""What strangers hear of a failure, and what the log says: no path in replies, no word of a prompt in the log."""

from __future__ import annotations

import json
import logging
import os
import shutil

import pytest
from running_server import running
from test_serve_pictures import data_url, part, picture, user
from tiny_sight import tiny_pair, tiny_tower

import opsin
from opsin import errors
from opsin.api import Model
from opsin.errors import BusyError, DeviceError, FieldError, FileError, OpsinError
from opsin.serve.errors import HttpError, body_of, log
from opsin.serve.traces import trace

SECRET = "xyzzy-of-a-prompt"
SAID = [{"role": "user", "content": SECRET}]
BODIES = {
    "/v1/chat/completions": {"messages": SAID, "max_tokens": 2},
    "/v1/chat/completions/input_tokens": {"messages": SAID},
    "/apply-template": {"messages": SAID},
    "/v1/completions": {"prompt": SECRET, "max_tokens": 2},
    "/completion": {"prompt": SECRET, "n_predict": 2},
    "/tokenize": {"content": SECRET},
    "/detokenize": {"tokens": [1, 2]},
}


def kinds(kind: type[OpsinError] = OpsinError) -> list[type[OpsinError]]:
    return [kind, *(one for part in kind.__subclasses__() for one in kinds(part))]


def made(kind: type[OpsinError], message: str) -> OpsinError:
    if kind is HttpError:
        return HttpError(403, message)
    if kind is FieldError:
        return FieldError("field", message)
    if kind is errors.ContextError:
        return errors.ContextError(message, prompt_tokens=2, context_tokens=1)
    return kind(message, hint=message)


@pytest.mark.parametrize("kind", kinds())
def test_strangers_hear_the_kind_of_our_failures_and_the_text_of_theirs(kind, complaints):
    error = made(kind, "/home/operator/model.gguf is damaged")
    log(error)
    told = json.dumps(body_of(error))
    ours = error.stranger is not None
    assert ours == ("/home/operator" not in told) == ("/home/operator" in "".join(complaints))
    assert ours or error.status < 500 or kind in (OpsinError, BusyError), "who raises a 5xx says what strangers hear"
    assert body_of(error)["error"]["code"] == error.status


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "operators-own-folder"
    made.mkdir()
    tiny_pair(made)
    return made


def ask_with_a_picture(server, number=0):
    return server.chat(messages=user(part(data_url(picture(number)))), max_tokens=2)


def replaced(path, **named):
    """Another file, renamed over this one."""
    other = path.with_name("other.gguf")
    tiny_tower(other, **named).replace(path)


def serving(folder, **named):
    return opsin.load(folder / "model.gguf", threads=1, context=256, sequences=2, **named)


@pytest.mark.parametrize("change", ["renamed over", "removed", "junk renamed over"])
def test_what_happens_to_the_file_for_pictures_after_loading_changes_no_answer(folder, change, complaints):
    with serving(folder) as model:
        expected = model.encode(picture(0)).values
    with serving(folder) as model, running(lambda: model) as server:
        tower = folder / "mmproj.gguf"
        if change == "renamed over":
            replaced(tower, kind="idefics3")
        elif change == "removed":
            tower.unlink()
        else:
            (folder / "junk").write_bytes(b"GGUF" + bytes(100))
            (folder / "junk").replace(tower)
        assert ask_with_a_picture(server).status == 200
        assert (model.encode(picture(0)).values == expected).all()
    assert not complaints


def test_a_file_that_was_cut_is_a_failure_of_the_server_without_a_path(folder, complaints):
    tower = folder / "mmproj.gguf"
    with serving(folder) as model, running(lambda: model) as server:
        whole = tower.read_bytes()
        os.truncate(tower, 3000)
        for _ in range(2):
            reply = ask_with_a_picture(server)
            assert (reply.status, reply.json["error"]["type"]) == (500, "server_error")
            assert str(folder).encode() not in reply.body and b"mmproj" not in reply.body
        stream = server.chat(messages=user(part(data_url(picture(1)))), stream=True)
        assert stream.status == 500 or stream.events[-1]["error"]["code"] == 500
        assert str(folder).encode() not in stream.body
        assert str(tower) in "".join(complaints)
        assert server.chat(messages=SAID, max_tokens=2).status == 200  # text goes on
        tower.write_bytes(whole)
        assert ask_with_a_picture(server).status == 200


def test_no_reply_names_the_models_folder(folder, tmp_path, complaints):
    """A text model with a tower of another beside it: whatever is asked of it."""
    tiny_tower(folder / "mmproj.gguf", width=96)
    with serving(folder) as model, running(lambda: model) as server:
        assert model.notes and str(folder) in model.notes[0]
        replies = [ask_with_a_picture(server)]
        assert replies[0].status == 400 and b"96" in replies[0].body  # the reason, without the path
        replies += [server.ask(path) for path in ("/v1/models", "/props", "/slots", "/metrics", "/health", "/nothing")]
        replies += [server.ask(path, {}) for path in BODIES]
        replies += [server.ask(path, body) for path, body in BODIES.items()]
        replies.append(server.ask("/completion", {"prompt": {"prompt_string": "", "multimodal_data": ["AAAA"]}}))
        shutil.rmtree(folder)
        replies.append(ask_with_a_picture(server))
    for reply in replies:
        assert str(folder).encode() not in reply.body and b"operators-own-folder" not in reply.body


@pytest.mark.parametrize("path", BODIES)
def test_an_error_that_nobody_expected_tells_its_kind_to_all_and_its_frames_to_the_log(
    server, monkeypatch, path, complaints
):
    def fail(*_: object, **__: object) -> None:
        raise KeyError(SECRET)

    tokenizer = type(server.service.model.tokenizer)
    for owner, name in ((Model, "question"), (Model, "count"), (Model, "write"), (Model, "raw"),
                        (tokenizer, "encode"), (tokenizer, "decode")):  # fmt: skip
        monkeypatch.setattr(owner, name, fail)
    reply = server.ask(path, BODIES[path])
    assert reply.status == 500
    assert reply.json["error"]["message"].startswith("internal error: KeyError")
    told = "".join(complaints)
    assert "test_failures.py" in told and "KeyError" in told  # where it came from
    assert SECRET not in told and SECRET.encode() not in reply.body
    monkeypatch.setenv("OPSIN_DEBUG", "1")
    server.ask(path, BODIES[path])
    assert SECRET in "".join(complaints)


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_of_the_engine_tells_no_word_of_a_prompt(text_model, monkeypatch, stream, complaints):
    def fail(plan: object) -> None:
        raise ValueError(f"{SECRET}: {plan}")

    with running(lambda: text_model) as server:
        monkeypatch.setattr(text_model.runner, "step", fail)
        reply = server.chat(messages=SAID, max_tokens=2, stream=stream)
        monkeypatch.undo()
        assert server.chat(messages=SAID, max_tokens=2).status == 200
    assert reply.status == 500 or reply.events[-1]["error"]["code"] == 500
    assert b"the machine failed" in reply.body and SECRET.encode() not in reply.body


def test_the_log_has_the_causes_but_only_our_own_words():
    inner = BaseExceptionGroup("a " + SECRET, [KeyError(SECRET)])
    try:
        try:
            raise inner
        except BaseExceptionGroup as cause:
            raise DeviceError("the engine failed") from cause
    except DeviceError as error:
        told = trace(error)
        error.__cause__.exceptions[0].__cause__ = error  # a ring
        assert trace(error)
    assert "DeviceError: the engine failed" in told and "KeyError" in told and SECRET not in told
    assert SECRET not in trace(errors.RequestError(SECRET))
    assert "/a/model.gguf" in trace(FileError("/a/model.gguf is gone"))


@pytest.mark.parametrize("name", ["uvicorn.error", "asyncio", "concurrent.futures"])
def test_logs_of_others_tell_no_more(server, name):
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        logger.error("Exception in ASGI application", exc_info=KeyError(SECRET))
    finally:
        logger.removeHandler(handler)
    told = logging.Formatter().format(records[0])
    assert "KeyError" in told and SECRET not in told
