"""What the cache had of a conversation, in a file: another process goes on from it, to the bit, or hears why not."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_sight import tiny_pair

import opsin
from opsin.api.prompt_options import PromptOptions
from opsin.api.row_files import erase_rows, restore_rows, save_rows
from opsin.errors import FileError, RequestError
from opsin.spans import Prompt

LONG = "one two three four five six seven eight nine ten " * 3
PICTURE = np.random.default_rng(1).integers(0, 255, (32, 32, 3), np.uint8)
MESSAGES = [{"role": "user", "content": [LONG, PICTURE, "what?"]}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("rows")
    tiny_pair(made)
    return made


def loaded(folder, **options):
    return opsin.load(folder / "model.gguf", **{"threads": 2, "context": 512, "sequences": 2, **options})


def ask(model, messages=MESSAGES, salt=b""):
    """The answer, and the prompt and its answer as one."""
    question = model.question(messages, PromptOptions(salt=salt))
    answer = model.generate(question, opsin.Sampling(temperature=0.0, max_tokens=4, ignore_eos=True))
    _ = answer.text
    return answer, question.prompt.gone_on(answer.ids)


@pytest.mark.parametrize("pages", ["f16", "q8_0", "q4_0", "f32"])
def test_another_process_goes_on_from_the_file(folder, tmp_path, pages):
    path = tmp_path / "rows"
    with loaded(folder, pages=pages) as model:
        first, prompt = ask(model)
        rows, size = save_rows(model, prompt, path)
    assert rows == len(prompt) - 1 > 100  # the last id was never computed
    assert size == path.stat().st_size
    with loaded(folder, pages=pages) as model:
        free = model.engine.pool.free
        restored = restore_rows(model, path)
        assert (restored.rows, restored.bytes, restored.prompt) == (rows, size, prompt)
        assert model.engine.pool.free == free
        model.engine.call(model.engine.pool.check)
        again, _ = ask(model)
        assert again.ids == first.ids
        assert again.usage.cached == again.prompt_tokens - 1
        assert model.engine._media.encoded == 0
        assert save_rows(model, prompt, tmp_path / "again") == (rows, size)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_what_is_erased_is_computed_again(folder):
    with loaded(folder) as model:
        first, prompt = ask(model)
        other, kept = ask(model, [{"role": "user", "content": "something else, " + LONG}])
        assert erase_rows(model, prompt) == len(prompt) - 1
        assert erase_rows(model, prompt) == 0
        model.engine.call(model.engine.pool.check)
        again, _ = ask(model)
        assert (again.usage.cached, again.ids) == (0, first.ids)
        assert save_rows(model, kept, model.path.with_name("kept"))[0] == len(kept) - 1
        assert other.usage.cached == 0


def test_a_salt_is_restored_with_its_rows(folder, tmp_path):
    with loaded(folder) as model:
        _, prompt = ask(model, salt=b"bob")
        save_rows(model, prompt, tmp_path / "rows")
        erase_rows(model, prompt)
        assert restore_rows(model, tmp_path / "rows").prompt.salt == b"bob"
        assert ask(model)[0].usage.cached == 0
        assert ask(model, salt=b"bob")[0].usage.cached > 100


def test_nothing_is_saved_and_restored_as_nothing(folder, tmp_path):
    with loaded(folder) as model:
        assert save_rows(model, Prompt((), b""), tmp_path / "none")[0] == 0
        assert restore_rows(model, tmp_path / "none").rows == 0
        with pytest.raises(FileError, match="cannot be written"):
            save_rows(model, Prompt((), b""), tmp_path / "no folder" / "none")


def test_files_that_go_while_they_are_counted_are_no_fault(folder, tmp_path):
    (tmp_path / ".saving-by-another").symlink_to("nowhere")
    with loaded(folder) as model:
        assert save_rows(model, Prompt((), b""), tmp_path / "none", most=1 << 20)[0] == 0
        with pytest.raises(RequestError, match="more than the 10 that may be saved"):
            save_rows(model, Prompt((), b""), tmp_path / "none", most=10)


def test_files_that_are_none_of_this_model_are_refused(folder, tmp_path):
    path = tmp_path / "rows"
    with loaded(folder) as model:
        save_rows(model, ask(model)[1], path)
        data = path.read_bytes()
        flipped = [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in (9, 45, 200, len(data) - 1)]
        damaged = [b"", data[:40], data[:-1], data + b"x", b"x" + data[1:], *flipped]
        for number, wrong in enumerate(damaged):
            (tmp_path / f"{number}").write_bytes(wrong)
            with pytest.raises(RequestError, match="damaged"):
                restore_rows(model, tmp_path / f"{number}")
        with pytest.raises(RequestError, match="cannot be read"):
            restore_rows(model, tmp_path / "nowhere")
        assert model.engine.pool.free == model.engine.pool.count
    for options, said in (({"pages": "q8_0"}, "another"), ({"vision": False}, "without an mmproj")):
        with loaded(folder, **options) as model, pytest.raises(RequestError, match=said):
            restore_rows(model, path)
    with loaded(folder, context=64, sequences=1) as model, pytest.raises(RequestError, match="do not fit"):
        restore_rows(model, path)
