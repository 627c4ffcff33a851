"""What is told beside texts where a request asks for it: in the shapes of llama-server, OpenAI and vLLM."""

from __future__ import annotations

import json

import pytest
from test_chat import LIVELY, MESSAGES

ALWAYS = {**LIVELY, "ignore_eos": True, "max_tokens": 6}
PROMPT = "the rain in Spain"
LONG = [{"role": "user", "content": "the rain in Spain " * 20}]


def events(server, path, body):
    reply = server.ask(path, {**body, "stream": True})
    assert reply.status == 200, reply.body
    lines = [line for line in reply.body.decode().split("\n\n") if line and line != "data: [DONE]"]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


ROUTES = {
    "/v1/chat/completions": {"messages": LONG},
    "/v1/completions": {"prompt": LONG[0]["content"]},
    "/completion": {"prompt": LONG[0]["content"]},
}


@pytest.mark.parametrize("path", ROUTES)
def test_progress_of_a_prompt_is_told_before_its_answer(server, path):
    told = events(server, path, {**ROUTES[path], **ALWAYS, "return_progress": True, "seed": len(path)})
    progress = [event["prompt_progress"] for event in told if "prompt_progress" in event]
    assert len(progress) >= 2
    assert progress[0]["processed"] == progress[0]["cache"] < progress[0]["total"] == progress[-1]["processed"]
    assert [one["processed"] for one in progress] == sorted(one["processed"] for one in progress)
    assert [one["time_ms"] for one in progress] == sorted(one["time_ms"] for one in progress)
    places = [number for number, event in enumerate(told) if "prompt_progress" in event]
    assert places[-1] - places[0] == len(places) - 1
    assert not any("prompt_progress" in event for event in events(server, path, {**ROUTES[path], **ALWAYS}))


@pytest.mark.parametrize("path", ROUTES)
def test_timings_are_told_with_each_piece(server, path):
    body = {**ROUTES[path], **ALWAYS}
    told = events(server, path, {**body, "timings_per_token": True, "return_progress": True})
    counts = [event["timings"]["predicted_n"] for event in told if "timings" in event]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == ALWAYS["max_tokens"]
    assert len(counts) > 4
    assert len([event for event in events(server, path, body) if "timings" in event]) == 1
    read = [event["timings"]["prompt_n"] for event in told if "prompt_progress" in event]
    assert read == [
        e["prompt_progress"]["processed"] - e["prompt_progress"]["cache"] for e in told if "prompt_progress" in e
    ]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_llama_servers_own_object_stands_beside_openais(server, path):
    body = {**ROUTES[path], **ALWAYS}
    whole = server.ask(path, {**body, "verbose": True}).json["__verbose"]
    assert whole["generation_settings"]["seed"] == ALWAYS["seed"]
    assert whole["prompt"].count("the rain in Spain") == 20
    assert ("<|im_start|>" in whole["prompt"]) == ("chat" in path)
    last = [event for event in events(server, path, {**body, "verbose": True}) if "__verbose" in event][-1]
    assert last["__verbose"]["stop"] is True
    assert "__verbose" not in server.ask(path, body).json


def test_ids_are_told_in_pieces_and_in_whole_answers_that_ask_for_them(server, text_model):
    body = {"prompt": PROMPT, **ALWAYS}
    told = events(server, "/completion", body)
    ids = [id for event in told for id in event["tokens"]]
    whole = server.ask("/completion", {**body, "return_tokens": True}).json
    assert ids == whole["tokens"] and len(ids) == ALWAYS["max_tokens"]
    assert told[-1]["tokens"] == server.ask("/completion", body).json["tokens"] == []
    choice = server.ask("/v1/completions", {**body, "return_token_ids": True}).json["choices"][0]
    assert (choice["token_ids"], choice["prompt_token_ids"]) == (ids, text_model.tokenize(PROMPT, special=True))
    told = events(server, "/v1/completions", {**body, "return_token_ids": True})
    assert [id for event in told for id in event["choices"][0]["token_ids"]] == ids
    chat = server.chat(messages=MESSAGES, **ALWAYS, return_token_ids=True).json
    assert len(chat["choices"][0]["token_ids"]) == 6
    assert len(chat["prompt_token_ids"]) == chat["usage"]["prompt_tokens"]


def test_only_the_fields_that_were_asked_for_are_told(server):
    fields = ["content", "generation_settings/n_predict", "nobody/knows", "content/x"]
    whole = server.ask("/completion", {"prompt": PROMPT, **ALWAYS, "response_fields": fields}).json
    assert whole.keys() == {"content", "generation_settings/n_predict"}
    assert whole["generation_settings/n_predict"] == 6
    *pieces, last = events(server, "/completion", {"prompt": PROMPT, **ALWAYS, "response_fields": ["stop_type"]})
    assert last == {"stop_type": "limit"} and all("content" in piece for piece in pieces)


