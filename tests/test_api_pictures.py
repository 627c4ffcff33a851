"""Pictures in the Python surface, on tiny random models that see."""

from __future__ import annotations

import base64
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_llama
from tiny_sight import MARKERS, ROWS, SIDE, TEMPLATE, tiny_pair, tiny_tower, tower_metadata, tower_tensors, write_tower

import opsin
from opsin import Embeddings
from opsin.gguf import File, NewTensor, write
from opsin.media.decode import open_picture
from opsin.media.fetch import FetchRules
from opsin.spans import MediaSpan, Patches, TextSpan

# Random choices among all ids: a small change of the logits changes the answer.
OPTIONS = {"temperature": 20.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 3, "max_tokens": 8, "ignore_eos": True}


def picture(width=40, height=30, seed=0):
    pixels = np.random.default_rng([seed, width, height]).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def data_url(image):
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def ask(*parts):
    return [{"role": "user", "content": list(parts)}]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return tiny_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def model(pair):
    with opsin.load(pair[0], threads=2, context=512, sequences=8) as made:
        yield made


@pytest.fixture(scope="module")
def tiled(tmp_path_factory):
    text, _ = tiny_pair(tmp_path_factory.mktemp("tiled"), "idefics3")
    with opsin.load(text, threads=2, context=1024, sequences=4) as made:
        yield made


@pytest.fixture(scope="module")
def blind(pair):
    with opsin.load(pair[0], vision=False, threads=2, context=512, sequences=8) as made:
        yield made


def answer(model, messages):
    return model.chat(messages, **OPTIONS).text


def shown(model, prompt):
    """A prompt as text, with # for each row of a picture."""
    return "".join(
        "#" * span.rows if isinstance(span, MediaSpan) else model.tokenizer.decode(span.ids, special=True)
        for span in prompt.spans
    )


# Asking


def test_a_picture_stands_where_it_was_put(model):
    prompt = model.chat_prompt(ask("What is ", picture(), "?"))
    image = "\n\n<start_of_image>" + "#" * ROWS + "<end_of_image>\n\n"
    assert shown(model, prompt) == f"<|im_start|>user\nWhat is {image}?<|im_end|>\n<|im_start|>assistant\n"


def test_texts_around_pictures_are_tokenized_in_one_piece(model):
    """The line breaks of a marker and of a text beside it are cut together."""
    prompt = model.chat_prompt(ask("a", picture(), "\n b"))
    after = prompt.spans[2]
    assert isinstance(after, TextSpan)
    whole = model.tokenize("<end_of_image>\n\n\n b<|im_end|>\n<|im_start|>assistant\n", special=True)
    assert list(after.ids) == whole


def test_pictures_that_are_numbered_count_from_0_in_each_prompt(model):
    one, two = (replace(model.prepare(picture(seed=seed)), numbered="[no. {}]") for seed in (1, 2))
    image = "\n\n<start_of_image>" + "#" * ROWS + "<end_of_image>\n\n"
    for _ in range(2):
        said = shown(model, model.chat_prompt([*ask("a", one, "b", two), *ask(one, "c")]))
        assert said.replace(image, "#").count("#") == 3
        assert f"a[no. 0]{image}b[no. 1]{image}<|im_end|>" in said
        assert f"user\n[no. 2]{image}c" in said
    here = model.picture_marker
    said = shown(model, model.raw([f"a{here}", [70], f"{here}b{here}"], [one, two, one]).prompt)
    middle = model.tokenizer.decode([70])
    assert said.split(image) == ["a[no. 0]", f"{middle}[no. 1]", "b[no. 2]", ""]
    assert one.markers[0] == "[no. {}]"
    assert model.encode(one).patches.numbered == one.numbered


def test_the_picture_counts(model):
    first, second = (answer(model, ask("What?", picture(seed=seed))) for seed in (1, 2))
    assert first != second
    assert first == answer(model, ask("What?", picture(seed=1)))


def test_the_logits_of_a_prompt_with_pictures_continue_it(model):
    prompt = model.chat_prompt(ask(picture(seed=3), "and", picture(seed=4)))
    reply = model.generate(prompt, opsin.Sampling(temperature=0.0, max_tokens=1, ignore_eos=True))
    list(reply)
    logits = model.logits(prompt)
    assert logits.shape == (len(prompt), model.runner.decoder.vocabulary)
    assert reply.ids == [int(logits[-1].argmax())]


