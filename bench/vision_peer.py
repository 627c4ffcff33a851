"""A peer as a process that encodes tiles and answers whole requests when it is told to; for `vision.py`.

    python bench/vision_peer.py LIBRARY TEXT MMPROJ --threads 2 [--no-flash]

LIBRARY is libllama, of llama.cpp or of ik_llama.cpp; libmtmd lies beside it. It reads a line of JSON a task and writes
a line of JSON a result. Both programs are given pixels and the ids of the same prompt, so that neither tokenizes, and
both take the same rows.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import time
from ctypes import c_bool, c_char_p, c_float, c_int, c_int32, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from peer import PeerError, clear_context, describe_calls, open_context, open_library
from vision_tasks import SIDE, Floats, answer_tasks, picture

CONTEXT, IMAGE = 2048, 1


class _Parameters(ctypes.Structure):
    """Of libmtmd, b11434."""

    _fields_ = (
        ("use_gpu", c_bool),
        ("device", c_void_p),
        ("print_timings", c_bool),
        ("threads", c_int),
        ("image_marker", c_char_p),
        ("media_marker", c_char_p),
        ("flash", c_int),
        ("warmup", c_bool),
        ("least_tokens", c_int),
        ("most_tokens", c_int),
        ("callback", c_void_p),
        ("callback_data", c_void_p),
        ("batch_tokens", c_int32),
        ("progress", c_void_p),
        ("progress_data", c_void_p),
    )


class _Text(ctypes.Structure):
    _fields_ = (("text", c_char_p), ("length", c_size_t), ("add_special", c_bool), ("parse_special", c_bool))


class _OlderParameters(ctypes.Structure):
    """Of the libmtmd of ik_llama.cpp, 8337e4c."""

    _fields_ = (
        ("use_gpu", c_bool),
        ("print_timings", c_bool),
        ("threads", c_int),
        ("verbosity", c_int),
        ("image_marker", c_char_p),
        ("media_marker", c_char_p),
        ("flash", c_int),
        ("least_tokens", c_int),
        ("most_tokens", c_int),
        ("kind_of_scores", c_int),
    )


class _OlderText(ctypes.Structure):
    _fields_ = (("text", c_char_p), ("add_special", c_bool), ("parse_special", c_bool))


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "mtmd_context_params_default": (_Parameters, []),
    "mtmd_init_from_file": (c_void_p, [c_char_p, c_void_p, _Parameters]),
    "mtmd_bitmap_init": (c_void_p, [c_uint32, c_uint32, c_char_p]),
    "mtmd_bitmap_free": (None, [c_void_p]),
    "mtmd_input_chunks_init": (c_void_p, []),
    "mtmd_input_chunks_size": (c_size_t, [c_void_p]),
    "mtmd_input_chunks_get": (c_void_p, [c_void_p, c_size_t]),
    "mtmd_input_chunks_free": (None, [c_void_p]),
    "mtmd_input_chunk_get_type": (c_int, [c_void_p]),
    "mtmd_input_chunk_get_n_tokens": (c_size_t, [c_void_p]),
    "mtmd_tokenize": (c_int32, [c_void_p, c_void_p, ctypes.POINTER(_Text), ctypes.POINTER(c_void_p), c_size_t]),
    "mtmd_encode_chunk": (c_int32, [c_void_p, c_void_p]),
    "mtmd_get_output_embd": (ctypes.POINTER(c_float), [c_void_p]),
    "mtmd_helper_decode_image_chunk": (
        c_int32,
        [c_void_p] * 3 + [ctypes.POINTER(c_float), c_int32, c_int32, c_int32]
        + [ctypes.POINTER(c_int32), c_void_p, c_void_p],
    ),
    "mtmd_helper_log_set": (None, [c_void_p, c_void_p]),
}  # fmt: skip
_OLDER: dict[str, tuple[Any, list[Any]]] = {
    "mtmd_context_params_default": (_OlderParameters, []),
    "mtmd_init_from_file": (c_void_p, [c_char_p, c_void_p, _OlderParameters]),
    "mtmd_tokenize": (c_int32, [c_void_p, c_void_p, ctypes.POINTER(_OlderText), ctypes.POINTER(c_void_p), c_size_t]),
}
_ERRORS = 4  # of ggml's levels of a log
_LOG = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)
_SILENCE = _LOG(lambda level, text, data: None)


class Seeing:
    """A text model and a tower in a peer."""

    def __init__(self, library: Path, text: Path, tower: Path, *, threads: int, flash: bool) -> None:
        self.llama = open_library(library)
        self.mtmd: Any = ctypes.CDLL(str(library.with_name("libmtmd.so")))
        self.is_older = not hasattr(self.mtmd, "mtmd_helper_log_set")
        describe_calls(self.mtmd, _SIGNATURES | _OLDER if self.is_older else _SIGNATURES)
        model = self.llama.llama_model_load_from_file(str(text).encode(), self.llama.llama_model_default_params())
        if not model:
            raise PeerError(f"llama.cpp cannot load {text}")
        self.context = self._needed(open_context(self.llama, model, CONTEXT), text)
        self.llama.llama_set_n_threads(self.context, threads, threads)
        self.vocabulary = self.llama.llama_vocab_n_tokens(self.llama.llama_model_get_vocab(model))
        wanted = self.mtmd.mtmd_context_params_default()
        wanted.use_gpu, wanted.threads, wanted.flash = False, threads, int(flash)
        if self.is_older:
            wanted.verbosity = _ERRORS
        else:
            self.mtmd.mtmd_helper_log_set(ctypes.cast(_SILENCE, c_void_p), None)
        self.tower = self._needed(self.mtmd.mtmd_init_from_file(str(tower).encode(), model, wanted), tower)

    @staticmethod
    def _needed(made: int | None, path: Path) -> int:
        if not made:
            raise PeerError(f"llama.cpp cannot load {path}")
        return made

    def prepare(self, number: int, side: int = SIDE) -> tuple[int, list[int]]:
        """What must be freed, and the chunks of a picture: its tiles."""
        pixels = picture(number, side)
        high, wide, _ = pixels.shape
        bitmap = c_void_p(self.mtmd.mtmd_bitmap_init(wide, high, pixels.tobytes()))
        chunks = self.mtmd.mtmd_input_chunks_init()
        marker = b"<__media__>"
        text = _OlderText(marker, False, True) if self.is_older else _Text(marker, len(marker), False, True)
        status = self.mtmd.mtmd_tokenize(self.tower, chunks, ctypes.byref(text), ctypes.byref(bitmap), 1)
        if status:
            raise PeerError(f"mtmd_tokenize gave {status}")
        self.mtmd.mtmd_bitmap_free(bitmap)
        every = [self.mtmd.mtmd_input_chunks_get(chunks, i) for i in range(self.mtmd.mtmd_input_chunks_size(chunks))]
        tiles = [chunk for chunk in every if self.mtmd.mtmd_input_chunk_get_type(chunk) == IMAGE]
        if not tiles:
            raise PeerError("mtmd_tokenize made no chunk of a picture")
        return chunks, tiles

    def encode(self, task: dict[str, Any]) -> dict[str, Any]:
        """Tiles one after another: libmtmd makes no batches of this family."""
        made = [self.prepare(number, task.get("side", SIDE)) for number in task["pictures"]]
        tiles = [tile for _, some in made for tile in some]
        began = time.perf_counter()
        for tile in tiles:
            self._encode(tile)
        seconds = time.perf_counter() - began
        every = [self.mtmd.mtmd_input_chunk_get_n_tokens(tile) for tile in tiles]
        rows = every[-1]
        if task.get("file"):
            values: Floats = np.ctypeslib.as_array(self.mtmd.mtmd_get_output_embd(self.tower), (rows, task["width"]))
            np.save(task["file"], values)
        for chunks, _ in made:
            self.mtmd.mtmd_input_chunks_free(chunks)
        return {"seconds": seconds, "rows": sum(every)}

    def _encode(self, chunk: int) -> None:
        status = self.mtmd.mtmd_encode_chunk(self.tower, chunk)
        if status:
            raise PeerError(f"mtmd_encode_chunk gave {status}")

    def request(self, task: dict[str, Any]) -> dict[str, Any]:
        """A prompt of ids and one picture, then `tokens` greedy tokens. Preparing the picture is timed apart."""
        began = time.perf_counter()
        chunks, (chunk, *_) = self.prepare(task["picture"])
        prepared = time.perf_counter()
        clear_context(self.llama, self.context)
        row = 0
        for part in task["prompt"]:
            row = self._decode(part, row) if part else self._see(chunk, row)
        ids = [self._best()]
        first = time.perf_counter()
        while len(ids) < task["tokens"]:
            row = self._decode(ids[-1:], row)
            ids.append(self._best())
        ended = time.perf_counter()
        self.mtmd.mtmd_input_chunks_free(chunks)
        return {
            "seconds": ended - prepared, "first": first - prepared, "preparation": prepared - began, "ids": ids,
        }  # fmt: skip

    def _see(self, chunk: int, row: int) -> int:
        self._encode(chunk)
        new, values = c_int32(row), self.mtmd.mtmd_get_output_embd(self.tower)
        status = self.mtmd.mtmd_helper_decode_image_chunk(
            self.tower, self.context, chunk, values, row, 0, CONTEXT, ctypes.byref(new), None, None
        )
        if status:
            raise PeerError(f"mtmd_helper_decode_image_chunk gave {status}")
        return new.value

    def _decode(self, ids: list[int], row: int) -> int:
        batch = self.llama.llama_batch_init(len(ids), 0, 1)
        batch.rows = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.position[i], batch.wanted[i] = token, row + i, i == len(ids) - 1
            batch.sequence_count[i], batch.sequence[i][0] = 1, 0
        status = self.llama.llama_decode(self.context, batch)
        self.llama.llama_batch_free(batch)
        if status:
            raise PeerError(f"llama_decode gave {status}")
        return row + len(ids)

    def _best(self) -> int:
        logits = self.llama.llama_get_logits(self.context)
        return int(np.ctypeslib.as_array(logits, (self.vocabulary,)).argmax())


def main() -> None:
    """Answer until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("library", "text", "tower"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-flash", dest="flash", action="store_false")
    args = parser.parse_args()
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that write to stdout do not answer
    seeing = Seeing(args.library, args.text, args.tower, threads=args.threads, flash=args.flash)
    answer_tasks({"encode": seeing.encode, "request": seeing.request})


if __name__ == "__main__":
    main()
