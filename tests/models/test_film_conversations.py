"""Conversations about films: logits of converted pairs equal those of the classes, in pieces, again and in company."""

from __future__ import annotations

import numpy as np
import pytest

import opsin
from opsin.api.videos import LaidOut
from opsin.convert.hf import convert
from opsin.engine import scoring
from opsin.engine.sampling import Sampling
from opsin.media.film import FrameChoice
from opsin.nn.films import fitted
from opsin.spans import MediaSpan

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from test_films import Processor, film  # noqa: E402
from truths import TOWERS  # noqa: E402
from vision_truth import distance  # noqa: E402

FAMILIES = ("qwen2vl", "qwen2.5vl", "qwen3vl")
VIDEO = 260  # the id of <|video_pad|> in all three
SIZE = (128, 96)  # no frame is resized, so all pixels are the processor's to the bit


@pytest.fixture(scope="module", params=FAMILIES)
def both(request, tmp_path_factory):
    truth = TOWERS[request.param]
    folder, theirs = tmp_path_factory.mktemp("films"), truth.make()
    truth.save(theirs, folder / "hf")
    convert(folder / "hf", folder / "model.gguf", mmproj=folder / "mmproj.gguf", format="f32")
    with opsin.load(folder / "model.gguf", threads=2, pages="f32", context=2048, sequences=4) as ours:
        yield request.param, theirs, ours


def laid(ours, given):
    return LaidOut(fitted(ours.senses.vision.lay_out_film, given), given)


def prompt(ours, *parts):
    return ours.chat_prompt([{"role": "user", "content": list(parts)}])


def expected(both, given, made):
    """transformers' logits of the same ids, with its own placeholders where ours has rows."""
    name, theirs, ours = both
    preparation = ours.senses.vision.lay_out_film.args[0].preparation
    look = {"image_mean": preparation.mean, "image_std": preparation.std, "patch_size": 4, "merge_size": 2}
    size = {"shortest_edge": 128 * 64, "longest_edge": 768 * 64}
    if name == "qwen3vl":
        size = {"shortest_edge": 4 * 64, "longest_edge": 24576 * 64}
    module = ("qwen3_vl", "Qwen3VLVideoProcessor") if name == "qwen3vl" else ("qwen2_vl", "Qwen2VLVideoProcessor")
    pixels = Processor(*module, size=size, **look)(given, range(len(given)), cap_pixels_per_frame=True)
    ids = [i for s in made.spans for i in ([VIDEO] * len(s) if isinstance(s, MediaSpan) else s.ids)]
    kinds = [k for s in made.spans for k in [2 if isinstance(s, MediaSpan) else 0] * len(s)]
    more = {"second_per_grid_ts": torch.tensor([2 / given.rate])} if name == "qwen2.5vl" else {}
    with torch.inference_mode():
        return theirs(
            input_ids=torch.tensor([ids]), mm_token_type_ids=torch.tensor([kinds]), use_cache=False, **pixels, **more
        ).logits[0].numpy()  # fmt: skip


def test_logits_equal_transformers(both):
    given, ours = film(6, 4.0, SIZE).asked(FrameChoice(frames=6), film().budget), both[-1]
    made = prompt(ours, "Watch ", laid(ours, given), " and say what happens.")
    assert sum(isinstance(span, MediaSpan) for span in made.spans) == 3
    assert distance(ours.logits(made), expected(both, given, made)) < 1e-4


def test_the_order_of_frames_matters(both):
    ours, given = both[-1], film(6, 4.0, SIZE)
    turned = film(6, 4.0, SIZE)
    object.__setattr__(turned, "decode", lambda number: given.decode(5 - number))
    object.__setattr__(turned, "digest", bytes(16))
    first, second = (ours.logits(prompt(ours, laid(ours, one), "What?"))[-1:] for one in (given, turned))
    assert distance(first, second) > 1e-3


def test_chunks_give_the_same_bits_and_answers_again_and_in_company_are_the_same(both):
    ours, given = both[-1], film(6, 4.0, SIZE)
    made = prompt(ours, laid(ours, given), "What?")
    sizes = [100] * (len(made) // 100 + 1)
    assert np.array_equal(scoring.score(ours.engine, ours.runner, made, sizes), ours.logits(made))

    def submit():
        return ours.engine.submit(made, Sampling(temperature=0.0, max_tokens=4, ignore_eos=True))

    alone, again = ([piece.id for piece in submit()] for _ in range(2))
    streams = [submit(), submit()]
    assert again == alone == [piece.id for piece in streams[0]] == [piece.id for piece in streams[1]]


def test_another_rate_of_the_same_frames_shares_no_rows_where_positions_tell_time(both):
    name, _, ours = both
    if name != "qwen2.5vl":
        pytest.skip("moments stand one after another, however long they last")
    logits = []
    for rate in (4.0, 0.25):
        given = film(4, rate, SIZE).asked(FrameChoice(frames=4), film().budget)
        made = prompt(ours, laid(ours, given), "What?")
        answer = ours.engine.submit(made, Sampling(temperature=0.0, max_tokens=1, ignore_eos=True))
        assert len(list(answer)) == 1
        logits.append(ours.logits(made))
    assert distance(logits[0][-1:], logits[1][-1:]) > 1e-3