def test_rows_in_the_cache_and_the_end_of_the_context_are_told(server, text_model):
    whole = server.ask("/completion", {"prompt": PROMPT, **ALWAYS}).json
    assert whole["tokens_cached"] == whole["tokens_evaluated"] + 6 - 1
    assert whole["truncated"] is False
    body = {"prompt": [5, 6, 7] * 160, "temperature": 0, "ignore_eos": True}
    full = server.ask("/completion", body).json
    assert full["truncated"] is True and full["stop_type"] == "limit"
    assert full["tokens_predicted"] == text_model.context - 480


def test_a_prompt_of_nothing_has_an_empty_answer(server):
    whole = server.ask("/completion", {"prompt": "", **ALWAYS}).json
    assert (whole["content"], whole["stop_type"], whole["tokens_evaluated"]) == ("", "none", 0)
    both = server.ask("/v1/completions", {"prompt": ["", "the"], **ALWAYS}).json["choices"]
    assert both[0]["text"] == "" != both[1]["text"]


def test_log_probabilities_of_texts_have_openais_shape_beside_llama_servers(client):
    options = {"model": "x", "prompt": PROMPT, "max_tokens": 6, "logprobs": 2, "temperature": 0}
    choice = client.completions.create(**options, extra_body={"ignore_eos": True}).choices[0]
    told, content = choice.logprobs, choice.logprobs.model_extra["content"]
    assert told.tokens == [entry["token"] for entry in content] and len(told.tokens) == 6
    assert told.token_logprobs == [entry["logprob"] for entry in content]
    for token, p, rivals in zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True):
        assert rivals[token] == p == max(rivals.values())  # greedy
    for token, offset in zip(told.tokens, told.text_offset, strict=True):
        assert choice.text[offset:].startswith(token) or "�" in choice.text[offset:] or not token.isascii()
    streamed = [
        c.choices[0] for c in client.completions.create(**options, stream=True, extra_body={"ignore_eos": True})
    ]
    assert [t for c in streamed if c.logprobs for t in c.logprobs.tokens] == told.tokens
    assert [o for c in streamed if c.logprobs for o in c.logprobs.text_offset] == told.text_offset
    ids = client.completions.create(**options, extra_body={"ignore_eos": True, "return_tokens_as_token_ids": True})
    assert ids.choices[0].logprobs.tokens == [f"token_id:{entry['id']}" for entry in content]


def test_a_prompt_is_told_before_its_answer_with_how_likely_it_was(client, text_model):
    """As harnesses read multiple choice: the prompt's ids are `[ctxlen:-1]` of all lists, and one id is generated."""
    context, asked = text_model.tokenize("the rain"), text_model.tokenize("the rain in Spain")
    options = {"model": "x", "max_tokens": 1, "logprobs": 1, "temperature": 0, "echo": True}
    for prompt in (asked, "the rain in Spain"):
        choice = client.completions.create(**options, prompt=prompt).choices[0]
        assert choice.text.startswith("the rain in Spain")
        told = choice.logprobs
        assert len(told.tokens) - len(asked) in (0, 1)  # the answer may end at once
        assert told.token_logprobs[0] is told.top_logprobs[0] is None
        truth = text_model.prompt_logprobs(asked, 1)
        assert told.token_logprobs[1 : len(asked)] == pytest.approx([one.chosen[1] for one in truth])
        assert [max(r.values()) for r in told.top_logprobs[1 : len(asked)]] == pytest.approx(
            [one.likeliest[0][1] for one in truth]
        )
        assert told.text_offset[: len(asked)] == [
            len(text_model.detokenize(asked[:count])) for count in range(len(asked))
        ]
    assert len(context) < len(asked)
    zero = client.completions.create(**{**options, "max_tokens": 0}, prompt=asked).choices[0]
    assert (zero.text, len(zero.logprobs.tokens)) == ("the rain in Spain", len(asked))
    plain = client.completions.create(model="x", max_tokens=2, echo=True, prompt="the").choices[0]
    assert plain.text.startswith("the") and plain.logprobs is None
    options |= {"max_tokens": 6, "prompt": asked, "extra_body": {"ignore_eos": True}}
    chunks = [c.choices[0] for c in client.completions.create(**options, stream=True)]
    assert chunks[0].text == "the rain in Spain" and len(chunks[0].logprobs.tokens) == len(asked)
    whole = client.completions.create(**options).choices[0].logprobs.text_offset
    assert [at for chunk in chunks if chunk.logprobs for at in chunk.logprobs.text_offset] == whole
    assert whole[len(asked)] == len("the rain in Spain")


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_that_show_nothing_move_no_offset_and_are_told_once(server, text_model, stream):
    silent = next(id for id in text_model.tokenizer.special_ids if not text_model.tokenizer.piece(id))
    body = {"prompt": [silent, 70, 71], "echo": True, "logprobs": 1, "max_tokens": 3, "logit_bias": {str(silent): 100}}
    body |= {"ignore_eos": True, "min_tokens": 3, "timings_per_token": True, "return_token_ids": True}
    told = events(server, "/v1/completions", body) if stream else [server.ask("/v1/completions", body).json]
    choices = [choice for one in told for choice in one["choices"]]
    text = "".join(choice["text"] for choice in choices)
    offsets = [at for choice in choices if choice["logprobs"] for at in choice["logprobs"]["text_offset"]]
    assert offsets == [0, len(text) - 2, len(text) - 1, *[len(text)] * 3]
    assert [id for choice in choices for id in choice["token_ids"]] == [silent] * 3


