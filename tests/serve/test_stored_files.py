"""Pictures that are sent once: /v1/files with both kinds of clients, uuids of parts, keys that share nothing."""

from __future__ import annotations

import anthropic
import openai
import pytest
from running_server import running
from test_serve_pictures import data_url, part, picture, text, user

from opsin.serve.errors import HttpError
from opsin.serve.keys import ApiKey
from opsin.serve.stored_files import StoredFiles

KEYS = (ApiKey("first-secret", "first"), ApiKey("second-secret", "second"))
ONE = picture(1)
SAY = {"max_tokens": 6, "temperature": 0}


@pytest.fixture(scope="module")
def locked(sight):
    with running(lambda: sight.service.model, keys=KEYS) as made:
        yield made


@pytest.fixture(scope="module")
def client(sight):
    with sight.openai() as made:
        yield made


@pytest.fixture(scope="module")
def said(sight):
    """What is answered about the picture when it is sent itself."""
    return sight.chat(messages=user(part(data_url(ONE)), text("what?")), **SAY).json["choices"][0]["message"]["content"]


def by_key(server, number):
    return openai.OpenAI(base_url=server.url + "/v1", api_key=KEYS[number].secret, max_retries=0)


def test_a_stored_picture_is_listed_read_and_forgotten(client):
    made = client.files.create(file=("a b.png", ONE, "image/png"), purpose="vision")
    assert (made.filename, made.bytes, made.purpose, made.status) == ("a b.png", len(ONE), "vision", "processed")
    other = client.files.create(file=("c.png", picture(2)), purpose="user_data")
    assert [file.id for file in client.files.list(limit=1)] == [other.id, made.id]
    assert [file.id for file in client.files.list(purpose="vision", order="asc")] == [made.id]
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).read() == ONE
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError, match="there is no file"):
        client.files.retrieve(made.id)
    client.files.delete(other.id)
    assert client.files.list().data == []


def test_answers_about_a_stored_picture_are_those_about_the_picture(sight, client, said):
    id = client.files.create(file=("a.png", ONE), purpose="vision").id
    named = user({"type": "file", "file": {"file_id": id}}, text("what?"))
    assert client.chat.completions.create(model="x", messages=named, **SAY).choices[0].message.content == said
    for kind in ("input_image", "input_file"):
        content = [{"type": kind, "file_id": id}, {"type": "input_text", "text": "what?"}]
        answer = client.responses.create(
            model="x", input=[{"role": "user", "content": content}], max_output_tokens=6, temperature=0
        )
        assert answer.output_text == said
    sent = user({"type": "file", "file": {"file_data": data_url(ONE), "filename": "a.png"}}, text("what?"))
    assert sight.chat(messages=sent, **SAY).json["choices"][0]["message"]["content"] == said


def test_anthropics_client_stores_and_names_pictures(sight, said):
    with anthropic.Anthropic(base_url=sight.url, api_key="none", max_retries=0) as client:
        made = client.beta.files.upload(file=("a.png", ONE, "image/png"))
        assert (made.filename, made.mime_type, made.size_bytes) == ("a.png", "image/png", len(ONE))
        assert made.created_at.year >= 2025
        assert [file.id for file in client.beta.files.list()][0] == made.id
        blocks = [{"type": "image", "source": {"type": "file", "file_id": made.id}}, text("what?")]
        message = client.beta.messages.create(
            model="x", max_tokens=6, messages=[{"role": "user", "content": blocks}], extra_body={"temperature": 0}
        )
        assert message.content[0].text == said
        assert client.beta.files.delete(made.id).type == "file_deleted"
        with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\].content\[0\].source.file_id"):
            client.beta.messages.create(model="x", max_tokens=6, messages=[{"role": "user", "content": blocks}])