def test_a_prompt_longer_than_the_context_has_no_logits(model):
    prompt = model.chat_prompt(ask(*(picture() for _ in range(30))))
    with pytest.raises(opsin.OpsinError, match=r"a prompt of \d+ tokens"):
        model.logits(prompt)


def forms(image, folder):
    """The same picture in every form that people have it in."""
    path = folder / "picture.png"
    image.save(path)
    return {
        "path": path,
        "bytes": png(image),
        "image": image,
        "array": np.asarray(image),
        "floats": np.asarray(image, np.float32) / 255,
        "Picture": open_picture(image),
        "data URL": {"type": "image_url", "image_url": {"url": data_url(image)}},
        "bare data URL": {"type": "image_url", "image_url": data_url(image)},
        "image part": {"type": "image", "image": image},
    }


@pytest.fixture(scope="module")
def same(model, tmp_path_factory):
    image = picture(seed=5)
    given = forms(image, tmp_path_factory.mktemp("forms"))
    given["Patches"], given["Embeddings"] = model.prepare(image), model.encode(image)
    return given, answer(model, ask("Look", image))


@pytest.mark.parametrize(
    "form",
    ["path", "bytes", "image", "array", "floats", "Picture", "data URL", "bare data URL", "image part", "Patches",
     "Embeddings"],
)  # fmt: skip
def test_a_picture_in_any_form_gets_the_same_answer(model, same, form):
    given, expected = same
    assert answer(model, ask("Look", given[form])) == expected


def test_text_parts_may_be_strings_or_as_openai_writes_them(model):
    image = picture()
    strings = model.chat_prompt(ask("What", image, "is it?"))
    parts = model.chat_prompt(ask({"type": "text", "text": "What"}, image, {"type": "text", "text": "is it?"}))
    assert strings == parts


def test_pictures_in_every_message_of_every_role(model):
    messages = [
        {"role": "system", "content": ["Such: ", picture(seed=1)]},
        {"role": "user", "content": [picture(seed=2), "and", picture(seed=3)]},
        {"role": "assistant", "content": ["So: ", picture(seed=4)]},
        {"role": "tool", "content": [picture(seed=5)]},
        {"role": "user", "content": "What?"},
    ]
    prompt = model.chat_prompt(messages)
    spans = [span for span in prompt.spans if isinstance(span, MediaSpan)]
    assert [span.digest for span in spans] == [model.prepare(picture(seed=i)).spans[0].digest for i in range(1, 6)]
    assert shown(model, prompt).count("#" * ROWS) == 5
    assert answer(model, messages)


def test_what_a_user_types_is_no_picture(model):
    text = "a <start_of_image> b <end_of_image>"
    prompt = model.chat_prompt(ask(text, picture()))
    assert len([span for span in prompt.spans if isinstance(span, MediaSpan)]) == 1
    marker = model.tokenize("<start_of_image>", special=True)[0]
    ids = [i for span in prompt.spans if isinstance(span, TextSpan) for i in span.ids]
    assert ids.count(marker) == 1
    assert text in shown(model, prompt)
    assert model.chat_prompt(ask(text)).spans[0].ids.count(marker) == 0


def test_a_conversation_without_pictures_is_answered_as_by_a_model_of_text(model, blind):
    messages = [{"role": "user", "content": "the rain in Spain"}]
    assert model.chat_prompt(messages) == blind.chat_prompt(messages)
    assert answer(model, messages) == answer(blind, messages)


def test_a_template_that_knows_no_parts_gets_pictures_too(tmp_path, model):
    text, _ = tiny_pair(tmp_path, form="text")
    with opsin.load(text, threads=2, context=512) as plain:
        prompt = plain.chat_prompt(ask("What is", picture(), "this?"))
        image = "\n\n<start_of_image>" + "#" * ROWS + "<end_of_image>\n\n"
        expected = f"<|im_start|>user\nWhat is\n{image}\nthis?<|im_end|>\n<|im_start|>assistant\n"
        assert shown(plain, prompt) == expected


def test_a_model_without_a_template_gets_pictures_too(tmp_path):
    text = tiny_llama(tmp_path / "model.gguf", specials=MARKERS["gemma3"])
    _drop_template(text)
    tiny_tower(tmp_path / "mmproj.gguf")
    with opsin.load(text, threads=2, context=512) as plain:
        prompt = plain.chat_prompt(ask("What is", picture()))
        assert shown(plain, prompt) == "What is\n\n\n<start_of_image>" + "#" * ROWS + "<end_of_image>\n\n"


