"""llama.cpp's embeddings of a picture: `python mtmd_reference.py MODEL MMPROJ PICTURE.npy OUT.npz [LIBRARY]`.

Runs in a process of its own, because a file that llama.cpp does not like may end it. Its library is called through C;
parameters are blocks of bytes that it fills itself, larger than any of its versions needs.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MARKER, IMAGE = b"<__media__>", 1  # what stands for a picture; the kind of its chunks


class Parameters(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint8 * 1024)]


class Text(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char_p), ("length", ctypes.c_size_t), ("special", ctypes.c_bool * 2)]


def library() -> str:
    """xllamacpp's library."""
    import xllamacpp

    return str(next(Path(xllamacpp.__file__).parent.glob("xllamacpp*.so")))


def embeddings(model: Path, mmproj: Path, picture: NDArray[np.uint8], folder: Path, name: str = "") -> list[NDArray]:
    """Embeddings [rows, width] of each chunk that llama.cpp makes of a picture [height, width, 3]."""
    np.save(folder / "picture.npy", picture)
    out = folder / "embeddings.npz"
    words = [sys.executable, __file__, str(model), str(mmproj), str(folder / "picture.npy"), str(out), name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=800, check=False)
    if done.returncode:
        raise RuntimeError(f"llama.cpp ended with {done.returncode}: {done.stderr[-2000:]}")
    with np.load(out) as found:
        return [found[str(i)] for i in range(len(found.files))]


def main() -> None:
    model, mmproj, picture, out, name = sys.argv[1:]
    c = ctypes.CDLL(name or library())
    for function in ("llama_model_default_params", "mtmd_context_params_default"):
        getattr(c, function).restype = Parameters
    pointers = ("llama_model_load_from_file", "mtmd_init_from_file", "mtmd_bitmap_init", "mtmd_input_chunks_init",
                "mtmd_input_chunks_get", "mtmd_get_output_embd")  # fmt: skip
    for function in pointers:
        getattr(c, function).restype = ctypes.c_void_p
    c.mtmd_input_chunks_size.restype = c.mtmd_input_chunk_get_n_tokens.restype = ctypes.c_size_t
    c.llama_backend_init()
    text = c.llama_model_load_from_file(model.encode(), c.llama_model_default_params())
    assert text, "the model does not load"
    context = ctypes.c_void_p(
        c.mtmd_init_from_file(mmproj.encode(), ctypes.c_void_p(text), c.mtmd_context_params_default())
    )
    assert context, "the mmproj does not load"
    pixels = np.ascontiguousarray(np.load(picture))
    bitmap = c.mtmd_bitmap_init(pixels.shape[1], pixels.shape[0], pixels.ctypes.data_as(ctypes.c_void_p))
    chunks = ctypes.c_void_p(c.mtmd_input_chunks_init())
    said = Text(MARKER, len(MARKER), (ctypes.c_bool * 2)(False, True))
    refused = c.mtmd_tokenize(context, chunks, ctypes.byref(said), (ctypes.c_void_p * 1)(bitmap), ctypes.c_size_t(1))
    assert not refused, f"mtmd_tokenize gives {refused}"
    width = c.llama_model_n_embd_inp(ctypes.c_void_p(text))
    found = {}
    for i in range(c.mtmd_input_chunks_size(chunks)):
        chunk = ctypes.c_void_p(c.mtmd_input_chunks_get(chunks, ctypes.c_size_t(i)))
        if c.mtmd_input_chunk_get_type(chunk) != IMAGE:
            continue
        assert not c.mtmd_encode_chunk(context, chunk), "the picture is not encoded"
        rows = c.mtmd_input_chunk_get_n_tokens(chunk)
        values = ctypes.cast(c.mtmd_get_output_embd(context), ctypes.POINTER(ctypes.c_float))
        found[str(len(found))] = np.ctypeslib.as_array(values, (rows, width)).copy()
    np.savez(out, **found)


if __name__ == "__main__":
    main()
