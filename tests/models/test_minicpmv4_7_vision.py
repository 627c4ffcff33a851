"""MiniCPM-V 4.7: positions of pictures, slices and markers are the class's, on any canvas; its embeddings, too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from minicpmv4_6_truth import MARKER, NEWLINE  # noqa: E402
from minicpmv4_7_truth import TOWERS  # noqa: E402
from test_minicpmv4_6_vision import assert_prepared, embed, pixels, rows  # noqa: E402
from vision_truth import MODES, opener, picture  # noqa: E402
from vision_truth import distance as off  # noqa: E402

from opsin.engine import rows as spelling  # noqa: E402
from opsin.engine.rows import PromptRows  # noqa: E402
from opsin.media.budget import PictureBudget  # noqa: E402
from opsin.media.decode import open_picture  # noqa: E402
from opsin.spans import MediaSpan, Prompt, block_keys  # noqa: E402

# Of one slice, of a row, a column and squares of them, and as long and thin as goes.
SIZES = ((48, 48), (30, 20), (96, 48), (48, 97), (145, 145), (200, 90), (301, 200), (400, 30), (3, 900))
SMALL = picture(20, 190, seed=1)


@pytest.fixture(scope="module", params=TOWERS)
def known(request):
    return TOWERS[request.param]


@pytest.fixture(scope="module")
def open_tower(device, known, truth, tmp_path_factory):
    return opener(device, truth, known.write_tower, tmp_path_factory.mktemp("canvas"))


@pytest.mark.parametrize("size", SIZES)
def test_pixels_of_all_slices_equal_the_processors(known, tower, size):
    assert_prepared(known, tower, picture(*size))


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_other_modes_equal_the_processors(known, tower, mode):
    assert_prepared(known, tower, picture(93, 61, mode))


def embedded(tower, given):
    return tower.encode(np.stack([rows(one) for one in given])).numpy()


def test_embeddings_equal_transformers(tower, truth):
    given = pixels(2)
    assert off(embedded(tower, given), embed(truth, given)) < 1e-4


def test_embeddings_from_halves_are_near(open_tower, truth):
    given = pixels(1)
    assert 1e-6 < off(embedded(open_tower(half=True), given), embed(truth, given)) < 5e-3


def texts(behind):
    return f"See {MARKER}{behind}or {MARKER}", "\nSo?"


def class_positions(known, truth, images, text):
    """Of all rows, [rows, 3], and their ids."""
    made = known.processor()(images=images, text=[text], return_tensors="pt")
    found, _ = truth.model.get_rope_index(made["input_ids"], made["mm_token_type_ids"], made["target_sizes"])
    return found[:, 0].T.numpy(), made["input_ids"][0].tolist()


def prompt_of(known, layouts, text):
    """Spans of a prompt, its newlines behind pictures counted here by hand."""
    tokenizer, spans = known.processor().tokenizer, []
    first, *runs = text.split(MARKER)
    for number, (patches, run) in enumerate(zip(layouts, runs, strict=True)):
        first += patches.numbered.format(number)
        for part in patches.parts:
            if isinstance(part, str):
                first += part
                continue
            spans += [tokenizer(first)["input_ids"], part]
            first = ""
        behind = tokenizer(run)["input_ids"]
        spans[-1] = spans[-1].ended_by(next((i for i, id in enumerate(behind) if id != NEWLINE), len(behind)))
        first += run
    return Prompt.of([*spans, tokenizer(first)["input_ids"]])


def distance(known, truth, tower, size, behind=" "):
    """Rows whose positions differ."""
    images, text = [picture(*size), SMALL], "".join(texts(behind))
    theirs, ids = class_positions(known, truth, images, text)
    layouts = [tower.layout(open_picture(image)) for image in images]
    ours = PromptRows(prompt_of(known, layouts, text), axes=3)
    assert ours.count == len(ids)
    return int((ours.positions(0, np.arange(len(ids), dtype=np.int32)) != theirs).any(1).sum())


@pytest.mark.parametrize("size", SIZES)
def test_positions_equal_the_classs(known, truth, tower, size):
    assert distance(known, truth, tower, size) == 0


@pytest.mark.parametrize("behind", ["\n", "\n\n", "\nx\n"])
def test_newlines_behind_a_picture_lie_where_its_canvas_begins(known, truth, tower, behind):
    assert distance(known, truth, tower, (145, 145), behind) == 0


def test_positions_go_on_behind_a_prompt(known, truth, tower):
    images, text = [picture(200, 90)], f"See {MARKER}, so"
    theirs, ids = class_positions(known, truth, images, text)
    ours = PromptRows(prompt_of(known, [tower.layout(open_picture(images[0]))], text), axes=3)
    assert ours.position(len(ids)) == theirs.max() + 1
    assert ours.positions(len(ids), np.array([len(ids)], np.int32)).max() == theirs.max() + 1


def test_a_canvas_is_part_of_the_keys(tower):
    """One whole picture of one digest, whose rows lie otherwise where other slices follow."""
    image, keys = open_picture(picture(200, 200)), set()
    for most in (None, tower.layout(image).rows - 1):
        patches = tower.layout(image.at(PictureBudget(max_image_tokens=most)))
        keys.add((patches.spans[0].digest, block_keys(Prompt.of(patches.spans[:1]), 4)[0], len(patches.spans)))
    assert len({digest for digest, _, _ in keys}) == 1
    assert len(keys) == 2


def markers(change):
    def apply(patch, span):
        return replace(span, canvas=replace(span.canvas, markers=tuple(map(change, span.canvas.markers))))

    return apply


MUTANTS = {
    "no canvas": lambda patch, span: replace(span, canvas=None),
    "the whole picture is not spread": lambda patch, span: replace(
        span, canvas=replace(span.canvas, size=span.grid)
    ),
    "slices lie on each other": lambda patch, span: replace(span, canvas=replace(span.canvas, corner=(0, 0))),
    "markers before are not moved": markers(lambda one: one if one[0] > 0 else (10**6, 0, 0, 0)),
    "markers behind are not moved": markers(lambda one: one if one[0] < 0 else (10**6, 0, 0, 0)),
    "newlines between slices are not moved": markers(lambda one: one if one[0] != -2 else (10**6, 0, 0, 0)),
    "rows and columns are exchanged": markers(lambda one: (*one[:2], one[3], one[2])),
    "text behind is a position late": lambda patch, span: replace(span, positions=span.positions + 1),
    "places are rounded down": lambda patch, span: patch.setattr(
        spelling, "_spread", lambda count, size: np.floor(np.linspace(0, size - 1, count)).astype(np.int32)
    ) or span,
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("known", ["minicpmv4_7"], indirect=True)
def test_mutant_is_seen(monkeypatch, known, truth, tower, mutant):
    class Wrong:
        def layout(self, picture):
            patches = tower.layout(picture)
            made = (MUTANTS[mutant](monkeypatch, p) if isinstance(p, MediaSpan) else p for p in patches.parts)
            return replace(patches, parts=tuple(made))

    assert distance(known, truth, Wrong(), (200, 301)) > 0