def _drop_template(path):
    with File.open(path) as file:
        metadata = {key: value for key, value in file.metadata.items() if key != "tokenizer.chat_template"}
        tensors = [NewTensor(n, i.shape, i.type, file.read(n).copy()) for n, i in file.tensors.items()]
    write(path, metadata, tensors)


def test_a_template_that_drops_pictures_is_told(tmp_path):
    silent = TEMPLATE.replace("m['content']", "'something'")
    text = tiny_llama(tmp_path / "model.gguf", specials=MARKERS["gemma3"], metadata={"tokenizer.chat_template": silent})
    tiny_tower(tmp_path / "mmproj.gguf")
    with opsin.load(text, threads=2, context=512) as model:
        with pytest.raises(opsin.OpsinError, match="places for 0 of 1 pictures") as caught:
            model.chat_prompt(ask(picture()))
        assert caught.value.status == 400


def test_many_threads_ask_about_their_own_pictures(model):
    alone = [answer(model, ask("Look", picture(seed=i % 5), str(i))) for i in range(16)]
    with ThreadPoolExecutor(8) as pool:
        asked = pool.map(lambda i: answer(model, ask("Look", picture(seed=i % 5), str(i))), range(16))
        assert list(asked) == alone


# What is told


def test_usage_tells_what_a_picture_took(model):
    image = picture(40, 30, seed=77)
    reply = model.chat(ask("a", image, "b", picture(500, 20)), **OPTIONS)
    list(reply)
    usage = reply.usage
    assert usage.prompt == reply.prompt_tokens == len(model.chat_prompt(ask("a", image, "b", picture(500, 20))))
    assert usage.pictures == 2 * ROWS
    assert usage.answer == 8
    first, second = usage.each
    assert (first.name, first.original, first.size, first.rows) == (
        "messages[0].content[1]", (40, 30), (SIDE, SIDE), ROWS,
    )  # fmt: skip
    assert (second.name, second.original, second.size) == ("messages[0].content[3]", (500, 20), (SIDE, SIDE))


def test_usage_tells_what_was_cached(model):
    messages = ask("x" * 100, picture(seed=78))
    first, second = (model.chat(messages, **OPTIONS) for _ in range(2))
    assert first.text == second.text
    third = model.chat(messages, **OPTIONS)
    list(third)
    assert third.usage.cached == third.usage.prompt - 1 > 64  # the last row is always computed


