"""Qwen2.5-Omni with sounds, pictures and films in one conversation: transformers' positions and logits; its folders."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import opsin
from opsin.api.videos import LaidOut, Video
from opsin.convert.hf import convert
from opsin.engine import scoring
from opsin.engine.rows import PromptRows
from opsin.engine.sampling import Sampling
from opsin.gguf import File
from opsin.media.decode import open_picture
from opsin.media.film import FrameChoice
from opsin.models.qwen25omni import PACE
from opsin.nn.films import STEP, fitted
from opsin.nn.module import FileReader
from opsin.serve.usage import usage_of
from opsin.spans import MediaSpan, Prompt

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import qwen25omni_truth as known  # noqa: E402
import test_qwen2vl_vision as seeing  # noqa: E402
from sound_truth import sound  # noqa: E402
from test_films import film  # noqa: E402
from transformers.models.qwen2_5_omni.processing_qwen2_5_omni import Qwen2_5OmniProcessor  # noqa: E402
from video_processors import Processor  # noqa: E402
from vision_truth import distance, features, opener, picture  # noqa: E402

sys.path.append(str(Path(__file__).parents[1] / "media"))
from made_videos import made_video  # noqa: E402

SIZE = (128, 96)  # no frame is resized, so all pixels are the processor's to the bit
# Frames, frames a second, and seconds of sound: as long as the film, shorter, longer; ended within a turn and at one.
SAID = re.compile("image_m|image_std|vision.feed_forward")  # what a file by hand says otherwise
FILMS = ((8, 2.0, 3.3), (8, 2.0, 4.0), (4, 2.0, 0.5), (4, 2.0, 7.0), (12, 1.0, 2.5), (6, 4.0, 1.0))


@pytest.fixture(scope="module")
def theirs():
    return known.omni_truth()


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    """As transformers saves it."""
    made = tmp_path_factory.mktemp("omni")
    theirs.save_pretrained(made)
    known.processor().image_processor.save_pretrained(made)
    tokenizer = known.processor().tokenizer
    hears = f"{{% elif part['type'] == 'audio' %}}{known.MARKER}{{% else %}}"
    tokenizer.chat_template = tokenizer.chat_template.replace("{% else %}", hears)
    tokenizer.save_pretrained(made)
    tokenizer.chat_template = tokenizer.chat_template.replace(hears, "{% else %}")
    return made


@pytest.fixture(scope="module")
def ours(folder):
    convert(folder, folder / "model.gguf", mmproj=folder / "mmproj.gguf", format="f32")
    with opsin.load(folder / "model.gguf", threads=2, pages="f32", context=2048, sequences=4) as made:
        yield made


def asked(ours, *parts):
    return ours.chat_prompt([{"role": "user", "content": list(parts)}])


def laid(ours, given, wave=None):
    """A film, which is heard where there is a wave."""
    given = given.asked(FrameChoice(frames=len(given)), given.budget)
    if wave is not None:
        given = replace(given, has_sound=True, sound=lambda: ours.senses.audio.prepare(wave))
    return LaidOut(fitted(ours.senses.vision.lay_out_film, given), given)


def ids_of(made):
    """Ids as transformers has them: a placeholder of its kind for each row of media."""
    ids: list[int] = []
    for span in made.spans:
        kind = known.AUDIO
        if isinstance(span, MediaSpan) and span.grid is not None:
            kind = known.IMAGE if span.time is None else known.VIDEO
        ids += [kind] * len(span) if isinstance(span, MediaSpan) else span.ids
    return ids


def pixels(ours, given):
    preparation = ours.senses.vision.lay_out_film.args[0].preparation
    look = {"image_mean": preparation.mean, "image_std": preparation.std, "patch_size": 4, "merge_size": 2}
    size = {"shortest_edge": 128 * 64, "longest_edge": 768 * 64}
    theirs = Processor("qwen2_vl", "Qwen2VLVideoProcessor", size=size, **look)
    return theirs(given, range(len(given)), cap_pixels_per_frame=True)


def expected(theirs, made, **inputs):
    ids = torch.tensor([ids_of(made)])
    with torch.inference_mode():
        return theirs(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **inputs).logits[0].numpy()


def of_film(ours, given, wave):
    """What transformers takes of a film with its sound."""
    return {
        **pixels(ours, given), **known.heard(wave.samples), "use_audio_in_video": True,
        "video_second_per_grid": torch.tensor([STEP / given.rate]),
    }  # fmt: skip


@pytest.fixture(scope="module")
def open_tower(device, theirs, tmp_path_factory):
    return opener(device, theirs, known.write_tower, tmp_path_factory.mktemp("sees"))


def test_embeddings_equal_transformers(tower, theirs):
    images = [picture(301, 200), picture(301, 200, seed=1)]
    patches, grids = seeing.prepare(images)
    made = [features(tower.layout(open_picture(image)))[0] for image in images]
    for ours, wanted in zip(made, patches, strict=True):
        assert np.abs(ours - seeing.rows(theirs, wanted, grids[:1])).max() <= 1e-5
    together = tower.encode(np.stack(made)).numpy()
    assert distance(together, np.concatenate(seeing.embed(theirs, patches, grids))) < 1e-4
    assert np.array_equal(together, np.concatenate([tower.encode(one[None]).numpy() for one in made]))


def test_embeddings_from_halves_are_near(open_tower, theirs):
    (patches,), grids = seeing.prepare([picture(72, 40)])
    ours = open_tower(half=True).encode(seeing.rows(theirs, patches, grids)[None]).numpy()
    assert 1e-6 < distance(ours, seeing.embed(theirs, [patches], grids)[0]) < 5e-3


@pytest.mark.parametrize("size", [(90, 60), (400, 24)])
@pytest.mark.parametrize(("count", "rate", "seconds"), FILMS)
def test_a_film_and_its_sound_stand_where_transformers_has_them(ours, theirs, count, rate, seconds, size):
    given, wave = film(count, rate, size), sound(seconds)
    made = asked(ours, "Watch ", laid(ours, given, wave), " and say.")
    ids, grid = ids_of(made), pixels(ours, given)["video_grid_thw"]
    marks = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=2), audio_token="A", video_token="V", audio_bos_token="[",
        audio_eos_token="]", get_chunked_index=lambda *given: Qwen2_5OmniProcessor.get_chunked_index(None, *given),
    )  # fmt: skip
    frames = known.heard(wave.samples)["feature_attention_mask"].sum(-1)
    inputs = {"video_grid_thw": grid.numpy(), "video_second_per_grid": [STEP / rate]}
    spelt = Qwen2_5OmniProcessor.replace_video_with_audio_token(
        marks, inputs, 0, {"num_audio_tokens": [int(((frames - 1) // 2 + 1 - 2) // 2 + 1)]}, 0,
        position_id_per_seconds=PACE, seconds_per_chunk=2.0,
    )  # fmt: skip
    letters = {known.AUDIO_BOS: "[", known.AUDIO_EOS: "]", known.AUDIO: "A", known.VIDEO: "V"}
    assert "".join(letters.get(one, "") for one in ids) == spelt
    wanted, delta = theirs.model.get_rope_index(
        torch.tensor([ids]), None, grid, torch.ones(1, len(ids)), True, frames, torch.tensor([STEP / rate])
    )
    rows = PromptRows(made, 3)
    assert rows.positions(0, np.arange(len(made), dtype=np.int32)).tolist() == wanted[:, 0].T.tolist()
    if wanted.max() == wanted[0, 0, -1]:  # elsewhere transformers' answer begins further on than a text would
        assert rows.position(len(made)) == len(made) + int(delta)


def test_a_film_is_heard_and_seen_as_by_transformers(ours, theirs):
    given, wave = film(8, 2.0, SIZE), sound(3.3)
    made = asked(ours, "Watch ", laid(ours, given, wave), " and say.")
    wanted = expected(theirs, made, **of_film(ours, given, wave))
    assert distance(ours.logits(made), wanted) < 1e-4
    for name, wrong in MUTANTS.items():
        assert distance(ours.logits(wrong(made)), wanted) > 1e-3, name
    sizes = [100] * (len(made) // 100 + 1)
    assert np.array_equal(scoring.score(ours.engine, ours.runner, made, sizes), ours.logits(made))


def test_sounds_pictures_and_a_film_in_one_conversation(ours, theirs):
    given, image, waves = film(4, 2.0, SIZE), picture(60, 44), [sound(2.5), sound(0.31, seed=2)]
    made = asked(ours, "Hear ", waves[0], ", see ", image, laid(ours, given), waves[1], " and say.")
    inputs = known.processor()(text=[known.TURN], images=[image], return_tensors="pt")
    hears = [known.heard(wave.samples) for wave in waves]
    wanted = expected(
        theirs, made, **pixels(ours, given), **{name: torch.cat([one[name] for one in hears]) for name in hears[0]},
        pixel_values=inputs["pixel_values"], image_grid_thw=inputs["image_grid_thw"],
        video_second_per_grid=torch.tensor([STEP / given.rate]),
    )  # fmt: skip
    assert distance(ours.logits(made), wanted) < 1e-4


def test_answers_are_the_same_again_and_in_company(ours):
    given, wave = film(6, 4.0, SIZE), sound(1.4)
    prompts = [asked(ours, laid(ours, given, wave if is_heard else None), "What?") for is_heard in (True, False)]

    def submit(prompt):
        return ours.engine.submit(prompt, Sampling(temperature=0.0, max_tokens=4, ignore_eos=True))

    alone, again = ([[piece.id for piece in submit(prompt)] for prompt in prompts] for _ in range(2))
    streams = [submit(prompt) for prompt in prompts * 2]
    assert again == alone and [[piece.id for piece in stream] for stream in streams] == alone * 2
    assert ours.logits(Prompt.of([*prompts[0].spans, alone[0]]))[-5:-1].argmax(-1).tolist() == alone[0]


def test_the_sound_of_a_file_is_heard_unless_it_is_left_out(ours):
    pytest.importorskip("av")
    clip = made_video(30, 10, sound=True)
    heard, silent = Video(clip, frames=4).on(ours), Video(clip, frames=4, sound=False).on(ours)
    windows = [span.rows for span in heard.parts[0].spans if span.grid is None]
    assert windows[0] == 50 and abs(sum(windows) - 75) <= 2
    assert heard.tokens == silent.tokens + sum(windows)
    assert told(ours, silent) == (silent.tokens, 0, [])
    seen, listened, [(part, seconds, tokens)] = told(ours, heard)
    assert (seen, listened, tokens) == (silent.tokens, sum(windows), sum(windows))
    assert part == "messages[0].content[0]" and seconds == pytest.approx(3, abs=0.1)
    assert [type(part) for part in silent.parts[0].parts[:2]] == [str, MediaSpan]
    asked_for = {"type": "video", "video": clip, "frames": 4, "sound": False}
    assert ours.chat_prompt([{"role": "user", "content": [asked_for]}]) == asked(ours, silent)
    with pytest.raises(opsin.RequestError, match=r"sound: 'no' is neither"):
        ours.chat_prompt([{"role": "user", "content": [{**asked_for, "sound": "no"}]}])


def told(ours, video):
    """Tokens of pictures and of sound, and what is said of each sound, in the usage of an answer about a video."""
    usage = usage_of([ours.chat([{"role": "user", "content": [video, "What?"]}], max_tokens=1)])
    details, one = usage["prompt_tokens_details"], ("part", "seconds", "tokens")
    sounds = [tuple(sound[word] for word in one) for sound in usage["sounds"]]
    assert sum(picture["tokens"] for picture in usage["pictures"]) == details["image_tokens"]
    return details["image_tokens"], details["audio_tokens"], sounds


def spans_changed(change):
    return lambda made: Prompt.of([change(s) if isinstance(s, MediaSpan) else s for s in made.spans])


def all_sound_last(made):
    spans = list(made.spans)
    media = sorted((s for s in spans if isinstance(s, MediaSpan)), key=lambda span: span.grid is None)
    first = next(n for n, span in enumerate(spans) if isinstance(span, MediaSpan))
    spans[first : first + len(media)] = media
    return Prompt.of(spans)


def timed(span, time):
    return replace(span, time=time)


MUTANTS = {
    "sound behind all moments": all_sound_last,
    "windows of sound at one time": spans_changed(lambda s: timed(s, 0) if s.grid is None else s),
    "sound a position late": spans_changed(lambda s: timed(s, s.time + 1) if s.grid is None else s),
    "moments at one time": spans_changed(lambda s: timed(s, 0) if s.grid is not None else s),
    "markers at positions of their own": spans_changed(lambda s: replace(s, canvas=replace(s.canvas, markers=()))),
    "a film a position late": spans_changed(lambda s: replace(s, canvas=replace(s.canvas, passed=0))),
    "text a position late": spans_changed(lambda s: replace(s, positions=s.positions + bool(s.positions))),
}  # fmt: skip


def stored(path):
    with File.open(path) as file:
        reader = FileReader(file, None)
        return dict(file.metadata), {name: reader.values(name) for name in file.tensors}


def test_the_makers_folder_becomes_the_file_of_both_parts(folder, ours, theirs, tmp_path):
    """`thinker_config` within a config of more, names below `thinker.`, and all that speaks."""
    hub = tmp_path / "hub"
    hub.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "chat_template.jinja"):
        if (folder / name).is_file():
            (hub / name).write_bytes((folder / name).read_bytes())
    thinker = json.loads((folder / "config.json").read_text())
    thinker |= {"architectures": ["Qwen2OmniNaViTThinkerForConditionalGeneration"], "seconds_per_chunk": 2}
    config = {"architectures": ["Qwen2_5OmniModel"], "model_type": "qwen2_5_omni", "thinker_config": thinker,
              "talker_config": {}, "enable_talker": True}  # fmt: skip
    (hub / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    plain = {name.replace("model.language_model.", "model.").replace("model.audio_tower", "audio_tower")
             .replace("model.visual", "visual"): values for name, values in tensors.items()}  # fmt: skip
    assert "audio_tower.audio_bos_eos_token.weight" in plain
    one = np.ones((2, 2), np.float32)
    save_file({f"thinker.{name}": values for name, values in plain.items()}
              | {"talker.model.layers.0.mlp.up_proj.weight": one, "token2wav.code2wav.x": one},
              hub / "model.safetensors")  # fmt: skip
    made = convert(hub, tmp_path / "model.gguf", mmproj=tmp_path / "mmproj.gguf", format="f32")
    keys, found = stored(tmp_path / "mmproj.gguf")
    wanted = (
        stored(known.write_hearing(tmp_path / "a.gguf", theirs)),
        stored(known.write_tower(tmp_path / "v.gguf", theirs)),
    )
    assert set(found) == {name for _, tensors in wanted for name in tensors}
    for told, tensors in wanted:
        for name, values in tensors.items():
            assert np.abs(found[name] - values).max() < 1e-5, name
        for key in (key for key in told if key.startswith("clip.") and not SAID.search(key)):
            assert keys[key] == told[key], key
    assert not {"clip.vision.projector_type", "clip.audio.projector_type", "clip.use_gelu"} & set(keys)
    assert not made.notes or all("tie" in note for note in made.notes), made.notes
    text = convert(hub, tmp_path / "text.gguf", format="f32", vision=False).paths[0]
    assert stored(text)[1].keys() == stored(folder / "model.gguf")[1].keys()
