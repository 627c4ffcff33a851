"""Films of families that see frames as pictures of their own kind: frames, texts, pixels and rows of transformers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from opsin.errors import RequestError
from opsin.media.budget import USUAL
from opsin.media.decode import open_picture
from opsin.media.film import FrameChoice
from opsin.models import film_layout
from opsin.models.idefics3 import in_words
from opsin.nn.films import fitted, tokens_of
from opsin.spans import MediaSpan, Patches

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import gemma4_vision_truth as gemma  # noqa: E402
import idefics3_truth as smol  # noqa: E402
import llava_next_truth as llava  # noqa: E402
import llava_onevision_truth  # noqa: E402
from test_films import film  # noqa: E402
from transformers.models.gemma4.processing_gemma4 import Gemma4Processor  # noqa: E402
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor  # noqa: E402
from transformers.models.smolvlm import processing_smolvlm  # noqa: E402
from transformers.video_utils import VideoMetadata, default_sample_indices_fn  # noqa: E402
from truths import TOWERS  # noqa: E402
from video_processors import Processor  # noqa: E402
from vision_truth import distance, opener, patch_rows, spelt  # noqa: E402

from opsin.gguf import File  # noqa: E402

ROW = "#"
FAMILIES = ("llava onevision", "idefics3", next(name for name in gemma.TOWERS))
ONE, SMOL, GEMMA = FAMILIES
LENGTHS = ((1, 1.0), (2, 1.0), (8, 2.0), (45, 30.0), (61, 1.0), (300, 30000 / 1001), (3000, 25.0))


def opened(name, device, folder):
    truth = TOWERS[name]
    model = truth.make()
    tower = opener(device, model, lambda path, made: truth.write(path, made), folder)()
    with File.open(folder / "tower.gguf") as file:
        return model, tower, film_layout(file)


@pytest.fixture(scope="module")
def towers(device, tmp_path_factory):
    return {name: opened(name, device, tmp_path_factory.mktemp("frames")) for name in FAMILIES}


def laid(towers, name, given):
    _, tower, lay_out = towers[name]
    return lay_out(tower, given)


def spans_of(parts):
    return [span for part in parts if isinstance(part, Patches) for span in part.spans]


def told(parts):
    return "".join(part if isinstance(part, str) else spelt(part, ROW) for part in parts)


def data_of(given, numbers):
    return VideoMetadata(
        len(given), given.rate, *given.size, duration=len(given) / given.rate, frames_indices=list(numbers)
    )


def smol_processor():
    look = {"size": {"longest_edge": smol.SIDE}, "max_image_size": {"longest_edge": smol.SIDE}}
    mean = {"image_mean": (0.5,) * 3, "image_std": (0.5,) * 3}
    return Processor("smolvlm", "SmolVLMVideoProcessor", **look, **mean, num_frames=64, fps=1)


def numbers_of(name, given):
    """The frames that transformers looks at."""
    if name == SMOL:
        return smol_processor().sample(given)
    if name == GEMMA:
        return default_sample_indices_fn(data_of(given, ()), num_frames=min(32, len(given))).tolist()
    count = min(len(given), 32, max(1, int(given.seconds)))  # its processor takes what it is given
    return np.linspace(0, len(given) - 1, count).round().astype(int).tolist()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("count", "rate"), LENGTHS)
def test_frames_and_texts_are_the_processors(towers, name, count, rate):
    given = film(count, rate, (96, 64))
    numbers = numbers_of(name, given)
    parts = laid(towers, name, given)
    rows = spans_of(parts)[0].rows
    inputs = {"video_metadata": [data_of(given, numbers)], "pixel_values": np.empty((1, len(numbers), 1))}
    if name == GEMMA:
        marks = SimpleNamespace(boi_token="<|image>", eoi_token="<image|>", video_token=ROW)
        wanted = Gemma4Processor.replace_video_token(marks, {"num_soft_tokens_per_video": [rows], **inputs}, 0)
    elif name == SMOL:
        marks = SimpleNamespace(
            image_seq_len=rows, image_token=ROW, fake_image_token="<fake_token_around_image>",
            global_image_token="<global-img>",
        )  # fmt: skip
        with patch.object(processing_smolvlm, "num2words", in_words):
            wanted = processing_smolvlm.SmolVLMProcessor.replace_video_token(marks, inputs, 0)
    else:
        marks = SimpleNamespace(num_image_tokens=llava.GRID**2, video_token=ROW)
        frames = {"pixel_values_videos": [np.empty((len(numbers), 1))]}
        wanted = LlavaOnevisionProcessor.replace_video_token(marks, frames, 0)
    assert told(parts) == wanted


def test_counts_are_said_in_english():
    said = {0: "zero", 7: "seven", 13: "thirteen", 20: "twenty", 42: "forty-two", 100: "one hundred",
            101: "one hundred and one", 768: "seven hundred and sixty-eight", 1000: "one thousand",
            1001: "one thousand and one", 1234: "one thousand, two hundred and thirty-four"}  # fmt: skip
    assert {number: in_words(number) for number in said} == said


@pytest.mark.parametrize("size", [(48, 48), (96, 64), (50, 120), (301, 200)])
def test_pixels_are_the_processors(towers, size):
    given = film(3, 1.0, size)
    frames = [span.features.make() for span in spans_of(laid(towers, SMOL, given))]
    theirs = smol_processor()(given, range(3), do_pad=False)["pixel_values"][0].numpy()
    for ours, wanted in zip(frames, theirs, strict=True):
        wanted = patch_rows(wanted, smol.PATCH, smol.FOLD)
        assert np.abs(ours.reshape(wanted.shape) - wanted).max() <= 1e-5
    frames = [span.features.make() for span in spans_of(laid(towers, GEMMA, given))]
    pictures = gemma.processor().image_processor(
        [given.decode(n) for n in range(3)], max_soft_tokens=70, return_tensors="np"
    )
    for ours, span, wanted in zip(frames, spans_of(laid(towers, GEMMA, given)), pictures["pixel_values"], strict=True):
        high, wide, values = ours.shape
        rows = ours.reshape(span.grid[0], span.grid[1], gemma.POOL, gemma.POOL, 3, gemma.PATCH**2)
        rows = rows.transpose(0, 2, 1, 3, 5, 4).reshape(high * wide, values)
        assert np.abs(rows - wanted[: high * wide]).max() <= 1e-5


@pytest.mark.parametrize("size", [(32, 32), (96, 64), (50, 120)])
def test_embeddings_of_onevisions_frames_are_the_classs(towers, size):
    model, tower, _ = towers[ONE]
    given = film(3, 1.0, size)
    side = {"height": llava.WIDE_SIDE, "width": llava.WIDE_SIDE}
    mean = {"image_mean": tower.preparation.mean, "image_std": tower.preparation.std}
    theirs = Processor("llava_onevision", "LlavaOnevisionVideoProcessor", size=side, **mean)
    cut = {"do_center_crop": False, "crop_size": None}
    pixels = theirs(given, range(3), **cut)["pixel_values_videos"]
    with torch.inference_mode():
        wanted = model.get_video_features(pixels).pooler_output[0].numpy()
    spans = spans_of(laid(towers, ONE, given))
    made = np.concatenate([tower.encode(span.features.make()[None]).numpy() for span in spans])
    # Torch and Pillow round a resized sample now and then to neighbours, see the tests of other films.
    assert distance(made, wanted) < (1e-4 if size == (32, 32) else 0.05)
    together = np.stack([span.features.make() for span in spans[:-1]])
    assert np.array_equal(tower.encode(together).numpy(), made[:-1])
    assert np.array_equal(made[-1], tower.newline)


def test_a_thin_picture_among_several_is_refused_before_its_square_is_made(towers):
    picture = open_picture(Image.new("RGB", (1, 20_000)))
    with pytest.raises(RequestError, match="less long and thin"):
        towers[ONE][1].layout(replace(picture, several=True))


@pytest.mark.parametrize("size", [(32, 32), (96, 64), (50, 120), (1, 30), (301, 200)])
def test_one_of_several_pictures_is_a_square_of_the_processors(towers, size):
    model, tower, _ = towers[ONE]
    given = film(2, 1.0, size)
    images = [given.decode(number) for number in range(2)]
    inputs = llava_onevision_truth.onevision_processor().image_processor([images], return_tensors="pt")
    patches = [tower.layout(replace(open_picture(image), several=True)) for image in images]
    with torch.inference_mode():
        wanted = torch.cat(list(model.get_image_features(**inputs).pooler_output)).numpy()
    spans = [span for one in patches for span in one.spans]
    assert [span.rows for span in spans] == [llava.GRID**2, 1] * 2
    made = np.concatenate([tower.encode(span.features.make()[None]).numpy() for span in spans])
    assert distance(made, wanted) < 1e-4
    assert spans[1].digest == spans[3].digest
    assert spans[0].digest != spans[2].digest


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_is_decoded_before_it_is_encoded_and_all_is_fitted(towers, name):
    def refuse(number: int):
        raise AssertionError(number)

    given = film(600, 1.0, (640, 360))
    object.__setattr__(given, "decode", refuse)
    all_rows = tokens_of(laid(towers, name, given))
    for most in (all_rows - 1, all_rows // 5):
        less = given.asked(FrameChoice(max_video_tokens=most), USUAL)
        assert 0 < tokens_of(fitted(lambda one: laid(towers, name, one), less)) <= most
    digests = [span.digest for span in spans_of(laid(towers, name, given)) if isinstance(span, MediaSpan)]
    assert len(set(digests)) == len(digests)
