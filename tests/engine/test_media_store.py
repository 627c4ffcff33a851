"""Embeddings are kept by digest, up to a number of bytes, the least used going first."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.engine.media_store import MediaStore
from opsin.ops.reference import Reference

WIDTH = 4
ROW = 4 * WIDTH


def put(store, *digests, rows=2):
    array = Reference().constant(np.zeros((rows * len(digests), WIDTH), np.float32))
    store.put([digest.encode() for digest in digests], array, rows)


def kept(store):
    return {digest for digest in "abcdef" if digest.encode() in store}


def test_each_digest_has_its_rows_of_what_was_encoded_together():
    store = MediaStore(1000)
    put(store, "a", "b", "c")
    found = [store.get(digest) for digest in (b"a", b"b", b"c")]
    assert [(part.row, part.rows) for part in found] == [(0, 2), (2, 2), (4, 2)]
    assert len({id(part.array) for part in found}) == 1


def test_what_is_not_there_is_not_found():
    with pytest.raises(KeyError):
        MediaStore(10).get(b"a")


def test_the_least_recently_used_goes_first():
    store = MediaStore(3 * 2 * ROW)
    for digest in "abcd":
        put(store, digest)
    store.get(b"a")
    store.trim(set())
    assert kept(store) == {"a", "c", "d"}
    assert store.used_bytes == store.limit


def test_what_is_needed_stays_beyond_the_limit():
    store = MediaStore(0)
    put(store, "a")
    put(store, "b")
    store.trim({b"a"})
    assert kept(store) == {"a"}
    store.trim(set())
    assert store.used_bytes == 0


def test_bytes_are_free_when_the_last_of_a_batch_goes():
    store = MediaStore(ROW)
    put(store, "a", "b")
    assert store.used_bytes == 4 * ROW
    store.trim({b"b"})
    assert kept(store) == {"b"}
    assert store.used_bytes == 4 * ROW
    store.trim(set())
    assert store.used_bytes == len(store) == 0


def test_a_digest_that_comes_again_replaces_the_old_one():
    store = MediaStore(1000)
    put(store, "a")
    put(store, "a", rows=3)
    assert store.get(b"a").rows == 3
    assert store.used_bytes == 3 * ROW