def test_a_picture_with_a_uuid_need_not_be_sent_again(sight, said):
    named = {**part(data_url(ONE)), "uuid": "one"}
    unknown = sight.chat(messages=user({"type": "image_url", "uuid": "one"}), **SAY)
    assert unknown.status == 400
    assert unknown.json["error"]["param"] == "messages[0].content[0].uuid"
    places = [named, {"type": "image_url", "image_url": None, "uuid": "one"}, {**named, "image_url": {}}]
    for place in places:
        reply = sight.chat(messages=user(place, text("what?")), **SAY)
        assert reply.json["choices"][0]["message"]["content"] == said
    changed = {**part(data_url(picture(7, (90, 200)))), "uuid": "one"}
    tokens = [sight.chat(messages=user(p), **SAY).json["usage"]["prompt_tokens"] for p in (changed, places[1])]
    assert tokens[0] == tokens[1]


def test_keys_share_no_pictures(locked):
    with by_key(locked, 0) as first, by_key(locked, 1) as second:
        id = first.files.create(file=("a.png", ONE), purpose="vision").id
        assert second.files.list().data == []
        with pytest.raises(openai.NotFoundError):
            second.files.delete(id)
        for place in ({"type": "file", "file": {"file_id": id}}, {"type": "image_url", "uuid": "shared"}):
            sent = {**part(data_url(ONE)), "uuid": "shared"} if "uuid" in place else place
            first.chat.completions.create(model="x", messages=user(sent), **SAY)
            with pytest.raises(openai.BadRequestError, match="not stored with this key"):
                second.chat.completions.create(model="x", messages=user(place), **SAY)


FORM = (
    b'--xx\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nvision\r\n'
    b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + ONE + b"\r\n--xx--\r\n"
)
IN_FORM = {"Content-Type": "multipart/form-data; boundary=xx"}
WRONG = {
    "JSON": (b"{}", {"Content-Type": "application/json"}, 415),
    "no boundary": (FORM, {"Content-Type": "multipart/form-data"}, 415),
    "another boundary": (FORM, {"Content-Type": "multipart/form-data; boundary=yy"}, 400),
    "cut within a part": (FORM[:-40], IN_FORM, 400),
    "cut within a head": (FORM[:30], IN_FORM, 400),
    "nothing": (b"", IN_FORM, 400),
    "no file": (b'--xx\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc\r\n--xx--', IN_FORM, 400),
    "no name": (b"--xx\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--xx--", IN_FORM, 400),
    "a text as a file": (FORM.replace(ONE, b"words"), IN_FORM, 400),
    "many parts": (FORM[:69] * 100 + b"--xx--", IN_FORM, 400),
    "a time that nobody lives": (
        FORM.replace(b'"purpose"', b'"expires_after[seconds]"').replace(b"vision", b"9" * 40), IN_FORM, 400,
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_forms_that_are_none_are_refused(sight, wrong):
    body, headers, status = WRONG[wrong]
    before = sight.ask("/v1/files").json["data"]
    reply = sight.ask("/v1/files", body, headers=headers)
    assert reply.status == status
    assert reply.json["error"]["message"]
    assert sight.ask("/v1/files").json["data"] == before


def test_a_form_as_curl_writes_it(sight):
    made = sight.ask("/v1/files", FORM, headers=IN_FORM).json
    assert (made["filename"], made["purpose"], made["bytes"]) == ("a.png", "vision", len(ONE))


def test_what_was_used_long_ago_goes_first_and_times_end():
    now = [1000.0]
    files = StoredFiles(3 * 1512, lambda: now[0]).of("")
    ids = [files.add(bytes(1000), name=f"{n}", type="", purpose="").id for n in range(3)]
    assert files.find(ids[0])
    soon = files.add(bytes(1000), name="soon", type="", purpose="", seconds=10).id
    assert [file.id for file in files.all()] == [ids[0], ids[2], soon]
    now[0] = 1010.0
    assert files.find(soon) is None
    assert [file.id for file in files.all()] == [ids[0], ids[2]]
    with pytest.raises(HttpError, match="room for all"):
        files.add(bytes(5000), name="", type="", purpose="")
