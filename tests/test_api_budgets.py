"""How finely pictures are looked at, in the Python surface: for all of a question, for one, for a whole model."""

from __future__ import annotations

import dataclasses
from typing import get_type_hints

import numpy as np
import pytest
from test_api_pictures import OPTIONS, ask, data_url, model, pair, picture, png, tiled  # noqa: F401 - fixtures
from tiny_sight import ROWS, SIDE, tiny_pair

import opsin
from opsin import PictureBudget
from opsin.api.picture_options import PictureOptions
from opsin.api.reply_keywords import ChatOptions, ReplyKeywords
from opsin.api.sampling_options import SamplingOptions
from opsin.media.budget import WORDS

WIDE = picture(120, 60)  # two rows of four tiles of the tiled model, and the whole
LOW = PictureBudget("low")


def url_part(**words):
    return {"type": "image_url", "image_url": {"url": data_url(WIDE), **words}}


def rows(question):
    return [used.rows for used in question.pictures]


def test_keywords_are_those_of_the_budget():
    budget = get_type_hints(PictureBudget)
    assert list(get_type_hints(PictureOptions).items()) == [(word, budget[word]) for word in WORDS]
    assert get_type_hints(ChatOptions) == (
        get_type_hints(SamplingOptions) | get_type_hints(PictureOptions) | get_type_hints(ReplyKeywords)
    )


def test_a_picture_has_options_of_its_own(tiled):  # noqa: F811
    usual, low = tiled.prepare(WIDE), tiled.prepare(WIDE, detail="low")
    assert (usual.rows, low.rows) == (9 * ROWS, ROWS)
    assert (low.size, low.notes) == ((SIDE, SIDE), ())
    assert tiled.prepare(WIDE, max_image_tokens=3 * ROWS).rows == 3 * ROWS
    assert tiled.prepare(WIDE, max_pixels=4 * SIDE**2).size == (2 * SIDE, SIDE)
    assert tiled.prepare(WIDE, detail="high") == tiled.prepare(WIDE, detail="auto") == usual


def test_each_picture_of_a_question_may_say_more(tiled):  # noqa: F811
    low = {"type": "image", "image": WIDE, "detail": "low"}
    some = url_part(max_image_tokens=3 * ROWS)
    beside = {**url_part(), "max_pixels": 4 * SIDE**2}
    parts = ask(WIDE, low, some, beside, url_part(detail="low"), url_part(detail="auto"), "Which?")
    assert rows(tiled.question(parts)) == [9 * ROWS, ROWS, 3 * ROWS, 3 * ROWS, ROWS, 9 * ROWS]
    assert rows(tiled.question(parts, budget=PictureBudget(max_image_tokens=ROWS))) == [ROWS] * 6
    assert (
        tiled.count(parts, budget=LOW) == len(tiled.question(parts, budget=LOW).prompt) < tiled.count(parts) - 20 * ROWS
    )


def test_an_answer_is_that_of_the_picture_prepared_so(tiled):  # noqa: F811
    whole = tiled.chat(ask(tiled.prepare(WIDE, detail="low"), "What?"), **OPTIONS).text
    assert tiled.chat(ask(WIDE, "What?"), detail="low", **OPTIONS).text == whole
    assert tiled.chat(ask({"type": "image", "image": WIDE, "detail": "low"}, "What?"), **OPTIONS).text == whole
    usual = tiled.chat(ask(WIDE, "What?"), **OPTIONS)
    assert usual.text != whole
    assert tiled.chat(ask(WIDE, "What?"), detail="low", **OPTIONS).text == whole  # after the other is in all caches
    assert tiled.chat(ask(png(WIDE), "What?"), **OPTIONS).usage.each[0].rows == 9 * ROWS


def test_one_picture_at_two_budgets_is_two_pictures_to_the_caches(tiled):  # noqa: F811
    thin = picture(120, 50)
    usual, low = tiled.prepare(thin), tiled.prepare(thin, detail="low")
    assert not {span.digest for span in usual.spans} & {span.digest for span in low.spans}
    first, second = tiled.encode([usual, low])
    assert not np.array_equal(first.values[-ROWS:], second.values)  # the whole, resized twice or once
    assert np.array_equal(second.values, tiled.encode(tiled.prepare(png(thin), detail="low")).values)


def test_bytes_that_are_decoded_again_are_looked_at_as_they_were(tiled, monkeypatch):  # noqa: F811
    from opsin.api.byte_budget import ByteBudget
    from opsin.api.waiting import PictureBytes

    monkeypatch.setattr(tiled.vision, "budgets", PictureBytes(ByteBudget(0), ByteBudget(None)))
    late, kept = tiled.prepare(png(WIDE), detail="low"), tiled.prepare(WIDE, detail="low")
    assert np.array_equal(late.spans[0].features.make(), kept.spans[0].features.make())