def test_a_prompts_log_probabilities_have_vllms_shape(server, text_model):
    ids = text_model.tokenize(PROMPT, special=True)
    body = {"prompt": PROMPT, **ALWAYS, "prompt_logprobs": 1}
    first, *others = server.ask("/v1/completions", body).json["choices"][0]["prompt_logprobs"]
    assert first is None and len(others) == len(ids) - 1
    for id, entry, truth in zip(ids[1:], others, text_model.prompt_logprobs(ids, 1), strict=True):
        assert entry[str(id)]["logprob"] == pytest.approx(truth.chosen[1])
        assert entry[str(truth.likeliest[0][0])]["rank"] == 1
    chat = server.chat(messages=MESSAGES, **ALWAYS, prompt_logprobs=0).json
    assert len(chat["prompt_logprobs"]) == chat["usage"]["prompt_tokens"]


def test_the_likeliest_of_several_answers_are_told(client):
    options = {"model": "x", "prompt": PROMPT, "max_tokens": 5, "temperature": 9.0, "seed": 3, "top_p": 1.0}
    extra = {"ignore_eos": True, "top_k": 0, "min_p": 0}
    every = client.completions.create(**options, n=4, logprobs=1, extra_body=extra)
    means = {c.text: sum(c.logprobs.token_logprobs) / 5 for c in every.choices}
    best = client.completions.create(**options, n=2, best_of=4, extra_body=extra)
    assert [c.text for c in best.choices] == sorted(means, key=means.get, reverse=True)[:2]
    assert [c.index for c in best.choices] == [0, 1] and best.choices[0].logprobs is None
    assert best.usage.completion_tokens == 20


def test_the_stop_text_is_told_where_it_is_wanted(server):
    body = {"prompt": PROMPT, **ALWAYS, "max_tokens": 24}
    content = server.ask("/completion", body).json["content"]
    stop = content[4:7]
    for path, name in (("/completion", None), ("/v1/completions", "text")):
        whole = server.ask(path, {**body, "stop": stop, "include_stop_str_in_output": True}).json
        text = whole["content"] if name is None else whole["choices"][0][name]
        assert text == content[: content.index(stop)] + stop


def test_an_answer_ends_at_a_line_that_is_too_little_indented(server):
    bodies = ({"prompt": PROMPT, **ALWAYS, "max_tokens": 100, "seed": seed} for seed in range(20))
    whole, body = next((w, b) for b in bodies if "\n" in (w := server.ask("/completion", b).json["content"])[:-8])
    cut = server.ask("/completion", {**body, "n_indent": 50}).json
    assert cut["stop_type"] == "limit" and len(cut["content"]) < len(whole)
    assert whole.startswith(cut["content"]) and not cut["content"].rpartition("\n")[2].strip(" \t")
    assert server.chat(messages=MESSAGES, **{**ALWAYS, "t_max_predict_ms": 1}).status == 200


@pytest.mark.parametrize("name", ["max_new_tokens", "max_output_tokens", "max_tokens_to_sample", "num_predict"])
def test_other_names_of_the_longest_answer_are_known(server, name):
    body = {k: v for k, v in ALWAYS.items() if k != "max_tokens"}
    assert server.chat(messages=MESSAGES, **body, **{name: 3}).json["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("body", [{"logprobs": 1000, "max_tokens": 500}, {"prompt_logprobs": 1000, "max_tokens": 1}])
def test_more_log_probabilities_than_anybody_reads_are_refused(server, body):
    reply = server.ask("/v1/completions", {"prompt": [5] * 300, "ignore_eos": True, **body})
    assert (reply.status, reply.json["error"]["param"]) == (400, "logprobs")
    assert server.ask("/v1/completions", {"prompt": PROMPT, **body, "max_tokens": 2}).status == 200
