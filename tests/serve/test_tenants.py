"""Keys share no cache: no pages of text, no pictures, nothing on disk. Nor do salts of one key's requests."""

from __future__ import annotations

import pytest
from running_server import running, running_sight
from test_serve_pictures import data_url, part, picture, text, user
from tiny_hearing import recording, tiny_hearing
from waiting import until

import opsin
from opsin.api.media_folder import MediaFolder
from opsin.serve.keys import ApiKey

KEYS = (ApiKey("first-secret"), ApiKey("second-secret"))
LONG = "a long story of many words " * 12
SAY = {"max_tokens": 1, "temperature": 0}


@pytest.fixture(scope="module")
def sight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sight")
    with (
        running_sight(folder, loading={"media_cache": MediaFolder(folder / "kept")}) as made,
        running(lambda: made.service.model, keys=KEYS) as locked,
    ):
        locked.folder = folder
        yield locked


def cached(server, number, path="/v1/chat/completions", **body):
    reply = server.ask(path, {**SAY, **body}, headers={"Authorization": f"Bearer {KEYS[number].secret}"}).json
    return reply["usage"]["prompt_tokens_details"]["cached_tokens"]


def encoded(server):
    return server.service.model.engine._media.encoded


@pytest.mark.parametrize(("path", "body"), [
    ("/v1/chat/completions", {"messages": user(text(LONG))}),
    ("/v1/completions", {"prompt": LONG}),
])  # fmt: skip
def test_a_prompt_is_found_again_by_the_same_key_alone(sight, path, body):
    assert cached(sight, 0, path, **body) == 0
    assert cached(sight, 0, path, **body) > 64
    assert cached(sight, 1, path, **body) == 0
    assert cached(sight, 0, path, **body, cache_salt="x") == 0
    assert cached(sight, 0, path, **body, cache_salt="x") > 64
    assert cached(sight, 1, path, **body, cache_salt="x") == 0


def test_a_short_prompt_too(sight):
    body = {"messages": user(text("short"))}
    assert cached(sight, 0, **body) == 0
    assert cached(sight, 1, **body) == 0
    assert cached(sight, 0, **body) > 0


def test_a_picture_is_encoded_for_each_key_and_read_from_disk_by_its_own(sight):
    folder, url = sight.folder / "kept", data_url(picture(3))
    counts = []
    for number in (0, 0, 1, 1):
        before = encoded(sight)
        cached(sight, number, messages=user(part(url)))
        counts.append(encoded(sight) - before)
    assert counts == [1, 0, 1, 0]
    counts = []
    for salt in (None, "x", "x"):
        before, asked = encoded(sight), {"input": {"content": [part(url)]}, "cache_salt": salt}
        told = sight.ask("/v1/embeddings", asked, headers={"Authorization": f"Bearer {KEYS[0].secret}"})
        assert told.status == 200
        counts.append(encoded(sight) - before)
    assert counts == [0, 1, 0]
    assert until(lambda: len(list(folder.glob("*.embeddings"))) >= 2)
    again = {"threads": 2, "context": 512, "sequences": 4, "media_cache": MediaFolder(folder)}
    with (
        opsin.load(sight.folder / "model.gguf", **again) as model,
        running(lambda: model, keys=(KEYS[1], ApiKey("third-secret"))) as other,
    ):
        read, media = [], model.engine._media
        for secret in ("second-secret", "third-secret"):
            other.ask("/v1/chat/completions", {"messages": user(part(url)), **SAY},
                      headers={"X-Api-Key": secret})  # fmt: skip
            read.append((media.read, media.encoded))
    assert read == [(1, 0), (1, 1)]


def test_a_recording_is_encoded_for_each_key(tmp_path):
    with (
        opsin.load(tiny_hearing(tmp_path), threads=1, context=512) as model,
        running(lambda: model, keys=KEYS) as locked,
        locked.openai() as client,
    ):
        counts = []
        for key in (KEYS[0], KEYS[0], KEYS[1]):
            asked = client.with_options(api_key=key.secret).audio.transcriptions
            asked.create(model="any", file=("a.wav", recording()))
            counts.append(encoded(locked))
        assert counts[0] == counts[1] > 0 and counts[2] == 2 * counts[0]
