"""The application for any ASGI host: made of flat settings, there when it has its model, gone when its host goes."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn
from fleet_requests import Client, say
from starlette.applications import Starlette
from waiting import hold, until

from opsin.errors import DeviceError, FileError, RequestError
from opsin.serve.factory import ServedModel, ServedModels, app, from_environment
from opsin.serve.service import Service


@contextmanager
def hosted(made: Starlette) -> Iterator[tuple[int, uvicorn.Server]]:
    """uvicorn as anybody starts it."""
    server = uvicorn.Server(uvicorn.Config(made, port=0, lifespan="on", log_level="critical"))

    def run() -> None:
        with suppress(SystemExit):  # how it says that the application did not begin
            server.run()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert until(lambda: server.started or not thread.is_alive())
    try:
        yield server.servers[0].sockets[0].getsockname()[1] if server.started else 0, server
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def settings(file: Path, **more: object) -> Mapping[str, object]:
    return {"model": str(file), "threads": "1", "context": 256, "sequences": 2, **more}


def test_it_is_there_when_its_model_is_and_answers(
    quantised_file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in settings(quantised_file, name="small", api_key="one,two").items():
        monkeypatch.setenv(f"OPSIN_SERVE_{name.upper()}", str(value))
    monkeypatch.setenv("OPSIN_SERVE_MMPROJ", "")
    with hosted(from_environment()) as (port, _):
        assert Client(port).ask(say("Hi"))[0] == 401
        for host in ("models.example.org", f"127.0.0.1:{port}"):  # with a key a name is nobody's secret
            status, _, body = Client(port).ask(say("Hi"), Authorization="Bearer two", Host=host)
            assert status == 200 and json.loads(body)["model"] == "small"


def test_behind_a_proxy_its_names_are_those_that_no_stranger_can_own(quantised_file: Path) -> None:
    with hosted(app(ServedModel.read(settings(quantised_file, allow_host="models.example.org")))) as (port, _):
        for host in ("10.0.0.9:80", "opsin.internal", "models.example.org"):
            assert Client(port).ask(say("Hi"), Host=host)[0] == 200, host
        assert Client(port).ask(say("Hi"), Host="evil.com")[0] == 403
        for host, status in (
            ("10.0.0.9:80", 200),
            ("opsin.internal", 200),
            ("models.example.org", 200),
            ("evil.com", 403),
        ):
            assert Client(port).ask(say("Hi"), Host=host)[0] == status, host


def test_a_model_that_cannot_be_read_ends_the_host(tmp_path: Path) -> None:
    served = ServedModel.read({"model": tmp_path / "none.gguf"})
    with hosted(app(served)) as (port, server):
        assert port == 0 and not server.started
    pytest.raises(FileError, served.load)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"modle": "x"}, "there is no setting 'modle'"), ({"threads": "two"}, "the setting threads is 'two'"),
        ({"threads": "-1"}, "the setting threads is '-1'"), ({"max_requests": 0}, "limits are positive"),
        ({"api_key": "a b"}, "API key 1 of 1"), ({"prefix": "llm"}, "the prefix 'llm'"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_taken_are_named(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        ServedModel.read(wrong)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"models": {}}, "names none"), ({"models": "a,b"}, "names none"), ({"models": {"a": "x"}}, "of the model 'a'"),
        ({"models": {"a": {"context": 4}}}, "of the model 'a'"), ({"models_max": "x"}, "models_max is 'x'"),
        ({"models": {"a": {"model": "x", "port": 1}}}, "of the model 'a'"), ({"model": "x"}, "beside several"),
    ],
)  # fmt: skip
def test_settings_of_several_models_that_cannot_be_taken_are_named(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        ServedModels.read({"models": {"a": {"model": "x"}}, **wrong})
    assert said in str(caught.value)


def test_several_models_have_their_own_settings_and_the_usual_ones(quantised_file: Path) -> None:
    models = {"a": {"model": quantised_file}, "b": {"model": quantised_file, "context": 128}}
    read = ServedModels.read({"models": models, "threads": 1, "context": 256, "api_key": "one", "models_max": 1})
    served = pickle.loads(pickle.dumps(read))
    assert (served.names, served.most, len(served.options.keys)) == ({"a": "a", "b": "b"}, 1, 1)
    alias = replace(served.sources[0], options=replace(served.options, name="c, d"))
    assert replace(served, sources=(alias,)).names == {"a": "a", "c": "a", "d": "a"}
    with hosted(app(served)) as (port, _):
        for name, context in (("a", 256), ("b", 128)):
            status, _, body = Client(port).ask(path=f"/props?model={name}", Authorization="Bearer one")
            assert (status, json.loads(body)["default_generation_settings"]["n_ctx"]) == (200, context)


def test_what_is_served_can_be_sent_to_another_process(quantised_file: Path) -> None:
    served = pickle.loads(pickle.dumps(ServedModel.read(settings(quantised_file, max_body=3, remote_media=0))))
    assert served.options.body_bytes == 3 << 20 and not served.options.media.remote
    with served.load() as model:
        assert model.engine.is_alive


def test_check_tells_an_engine_that_died_and_one_that_stands_still(text_model, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(ServedModel.read({}).options, lambda: text_model)
    service.check()
    service._model = text_model
    service.check(0.0)  # idle: it may stand still
    held = hold(text_model.runner, monkeypatch)
    answer = text_model.chat("Hi", max_tokens=400, ignore_eos=True)
    assert until(lambda: service.figures().running == 1)
    figures = service.figures()
    monkeypatch.setattr(service, "figures", lambda: figures)
    service.check(60.0)
    service.check(60.0)
    with pytest.raises(DeviceError, match="has done none"):
        service.check(0.0)
    answer.cancel()
    held.set()
    monkeypatch.setattr(Service, "engine_lives", False)
    with pytest.raises(DeviceError, match="the engine has ended"):
        service.check()
    service.shut()
