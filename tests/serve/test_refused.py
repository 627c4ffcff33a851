"""Fields of other servers that we cannot honour are refused by name on every route that reads them."""

from __future__ import annotations

import pytest
from test_chat import MESSAGES

from opsin.serve.chat import ChatFields
from opsin.serve.completions import CompletionFields
from opsin.serve.conversation import ChatMessage, Conversation, ImageUrl, Part
from opsin.serve.fields import unbuilt_fields
from opsin.serve.raw_prompts import Prompts
from opsin.serve.tokens import DetokenizeRequest, TokenizeRequest

CHAT, COUNT, TEMPLATE = "/v1/chat/completions", "/v1/chat/completions/input_tokens", "/apply-template"
OPENAI, NATIVE = "/v1/completions", "/completion"
ROUTES = {
    CHAT: ({"messages": MESSAGES, "max_tokens": 1}, (Conversation, ChatFields)),
    COUNT: ({"messages": MESSAGES}, (Conversation,)),
    TEMPLATE: ({"messages": MESSAGES}, (Conversation,)),
    OPENAI: ({"prompt": "hi", "max_tokens": 1}, (Prompts, CompletionFields)),
    NATIVE: ({"prompt": "hi", "n_predict": 1}, (Prompts, CompletionFields)),
    "/tokenize": ({"content": "hi"}, (TokenizeRequest,)),
    "/detokenize": ({"tokens": [5]}, (DetokenizeRequest,)),
}
PICTURE = "iVBORw0KGgo="
MEDIA = (
    "image", "images", "image_data", "image_url", "image_urls", "input_image", "imageUrl", "Images", "IMAGE_DATA",
    "base64_images", "image-url", "img", "pictures", "photo", "audio", "audio_url", "input_audio", "video", "videos",
    "video_url", "attachments", "experimental_attachments", "file", "files", "file_ids", "documents", "media",
    "multimodal_data", "multi_modal_data",
)  # fmt: skip


def refused(server, path, body, name):
    reply = server.ask(path, body)
    assert reply.status == 400, (path, name, reply.body)
    error = reply.json["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", name), (path, error)
    assert name in error["message"]
    return error["message"]


@pytest.mark.parametrize("path", ROUTES)
def test_each_field_is_refused_unless_it_asks_for_nothing(server, path):
    body, kinds = ROUTES[path]
    assert server.ask(path, body).status == 200
    for kind in kinds:
        for name, harmless in unbuilt_fields(kind).items():
            if name not in body:
                refused(server, path, {**body, name: "xyzzy"}, name)
            for value in (None, *harmless):
                assert name in body or server.ask(path, {**body, name: value}).status == 200, (path, name, value)


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ({"use_beam_search": True}, CHAT),
        ({"length_penalty": 0.5}, CHAT), ({"truncate_prompt_tokens": 1}, CHAT), ({"truncate_prompt_tokens": -1}, COUNT),
        ({"mm_processor_kwargs": {"min_pixels": 1}}, CHAT),
        ({"top_a": 0.2}, NATIVE),
        ({"skip_special_tokens": False}, CHAT), ({"add_special_tokens": True}, CHAT),
        ({"add_special_tokens": False}, NATIVE),
        ({"chat_template": "x"}, COUNT),
        ({"guided_whitespace_pattern": " "}, CHAT),
    ],
)  # fmt: skip
def test_what_reports_of_others_sent_is_refused(server, field, path):
    refused(server, path, {**ROUTES[path][0], **field}, *field)


def test_a_text_or_an_option_under_the_name_of_another_server_says_where_it_belongs(server):
    body = ROUTES[CHAT][0]
    assert 'the role "system"' in refused(server, CHAT, {**body, "system": "Be brief."}, "system")
    assert "send what is in it" in refused(server, CHAT, {**body, "options": {"num_predict": 5}}, "options")
    refused(server, CHAT, {**body, "prompt": "And this?"}, "prompt")
    refused(server, NATIVE, {**ROUTES[NATIVE][0], "messages": MESSAGES}, "messages")
    options = {"stream": True, "stream_options": {"continuous_usage_stats": True}}
    refused(server, CHAT, {**body, **options}, "stream_options.continuous_usage_stats")


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("name", MEDIA)
def test_media_where_others_take_it_is_never_left_aside(server, path, name):
    body, _ = ROUTES[path]
    for value in (PICTURE, [PICTURE], {"url": PICTURE}, [{"data": PICTURE, "id": 1}]):
        assert "prompt_string" in refused(server, path, {**body, name: value}, name) or path not in (OPENAI, NATIVE)
    for empty in (None, [], "", {}):
        assert server.ask(path, {**body, name: empty}).status == 200


@pytest.mark.parametrize("path", [CHAT, COUNT, TEMPLATE])
def test_media_beside_a_content_is_never_left_aside(server, path):
    for name in MEDIA:
        message = {"role": "user", "content": "How many?", name: [PICTURE]}
        refused(server, path, {"messages": [*MESSAGES, message]}, f"messages[{len(MESSAGES)}].{name}")
        message = {"role": "user", "content": [{"type": "text", "text": "How many?", name: PICTURE}]}
        refused(server, path, {"messages": [message]}, f"messages[0].content[0].{name}")
        raw = {"prompt": {"prompt_string": "hi", name: [PICTURE]}}
        if name != "multimodal_data":
            refused(server, NATIVE, raw, f"prompt.{name}")
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}, "text": "How many?"}
    message = {"role": "user", "content": [picture]}
    refused(server, path, {"messages": [message]}, "messages[0].content[0].text")


def test_a_picture_that_is_to_be_prepared_otherwise_is_refused(server):
    assert unbuilt_fields(Part) == unbuilt_fields(ImageUrl) != {}
    for name in unbuilt_fields(Part):
        for where in ({"url": PICTURE, name: 5}, {"url": PICTURE}):
            asked = {"type": "image_url", "image_url": where, **({} if name in where else {name: 5})}
            body = {"messages": [{"role": "user", "content": [asked]}]}
            place = "messages[0].content[0]" + (".image_url" if name in where else "")
            refused(server, CHAT, body, f"{place}.{name}")


def test_names_that_only_look_alike_are_left_aside(server):
    names = ("metadata", "profile", "intermediate", "user", "imagine", "filed", "x" * 100 + "image", "")
    assert server.ask(CHAT, {**ROUTES[CHAT][0], **dict.fromkeys(names, "x")}).status == 200


def test_a_packed_body_says_so(server):
    reply = server.ask(CHAT, b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    assert reply.status == 415 and "gzip" in reply.json["error"]["message"]


def test_a_message_that_asks_to_be_gone_on_with_is_refused(server):
    for name, harmless in unbuilt_fields(ChatMessage).items():
        message = {"role": "assistant", "content": "Once", name: True}
        refused(server, CHAT, {"messages": [*MESSAGES, message]}, f"messages[{len(MESSAGES)}].{name}")
        server.chat(messages=[*MESSAGES, {**message, name: harmless[0]}], max_tokens=1)
