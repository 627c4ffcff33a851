"""/slots/N saves, restores and erases what the cache holds of an answer, as llama-server has it."""

from __future__ import annotations

import pytest
from running_server import running, running_sight
from test_serve_pictures import data_url, part, picture, text, user
from waiting import wait_for

from opsin.serve.keys import ApiKey

LONG = "one two three four five six seven eight nine ten " * 6
SAY = {"max_tokens": 4, "temperature": 0, "ignore_eos": True}
KEYS = (ApiKey("first-secret"), ApiKey("second-secret"))
FIRST, SECOND = ({"X-Api-Key": key.secret} for key in KEYS)


@pytest.fixture(scope="module")
def sight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slots")
    with running_sight(tmp_path_factory.mktemp("sight"), slot_path=folder) as made:
        yield made


def act(server, slot, action, name=None, headers=()):
    body = b"" if name is None else {"filename": name}
    return server.ask(f"/slots/{slot}?action={action}", body, method="POST", headers=headers)


def test_a_saved_conversation_with_a_picture_is_gone_on_from(sight):
    asked = {"messages": user(part(data_url(picture(1))), text(LONG)), "id_slot": 2, **SAY}
    first = sight.chat(**asked).json
    saved = act(sight, 2, "save", "a b-1.bin").json
    assert (saved["id_slot"], saved["filename"]) == (2, "a b-1.bin")
    assert saved["n_saved"] == first["usage"]["total_tokens"] - 1
    assert (sight.service.options.slot_path / "a b-1.bin").stat().st_size == saved["n_written"]
    assert saved["timings"]["save_ms"] > 0
    assert act(sight, 2, "erase").json == {"id_slot": 2, "n_erased": saved["n_saved"]}
    assert act(sight, 2, "erase").json["n_erased"] == 0
    restored = act(sight, 0, "restore", "a b-1.bin").json
    assert (restored["n_restored"], restored["n_read"]) == (saved["n_saved"], saved["n_written"])
    again = sight.chat(**asked).json
    assert again["choices"] == first["choices"]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == first["usage"]["prompt_tokens"] - 1


def test_no_more_is_saved_than_the_operator_s_limit_says(sight, tmp_path):
    with running(lambda: sight.service.model, slot_path=tmp_path, slot_bytes=1 << 20) as server:
        server.chat(messages=user(text("Hi")), id_slot=0, max_tokens=1)
        size = act(server, 0, "save", "a.bin").json["n_written"]
        (tmp_path / "other").write_bytes(bytes((1 << 20) - size - 1))
        assert act(server, 0, "save", "a.bin").status == 200  # in place of itself
        refused = act(server, 0, "save", "b.bin")
        assert refused.status == 400 and "bytes" in refused.json["error"]["message"]
        assert {one.name for one in tmp_path.iterdir()} == {"a.bin", "other"}


def test_answers_take_the_place_that_was_asked_for(sight):
    asked = {"prompt": "Hi", "n_predict": 1}
    assert [sight.ask("/completion", {**asked, "id_slot": slot}).json["id_slot"] for slot in (3, 1, -1, 99)] == [
        3,
        1,
        0,
        0,
    ]


def test_a_busy_place_is_waited_for(sight):
    def runs():
        return sight.ask("/slots").json[1]["is_processing"]

    connection = sight.connect()
    body = b'{"prompt": "Hi", "n_predict": 300, "id_slot": 1, "stream": true, "ignore_eos": true}'
    connection.request("POST", "/completion", body)
    reply = connection.getresponse()
    wait_for(runs)
    saved = act(sight, 1, "save", "busy.bin").json
    assert not runs()
    assert saved["n_saved"] > 300
    reply.read()
    connection.close()


REFUSED = {
    "a folder": ("save", "../a", 400), "a path": ("save", "/etc/x", 400), "hidden": ("save", ".a", 400),
    "nothing": ("save", "", 400), "a line": ("save", "a\n", 400), "no name": ("save", None, 400),
    "not saved": ("restore", "none.bin", 400), "no action": ("load", "a", 400),
}  # fmt: skip


@pytest.mark.parametrize("wrong", REFUSED)
def test_what_cannot_be_done_is_told(sight, wrong):
    action, name, status = REFUSED[wrong]
    before = sorted(sight.service.options.slot_path.iterdir())
    reply = act(sight, 0, action, name)
    assert reply.status == status
    assert str(sight.service.options.slot_path) not in reply.body.decode()
    assert sorted(sight.service.options.slot_path.iterdir()) == before


def test_a_failed_restore_empties_the_place(sight):
    sight.chat(messages=user(text("short")), id_slot=3, **SAY)
    (sight.service.options.slot_path / "wrong.bin").write_bytes(b"wrong")
    reply = act(sight, 3, "restore", "wrong.bin")
    assert reply.json["error"]["message"].startswith("Unable to restore slot: wrong.bin is damaged")
    assert act(sight, 3, "save", "empty.bin").json["n_saved"] == 0


def test_places_that_there_are_not_and_servers_that_save_none(sight):
    assert act(sight, 4, "erase").status == 400
    with running(lambda: sight.service.model) as plain:
        assert act(plain, 0, "erase").status == 501


def test_another_keys_answer_is_neither_saved_nor_erased(sight):
    with running(lambda: sight.service.model, keys=KEYS, slot_path=sight.service.options.slot_path) as locked:
        asked = {"messages": user(text(LONG)), "id_slot": 0, **SAY}
        locked.ask("/v1/chat/completions", asked, headers=FIRST)
        assert act(locked, 0, "save", "theirs.bin", SECOND).json["n_saved"] == 0
        assert act(locked, 0, "erase", headers=SECOND).json["n_erased"] == 0
        saved = act(locked, 0, "save", "mine.bin", FIRST).json["n_saved"]
        assert saved > 64
        assert act(locked, 0, "erase", headers=FIRST).json["n_erased"] == saved
        assert act(locked, 0, "restore", "mine.bin", SECOND).json["n_restored"] == saved
        counts = [
            locked.ask("/v1/chat/completions", asked, headers=key).json["usage"]["prompt_tokens_details"]
            for key in (SECOND, FIRST)
        ]
        assert [count["cached_tokens"] > 0 for count in counts] == [False, True]
