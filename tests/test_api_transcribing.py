"""Sound becomes text: what may be written, window by window, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import opsin
from opsin.api.speech import segments
from opsin.api.speech.moments import MomentRules
from opsin.api.speech.segments import Utterance, utterances
from opsin.api.speech.speech_ids import SpeechIds
from opsin.api.speech.transcribing import Transcribing
from opsin.api.speech.tries import Drawn, Try, compression
from opsin.errors import DeviceError, RequestError
from opsin.media.mel import log_mel, window

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tiny_speech import BANDS, ROWS, TEXTS, id, published, write_by_hand  # noqa: E402

RATE, FRAMES = 16_000, 2 * ROWS
END, FIRST = id("<|endoftext|>"), id("<|0.00|>")
IDS = SpeechIds(
    END, id("<|startoftranscript|>"), id("<|startofprev|>"), FIRST - 1, id("<|nospeech|>"), FIRST,
    {"transcribe": id("<|transcribe|>"), "translate": id("<|translate|>")},
    {code: id(f"<|{code}|>") for code in ("en", "de", "fr")},
)  # fmt: skip


@pytest.fixture(scope="module")
def theirs():
    return published()


@pytest.fixture(scope="module")
def model(theirs, tmp_path_factory):
    path = write_by_hand(tmp_path_factory.mktemp("speech") / "model.gguf", theirs)
    with opsin.load(path, threads=2, pages="f32", sequences=4) as made:
        yield made


def noise(seconds, seed=0):
    return (np.random.default_rng(seed).standard_normal(int(seconds * RATE)) * 0.1).astype(np.float32)


def moment(seconds):
    return FIRST + round(seconds * 50)


@pytest.mark.parametrize("seed", range(12))
def test_what_may_follow_is_what_transformers_lets_follow(seed):
    random = np.random.default_rng(seed)
    written: list[int] = []
    config = transformers.GenerationConfig(
        no_timestamps_token_id=FIRST - 1, eos_token_id=END, bos_token_id=END, max_initial_timestamp_index=50
    )
    oracle = transformers.WhisperTimeStampLogitsProcessor(config, begin_index=3)
    rules, asked = MomentRules(IDS, 3, timed=True, never=(), never_first=()), [1, 2, 3]
    for _ in range(12):
        logits = random.standard_normal(len(TEXTS)).astype(np.float32) * 3
        logits[FIRST:] += random.choice([0, 4, -9])
        logits[END + 1 : FIRST] = -np.inf  # what is asked with is never written
        wanted = oracle(torch.tensor([[*asked, *written]]), torch.from_numpy(logits[None].copy()))[0].numpy()
        found = rules(np.array([*asked, *written], np.int32), logits.copy())
        assert np.array_equal(np.isfinite(found), np.isfinite(wanted))
        written.append(int(found.argmax()) if written else int(random.integers(FIRST, FIRST + 50)))
        if written[-1] == END:
            break


def test_the_first_window_is_written_as_transformers_logits_say(model, theirs):
    """Greedily, by its own logits and our rules, which the test above compares."""
    sound = noise(0.9)
    logs = window(log_mel(sound, BANDS), 0, FRAMES)
    asked = IDS.question("de", "transcribe", timed=True)
    rules = MomentRules(IDS, len(asked), timed=True, never=(3, 7), never_first=(5, END))
    written: list[int] = []
    with torch.inference_mode():
        states = theirs.model.encoder(torch.from_numpy(logs.T[None])).last_hidden_state
        while len(written) < 32 and (not written or written[-1] != END):
            given = torch.tensor([[*asked, *written]])
            logits = theirs(encoder_outputs=(states,), decoder_input_ids=given).logits[0, -1].numpy()
            written.append(int(rules(np.array([*asked, *written], np.int32), logits.copy()).argmax()))
    rules.count_in(written[-1])
    wanted = [token for token in written if token != END]
    made = model.transcribe(sound, language="de", temperature=0.0)
    first = [segment for segment in made if segment.frame == 0]
    assert first and [token for segment in first for token in segment.ids] == wanted[: sum(len(s.ids) for s in first)]
    assert first[0].average_logprob == pytest.approx(rules.average, abs=1e-4)


def test_a_moment_pair_ends_a_segment_and_the_rest_is_heard_again():
    a, b = 4, 9
    ids = [moment(0), a, b, moment(0.4), moment(0.4), b, moment(0.7), moment(0.7), a]
    assert utterances(ids, IDS, 100) == (
        [Utterance(tuple(ids[:4]), 0.0, 0.4), Utterance(tuple(ids[4:7]), 0.4, pytest.approx(0.7))], 70
    )  # fmt: skip
    alone = [*ids[:4], moment(0.4), b, moment(0.7)]
    assert [one.end for one in utterances(alone, IDS, 100)[0]] == [0.4, pytest.approx(0.7)]
    assert utterances(alone, IDS, 100)[1] == 100  # nobody speaks behind it
    assert utterances([moment(0.1), a, b], IDS, 80) == ([Utterance((moment(0.1), a, b), 0.0, pytest.approx(0.1))], 80)
    assert utterances([a], IDS, 80) == ([Utterance((a,), 0.0, 0.8)], 80)
    assert utterances([moment(0), moment(0), a], IDS, 80)[1] == 80  # or it would hear it for ever


def test_few_words_that_are_stretched_to_a_windows_end_are_heard_again():
    a, b = 3, 4
    begin = (moment(0), a, b, moment(4))
    ids = [*begin, moment(4), a, b, moment(20)]
    assert utterances(ids, IDS, 3000) == ([Utterance(begin, 0.0, pytest.approx(4.0))], 400)
    assert len(utterances([*begin, moment(4), *[a, b] * 8, moment(20)], IDS, 3000)[0]) == 2  # as many as one may say
    assert len(utterances([*begin, moment(4), a, b, moment(11)], IDS, 3000)[0]) == 2  # it is not long
    assert utterances([moment(0), a, b, moment(20)], IDS, 3000)[1] == 3000  # or it would be heard for ever


def test_a_few_unsure_words_of_a_long_window_are_tried_again():
    unsure = Try((1, 2, 3), 0.0, average=-0.6, compression=1.0)
    assert unsure.passes_over(20.0, least=-1.0)
    assert not unsure.passes_over(5.0, least=-1.0)
    assert not replace(unsure, average=-0.4).passes_over(20.0, least=-1.0)
    assert not replace(unsure, ids=tuple(range(20))).passes_over(20.0, least=-1.0)


def test_a_long_sound_is_written_to_its_end_and_as_the_same_each_time(model):
    sound = noise(5.3, seed=2)
    made = model.transcribe(sound, temperature=0.0)
    segments = list(made)
    assert made.done == 1.0 and made.language in IDS.languages
    frames = [segment.frame for segment in segments]
    assert frames == sorted(frames) and len(set(frames)) > 2
    assert all(0 <= segment.start < segment.end for segment in segments)
    assert made.text == "".join(segment.text for segment in segments).strip()
    assert list(made) == segments
    again = model.transcribe(sound, temperature=0.0)
    assert [segment.ids for segment in again] == [segment.ids for segment in segments]


def test_a_prompt_and_a_task_change_what_is_written(model):
    sound = noise(0.9, seed=3)
    plain, told, other = (
        [segment.ids for segment in model.transcribe(sound, language="en", temperature=0.0, **more)]
        for more in ({}, {"prompt": "the the the"}, {"task": "translate"})
    )
    assert plain != told and plain != other


def test_without_moments_a_segment_is_a_window(model):
    segments = list(model.transcribe(noise(2.5), language="fr", temperature=0.0, timed=False, carry=False))
    assert all(token < FIRST for segment in segments for token in segment.ids)
    assert [segment.start for segment in segments] == [segment.frame / 100 for segment in segments]


def test_a_window_knows_what_was_written_before_where_it_is_told(model):
    sound = noise(2.5, seed=5)
    plain, told = (list(model.transcribe(sound, language="en", temperature=0.0, carry=c)) for c in (False, True))
    first = [[segment.ids for segment in made if segment.frame == 0] for made in (plain, told)]
    assert first[0] == first[1]
    assert [segment.ids for segment in plain] != [segment.ids for segment in told]


def test_drawing_is_repeated_by_its_seed(model):
    one, same, other = (
        [segment.ids for segment in model.transcribe(noise(0.9), language="en", temperature=1.0, seed=seed)]
        for seed in (1, 1, 2)
    )
    assert one == same != other


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"language": "tlh"}, "the model knows no language 'tlh'"),
        ({"task": "sing"}, "task='sing'"),
        ({"temperature": 3.0}, "temperatures=(3.0,)"),
        ({"prompt": 7}, "prompt is of the type int"),
        ({"sound": b"no sound"}, "this: of an unknown kind"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(model, more, words):
    with pytest.raises(RequestError) as raised:
        model.transcribe(**{"sound": noise(0.1), "name": "this", **more})
    assert words in str(raised.value) and raised.value.hint


def test_a_check_ends_the_work(model):
    class EnoughError(Exception):
        """Nobody waits any more."""

    calls = []

    def check():
        calls.append(1)
        if len(calls) > 5:
            raise EnoughError

    with pytest.raises(EnoughError):
        list(model.transcribe(noise(5), check=check))
    assert model.transcribe(noise(0.5), temperature=0.0).text is not None  # and the next is served


def test_a_model_of_text_hears_nothing(tiny_file):
    with opsin.load(tiny_file(), threads=1) as text:
        assert not text.has_hearing
        with pytest.raises(RequestError, match="hears nothing"):
            text.transcribe(noise(0.1))


def test_a_closed_model_ends_a_transcript(theirs, tmp_path):
    with opsin.load(write_by_hand(tmp_path / "model.gguf", theirs), threads=1) as made:
        coming = made.transcribe(noise(0.5))
    with pytest.raises(DeviceError):
        list(coming)


def test_it_talks_to_nobody(model):
    with pytest.raises(RequestError, match="writes down what was said"):
        model.chat("Hi")


def test_its_notes_tell_of_no_key_that_is_read(model):
    assert model.notes == ()
    assert model.has_hearing


@pytest.mark.parametrize("average", [-0.6, -0.4])
def test_a_window_of_a_few_unsure_words_is_written_again(model, monkeypatch, average):
    monkeypatch.setattr(segments, "_LONG", 0.2)
    monkeypatch.setattr(segments, "_LEAST_RATE", 20.0)
    tried = []

    def made(self, span, temperature):
        tried.append(temperature)
        return Try((FIRST, 9, 33, moment(0.4)), temperature, average if not temperature else -0.3, 1.0)

    monkeypatch.setattr(Transcribing, "_attempt", made)
    (segment,) = model.transcribe(noise(0.5), language="en", temperature=(0.0, 1.0))
    assert tried == ([0.0, 1.0] if average < -0.5 else [0.0])
    assert segment.temperature == tried[-1]


@pytest.mark.parametrize(
    ("tries", "taken"),
    [
        ({0.0: (-2.0, 1.0), 0.5: (-1.5, 1.0), 1.0: (-1.2, 9.0)}, 0.5),  # what repeats is likely, and still wrong
        ({0.0: (-2.0, 9.0), 0.5: (-1.5, 9.0), 1.0: (-1.7, 9.0)}, 0.5),
        ({0.0: (-2.0, 1.0), 0.5: (-0.9, 1.0), 1.0: (-0.1, 1.0)}, 0.5),  # which reads well, and ends it
    ],
)
def test_where_all_reads_badly_the_likeliest_is_taken(model, monkeypatch, tries, taken):
    ids = (FIRST, 9, 33, moment(0.4))
    made = lambda self, span, temperature: Try(ids, temperature, *tries[temperature])  # noqa: E731
    monkeypatch.setattr(Transcribing, "_attempt", made)
    (segment,) = model.transcribe(noise(0.5), language="en", temperature=tuple(tries))
    assert (segment.temperature, segment.average_logprob) == (taken, tries[taken][0])


SENTENCE, OFTEN = tuple(range(20, 40)), "A sentence that somebody says again and again, word by word. " * 4


@pytest.mark.parametrize(
    ("ids", "ended", "wrong"),
    [
        (SENTENCE * 4, True, False),  # somebody says it
        (SENTENCE * 4, False, True),  # nobody comes to no end
        ((20, 21, 22) * 20, True, True),  # a few words for ever
    ],
)
def test_a_sentence_that_is_said_again_is_no_loop(model, monkeypatch, ids, ended, wrong):
    assert compression(OFTEN) > 2.4 > compression(OFTEN[:60])
    said = (moment(0), *ids, moment(0.4))
    tried = []

    def made(self, span, temperature):
        tried.append(temperature)
        return Try(said, temperature, -0.1 if not temperature else -1.5, compression(OFTEN), ended)

    monkeypatch.setattr(Transcribing, "_attempt", made)
    list(model.transcribe(noise(0.5), language="en", temperature=(0.0, 1.0)))
    assert tried == ([0.0, 1.0] if wrong else [0.0])


def test_the_likeliest_of_five_that_are_drawn_is_taken(model, monkeypatch):
    counts, found, judge = [], [], Transcribing._judge
    generate = Transcribing._generate

    def counted(self, span, asked, samplings):
        counts.append({(sampling.temperature, sampling.seed) for sampling in samplings})
        return generate(self, span, asked, samplings)

    def judged(self, made, rules, temperature):
        assert isinstance(made, Drawn)
        found.append(judge(self, made, rules, temperature))
        return found[-1]

    monkeypatch.setattr(Transcribing, "_generate", counted)
    monkeypatch.setattr(Transcribing, "_judge", judged)
    first = next(iter(model.transcribe(noise(0.5), language="en", temperature=0.9, seed=3)))
    assert counts[1] == {(0.9, 3 + draw) for draw in range(5)}  # behind the question who speaks
    assert len({one.ids for one in found[:5]}) > 1
    assert first.average_logprob == max(one.average for one in found[:5])