def test_an_animation_gives_its_first_frame_and_says_so(model):
    frames = [picture(seed=i) for i in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    reply = model.chat(ask("What?", file.getvalue()), **OPTIONS)
    assert reply.usage.each[0].notes == ("frame 1 of 3",)


def test_counting_computes_nothing(model, monkeypatch):
    monkeypatch.setattr(model.engine, "submit", None)
    monkeypatch.setattr(model.engine, "embed", None)
    messages = ask("a", picture(), "b")
    assert model.count(messages) == len(model.chat_prompt(messages))
    assert model.count(messages) - model.count(ask("a", "b")) > ROWS


def test_preparing_tells_rows_and_rectangles(model):
    patches = model.prepare(picture(80, 40))
    assert patches.rows == ROWS
    assert patches.grid == (4, 4)
    assert patches.original == (80, 40)
    assert patches.size == (SIDE, SIDE)
    assert patches.rectangles()[5] == (20, 10, 40, 20)
    assert patches.markers == ("\n\n<start_of_image>", "<end_of_image>\n\n")


# Embeddings


def test_embeddings_know_their_picture(model):
    made = model.encode(picture())
    assert made.shape == (ROWS, 64)
    assert np.asarray(made).dtype == np.float32
    assert len(made) == made.patches.rows == len(made.patches.rectangles())


def test_several_pictures_are_encoded_as_each_alone(model):
    images = [picture(seed=i) for i in range(3)]
    together = model.encode(images)
    assert [type(made) for made in together] == [Embeddings] * 3
    for image, made in zip(images, together, strict=True):
        assert np.array_equal(made, model.encode(image))
    assert model.encode([]) == []


def test_tiles_of_several_pictures_stay_with_their_own(tiled):
    images = [picture(40, 30), picture(60, 20)]
    together = tiled.encode(images)
    assert [made.shape for made in together] == [(tiled.prepare(image).rows, 64) for image in images]
    for image, made in zip(images, together, strict=True):
        assert np.array_equal(made, tiled.encode(image))


def test_edited_embeddings_change_the_answer(model):
    made = model.encode(picture())
    louder = Embeddings(made.values[::-1], made.patches)
    assert answer(model, ask("Look", louder)) != answer(model, ask("Look", made))


def test_embeddings_of_another_number_of_rows_are_refused(model):
    made = model.encode(picture())
    with pytest.raises(opsin.OpsinError, match="15, 64.*picture of 16 tokens"):
        model.chat(ask(Embeddings(made.values[1:], made.patches)))


def test_a_picture_in_tiles_is_answered(tiled):
    image = picture(120, 90)
    patches = tiled.prepare(image)
    assert len(patches.spans) == 13
    assert patches.size == (128, 96)
    assert shown(tiled, tiled.chat_prompt(ask(image))).count("#") == patches.rows == 13 * ROWS
    assert answer(tiled, ask(image, "What?")) != answer(tiled, ask(picture(120, 90, seed=1), "What?"))


# The tower alone


def test_a_tower_alone_encodes(model, pair):
    with opsin.load(pair[1], threads=2) as tower:
        assert tower.prepare(picture()).rows == ROWS
        assert np.array_equal(tower.encode(picture()), model.encode(picture()))
        many = tower.encode([picture(seed=i) for i in range(3)])
        assert np.array_equal(many[2], model.encode(picture(seed=2)))
        for talk in (lambda: tower.chat(ask("Hi")), lambda: tower.complete("Hi"), lambda: tower.tokenize("Hi")):
            with pytest.raises(opsin.OpsinError, match="holds no text model"):
                talk()


# Which files belong together


def test_the_weights_are_read_when_the_first_picture_comes(pair, monkeypatch):
    reads = []
    read_into = File.read_into

    def watched(self, name, *rest):
        reads.append(name)
        return read_into(self, name, *rest)

    monkeypatch.setattr(File, "read_into", watched)
    with opsin.load(pair[0], threads=2, context=512) as model:
        model.count(ask(picture()))
        assert not [name for name in reads if name.startswith(("v.", "mm."))]
        answer(model, ask(picture()))
        assert [name for name in reads if name.startswith("v.")]


def test_vision_can_be_left_out(blind):
    assert not blind.has_vision
    with pytest.raises(opsin.OpsinError, match="takes text only") as caught:
        blind.chat(ask("What?", picture()))
    assert caught.value.status == 400
    assert "vision=False" in caught.value.hint
    assert "messages[0].content[1]" in caught.value.message


def test_a_model_of_text_says_how_it_could_see(quantised_file, tmp_path):
    alone = tmp_path / "alone.gguf"
    alone.write_bytes(quantised_file.read_bytes())
    with opsin.load(alone, threads=2, context=64) as model:
        for look in (lambda: model.chat(ask(picture())), lambda: model.prepare(picture())):
            with pytest.raises(opsin.OpsinError, match="mmproj"):
                look()


def test_a_folder_is_a_model(pair):
    with opsin.load(pair[0].parent, threads=2, context=64) as model:
        assert model.path == pair[0]
        assert model.has_vision


@pytest.mark.parametrize("names", [[], ["a.gguf", "b.gguf"]])
def test_a_folder_without_one_model_is_told(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(opsin.OpsinError, match=f"holds {len(names) or 'no'} models"):
        opsin.load(tmp_path)


def test_one_file_may_hold_both(pair, tmp_path, model):
    path = tmp_path / "one.gguf"
    with File.open(pair[0]) as text, File.open(pair[1]) as tower:
        metadata = {key: value for key, value in tower.metadata.items() if key.startswith("clip.")}
        tensors = [NewTensor(n, i.shape, i.type, f.read(n).copy()) for f in (text, tower) for n, i in f.tensors.items()]
        write(path, {**text.metadata, **metadata}, tensors)
    with opsin.load(path, threads=2, context=512) as one:
        assert one.has_vision
        assert answer(one, ask("Look", picture())) == answer(model, ask("Look", picture()))


def other_tower(folder, **options):
    return tiny_tower(folder / "other-mmproj.gguf", **options)


def test_a_tower_of_another_width_is_an_error_that_names_both(pair, tmp_path):
    other = other_tower(tmp_path, width=96)
    before = set(threading.enumerate())
    with pytest.raises(opsin.OpsinError, match="embeddings of 96 values, .* takes 64") as caught:
        opsin.load(pair[0], mmproj=other)
    assert str(other) in caught.value.message
    assert str(pair[0]) in caught.value.message
    assert not set(threading.enumerate()) - before


def test_a_tower_of_another_family_is_an_error_that_names_both(pair, tmp_path):
    other = other_tower(tmp_path, kind="idefics3")
    with pytest.raises(opsin.OpsinError, match="'<fake_token_around_image>'.*no token of") as caught:
        opsin.load(pair[0], mmproj=other)
    assert str(other) in caught.value.message
    assert str(pair[0]) in caught.value.message


def test_a_tower_that_only_lies_beside_is_left_out_and_told(pair, tmp_path):
    text = tmp_path / "model.gguf"
    text.write_bytes(pair[0].read_bytes())
    other_tower(tmp_path, width=96)
    with opsin.load(text, threads=2, context=64) as model:
        assert ["pictures are left out" in note and "96" in note for note in model.notes] == [True]
        with pytest.raises(opsin.OpsinError, match="text only") as caught:
            model.chat(ask(picture()))
        assert "96" in caught.value.hint


def test_a_text_model_as_mmproj_is_refused(pair):
    with pytest.raises(opsin.OpsinError, match="holds no part for pictures"):
        opsin.load(pair[0], mmproj=pair[0])


def test_a_damaged_tower_fails_the_request_that_needs_it(pair, tmp_path):
    text = tmp_path / "model.gguf"
    text.write_bytes(pair[0].read_bytes())
    tensors = tower_tensors("gemma3")
    tensors["v.position_embd.weight"][:] = np.nan
    write_tower(tmp_path / "mmproj.gguf", tower_metadata("gemma3"), tensors)
    with opsin.load(text, threads=2, context=512) as model:
        with pytest.raises(opsin.OpsinError, match="no numbers"):
            answer(model, ask(picture()))
        assert answer(model, [{"role": "user", "content": "Hi"}])


# Refusals


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (b"", r"messages\[0\].content\[1\]: an empty file"),
        (b"<html>", r"messages\[0\].content\[1\]: "),
        (7, r"messages\[0\].content\[1\]: a int is no picture"),
        (None, r"messages\[0\].content\[1\]: a NoneType is no picture"),
        ({"type": "film"}, r"messages\[0\].content\[1\]: is of the type 'film'"),
        ({"type": "text", "text": 3}, "of the type 'text'"),
        ({"type": "image_url"}, "there is no image_url"),
        ({"type": "image_url", "image_url": {"detail": "low"}}, "there is no image_url"),
        ({"type": "image_url", "image_url": {"url": "/etc/passwd"}}, "local files may not be read"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "local files may not be read"),
        ({"type": "image", "image": "/etc/passwd"}, "local files may not be read"),
        ({"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/a.png"}}, r"messages\[0\].content\[1\]: "),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, r"messages\[0\].content\[1\]: "),
    ],
)
def test_what_is_no_picture_is_refused_by_its_place(model, part, said):
    with pytest.raises(opsin.OpsinError, match=said) as caught:
        model.chat(ask("What?", part))
    assert caught.value.status == 400


