"""Embeddings on disk: what an engine encoded, another one reads; what is damaged is encoded again."""

from __future__ import annotations

import os

import numpy as np
import pytest
from melody import Ear, melody
from prompts import LIMITS
from waiting import until

from opsin.engine.engine import Engine
from opsin.engine.media_cache import MediaCache
from opsin.engine.media_store import MediaStore
from opsin.engine.runner import Runner
from opsin.engine.sampling import Sampling
from opsin.errors import FileError
from opsin.spans import Prompt

GREEDY = Sampling(temperature=0.0, max_tokens=6)
ONE = np.arange(12, dtype=np.float32).reshape(3, 4)
HEAD = 32  # bytes before the values


def cache(folder, *, encoder=b"eye", width=4, most=1 << 20):
    return MediaCache(folder, encoder, width, most)


def files(folder):
    return sorted(folder.iterdir())


def age(path, seconds):
    os.utime(path, (seconds, seconds))


def test_what_one_kept_another_finds_to_the_bit(tmp_path):
    odd = np.array([[1e-45, -0.0, 3.4e38, 1 / 3]], np.float32)
    cache(tmp_path / "new" / "folder").keep(b"a", odd)
    found = cache(tmp_path / "new" / "folder").find(b"a", 1)
    assert found.tobytes() == odd.tobytes()
    assert (tmp_path / "new" / "folder").stat().st_mode & 0o077 == 0


def test_other_digests_encoders_and_sizes_find_nothing(tmp_path):
    cache(tmp_path).keep(b"a", ONE)
    assert cache(tmp_path).find(b"b", 3) is None
    assert cache(tmp_path, encoder=b"ear").find(b"a", 3) is None
    assert len(files(tmp_path)) == 1
    assert cache(tmp_path).find(b"a", 2) is None


@pytest.mark.parametrize("damage", [
    lambda data: data[:-1], lambda data: data + b"x", lambda data: b"", lambda data: data[:HEAD - 1],
    *(lambda data, at=at: data[:at] + bytes([data[at] ^ 1]) + data[at + 1:] for at in (0, 8, 24, 28, HEAD, HEAD + 47)),
])  # fmt: skip
def test_a_damaged_file_is_not_there_and_goes(tmp_path, damage):
    cache(tmp_path).keep(b"a", ONE)
    (path,) = files(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert cache(tmp_path).find(b"a", 3) is None
    assert files(tmp_path) == []


def test_links_and_pipes_are_not_followed(tmp_path):
    kept = cache(tmp_path / "kept")
    kept.keep(b"a", ONE)
    (path,) = files(tmp_path / "kept")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert kept.find(b"a", 3) is None
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert kept.find(b"a", 3) is None


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    kept = cache(tmp_path, most=400)  # of 80 bytes each
    (tmp_path / "somebody's notes").write_bytes(bytes(1000))
    for number in range(5):
        kept.keep(bytes([number]), ONE)
        for path in files(tmp_path):
            if path.stat().st_mtime > 1000:
                age(path, number + 1)
    assert kept.find(b"\0", 3) is not None
    kept.keep(b"new", ONE)
    found = [name for name in (b"\0", b"\1", b"\2", b"\3", b"\4", b"new") if kept.find(name, 3) is not None]
    assert found == [b"\0", b"\3", b"\4", b"new"]  # 320 of 400 bytes
    assert (tmp_path / "somebody's notes").exists()


def test_what_is_larger_than_all_is_not_kept(tmp_path):
    cache(tmp_path, most=79).keep(b"a", ONE)
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_one_is_told_at_once(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="cannot hold embeddings"):
        cache(tmp_path / "file")


@pytest.fixture
def ear(decoder):
    made = Ear(decoder[1].weights.token_embd.weight)
    made.gate.set()
    return made


def test_a_new_engine_reads_what_the_last_one_encoded(decoder, ear, tmp_path):
    tunes = [melody((3, 1, 4)), melody((1, 5)), melody((9, 2))]
    prompts = [Prompt.of([[7], tune, [8]]) for tune in tunes]
    width, answers, heard = decoder[1].media_width, [], []

    def answer(prompt, stored):
        with_disk = MediaCache(tmp_path, b"ear", width, 1 << 20)
        runner = Runner(*decoder, LIMITS, "f16", MediaStore(1 << 20, with_disk))
        engine = Engine(runner, frozenset(), ear.load(decoder[0]))
        answers.append([output.id for output in engine.submit(prompt, GREEDY)])
        assert until(lambda: len(list(tmp_path.glob("*.embeddings"))) == stored)
        engine.close()
        heard.append(ear.heard)
        return with_disk.found

    assert answer(prompts[0], 1) == 0
    assert answer(prompts[0], 1) == 1
    assert answer(Prompt.of([[7], tunes[0], [8]], b"another's"), 2) == 0
    assert answer(Prompt.of([[7], *tunes, [8]]), 4) == 1
    assert answers[0] == answers[1] == answers[2]
    assert heard == [1, 1, 2, 4]
    assert answer(Prompt.of([[7], *tunes, [8]]), 4) == 3
    assert answers[3] == answers[4]
    assert heard[-1] == 4