@pytest.mark.parametrize(("words", "notes"), [
    ({"max_image_tokens": 5}, ("max_image_tokens is 5: it takes 16 tokens",)),
    ({"min_image_tokens": 50}, ("min_image_tokens is 50: it takes 16 tokens",)),
    ({"min_pixels": 2000}, ("min_pixels is 2000: it takes 32 x 32 pixels",)),
    ({"max_pixels": 900}, ("max_pixels is 900: it takes 32 x 32 pixels",)),
    ({"detail": "low"}, ("detail is low: this model sees it alike at each",)),
    ({"detail": "high", "max_pixels": 900},
     ("max_pixels is 900: it takes 32 x 32 pixels", "detail is high: this model sees it alike at each")),
    ({"detail": "auto", "max_pixels": 1024, "min_image_tokens": 16}, ()),
])  # fmt: skip
def test_what_a_model_has_no_choice_of_is_told_and_not_refused(model, words, notes):  # noqa: F811
    patches = model.prepare(WIDE, **words)
    assert patches.notes == notes
    assert patches.spans == model.prepare(WIDE).spans
    answer = model.chat(ask(WIDE, "What?"), **words, max_tokens=1)
    assert answer.usage.each[0].notes == notes
    assert answer.text == model.chat(ask(WIDE, "What?"), max_tokens=1).text


def test_where_there_is_a_choice_nothing_is_told(model, tiled):  # noqa: F811
    large = picture(700, 300)
    assert model.prepare(large, detail="high").rows == 3 * ROWS
    assert model.prepare(large, detail="high").notes == model.prepare(large, detail="low").notes == ()
    assert tiled.prepare(large, detail="low").notes == tiled.prepare(large, max_pixels=5000).notes == ()


def test_a_picture_that_is_prepared_already_stays_as_it_is_and_says_so(tiled):  # noqa: F811
    given = tiled.prepare(WIDE)
    for made in (given, tiled.encode(given)):
        patches = tiled.prepare(made, detail="low")
        assert patches.rows == 9 * ROWS
        assert patches.notes == ("prepared before it was asked about: it keeps its size and tokens",)
        assert tiled.prepare(made, detail="auto").notes == ()


def test_a_model_is_loaded_with_a_budget_for_all(tmp_path):
    text, _ = tiny_pair(tmp_path, "idefics3")
    budget = PictureBudget(max_image_tokens=3 * ROWS)
    with opsin.load(text, threads=2, context=1024, sequences=2, budget=budget) as made:
        assert made.prepare(WIDE).rows == made.prepare(WIDE, detail="high").rows == 3 * ROWS
        assert made.prepare(WIDE, max_image_tokens=9 * ROWS).rows == 3 * ROWS  # nobody gets more
        assert made.prepare(WIDE, max_image_tokens=ROWS).rows == made.prepare(WIDE, detail="low").rows == ROWS
        assert made.question(ask(WIDE, url_part(), "?")).pictures[1].rows == 3 * ROWS


@pytest.mark.parametrize(("part", "said"), [
    ({"type": "image", "image": WIDE, "detail": "medium"}, r"messages\[0\].content\[0\].detail: 'medium' is not known"),
    (url_part(max_pixels=0), r"messages\[0\].content\[0\].image_url.max_pixels: 0 is out of range"),
    ({**url_part(), "min_image_tokens": "many"}, r"messages\[0\].content\[0\].min_image_tokens: 'many' is"),
    (url_part(min_pixels=5, max_pixels=4), r"image_url.min_pixels: 5 is more than max_pixels, 4"),
])  # fmt: skip
def test_a_wrong_word_names_its_place(tiled, part, said):  # noqa: F811
    with pytest.raises(opsin.RequestError, match=said) as caught:
        tiled.question(ask(part, "?"))
    assert caught.value.status == 400


def test_raw_prompts_take_a_budget(tiled):  # noqa: F811
    asked = tiled.raw([f"a {tiled.picture_marker} b"], [WIDE], budget=LOW)
    assert rows(asked) == [ROWS]


def test_usage_says_which_part_of_a_picture_was_seen(tiled):  # noqa: F811
    (used,) = tiled.question(ask(WIDE, "?")).pictures
    assert (used.original, used.area) == ((120, 60), (0.0, 0.0, 120.0, 60.0))
    assert used.size == tiled.prepare(WIDE).size
    assert tiled.prepare(WIDE).to_original((0, 0, used.size[0] / 2, used.size[1])) == (0, 0, 60, 60)


def test_what_shows_no_original_maps_nothing_back(model):  # noqa: F811
    spans = [dataclasses.replace(span, area=None) for span in model.prepare(WIDE).spans]
    for patches in (opsin.Patches(tuple(spans), original=(120, 60)), opsin.Patches(())):
        with pytest.raises(ValueError, match="does not say which part"):
            patches.to_original((0, 0, 1, 1))