def test_a_message_that_is_nested_without_end_is_refused(model):
    deep = "a"
    for _ in range(3000):
        deep = [deep]
    with pytest.raises(opsin.OpsinError, match="nested too deeply") as caught:
        model.chat(
            [{"role": "user", "content": "Hi", "tool_calls": [{"function": {"name": "f", "arguments": {"a": deep}}}]}]
        )
    assert caught.value.status == 400


def test_local_files_are_read_below_allowed_folders(pair, tmp_path):
    picture().save(tmp_path / "a.png")
    url = {"type": "image_url", "image_url": {"url": (tmp_path / "a.png").as_uri()}}
    with opsin.load(pair[0], threads=2, context=512, rules=FetchRules(folders=(tmp_path,))) as model:
        assert answer(model, ask(url)) == answer(model, ask(picture()))


def test_more_pictures_than_the_context_holds_are_refused_by_name(model):
    with pytest.raises(
        opsin.OpsinError, match=r"messages\[0\].content\[\d+\], picture 2\d of 30 \(up to token \d+\) exceeds"
    ) as caught:
        model.chat(ask(*(picture() for _ in range(30))))
    assert "512" in caught.value.message


def test_patches_of_another_model_are_refused(model, tiled):
    strange = Patches((MediaSpan(b"x", 600, 600, atomic=True, features=model.prepare(picture()).spans[0].features),))
    with pytest.raises(opsin.OpsinError):
        model.chat(ask(strange))
