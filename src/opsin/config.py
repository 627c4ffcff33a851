"""Options of a process: where caches live, which checks run. The only reader of the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from opsin.errors import RequestError

_WEIGHTS_GB = 32


@dataclass(frozen=True)
class Config:
    """Options that belong to a process and not to a request.

    Attributes:
        cache: folder for compiled kernels and other things that can be made again.
        check: put guards around buffers and poison freed ones (OPSIN_CHECK=1).
        cpu: compile for this LLVM CPU name instead of the machine's own (NUMBA_CPU_NAME).
        cpu_features: LLVM feature string that goes with `cpu` (NUMBA_CPU_FEATURES).
        isa: force one of the instruction sets that `opsin doctor` lists (OPSIN_ISA).
        threads: compute threads; None takes what affinity and cgroup allow (OPSIN_THREADS).
        weights: folder for packed weights; None keeps none (OPSIN_WEIGHTS).
        weights_most: bytes of that folder (OPSIN_WEIGHTS_GB).
        weights_least: bytes of a model's file that are worth it.
    """

    cache: Path
    check: bool = False
    cpu: str | None = None
    cpu_features: str | None = None
    isa: str | None = None
    threads: int | None = None
    spins: int = field(default=4000)
    weights: Path | None = None
    weights_most: int = _WEIGHTS_GB * 10**9
    weights_least: int = 64 << 20


def from_environment() -> Config:
    """Read the environment once. Unset or empty variables give the defaults."""
    named = os.environ.get("OPSIN_CACHE")
    cache = Path(named) if named else _default_cache()
    return Config(
        cache=cache,
        check=os.environ.get("OPSIN_CHECK", "") not in ("", "0"),
        cpu=os.environ.get("NUMBA_CPU_NAME") or None,
        cpu_features=os.environ.get("NUMBA_CPU_FEATURES") or None,
        isa=os.environ.get("OPSIN_ISA") or None,
        threads=_natural("OPSIN_THREADS"),
        weights=_weights(os.environ.get("OPSIN_WEIGHTS", ""), cache),
        weights_most=(_natural("OPSIN_WEIGHTS_GB") or _WEIGHTS_GB) * 10**9,
    )


def _natural(name: str) -> int | None:
    text = os.environ.get(name, "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise RequestError(f"{name}={text}", hint="give a whole number from 1 on, or unset it")
    return int(text)


def _weights(text: str, cache: Path) -> Path | None:
    if text in ("0", "off"):
        return None
    return expanded(text) if text else cache / "weights"


def tell_hub(*, token: str | None, offline: bool) -> None:
    """Set what `huggingface_hub` reads of the environment, the second when it is first imported."""
    if token:
        os.environ["HF_TOKEN"] = token
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


def tell_blas() -> None:
    """One thread of NumPy's BLAS, unless somebody has set how many, before it is imported.

    It starts one for each processor, which takes 0.05 seconds of a start, and multiplies little here: products of
    models are the device's.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def tell_ray(*, alone: bool) -> None:
    """What Ray reads of the environment when it is imported, unless an operator has set it.

    It tells nobody how it is used, and its processes, of which some are ours, are not behind all others of the machine.
    `alone`, where all its processes are children of this one, proxies, fronts and replicas speak gRPC with each other,
    which takes less time than calls of actors. All must do so: where the loop that calls is not the caller's own, as it
    is by itself, clients that leave silent streams are not noticed.
    """
    told = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    if alone:
        told |= {
            "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1", "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
            "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(1 << 30),
        }  # fmt: skip
    for name, value in told.items():
        os.environ.setdefault(name, value)


def server_variables() -> dict[str, str]:
    """What is set for llama-server, and the keys of other servers, by name. Empty values are there, too."""
    others = ("LLAMA_API_KEY", "LLAMA_MEDIA_MARKER", "LLAMA_CHAT_TEMPLATE_KWARGS", "OPSIN_API_KEY", "VLLM_API_KEY")
    return {name: value for name, value in os.environ.items() if name.startswith("LLAMA_ARG_") or name in others}


def factory_variables() -> dict[str, str]:
    """What is set for an ASGI host: OPSIN_SERVE_MODEL is `model`. Empty values are left out."""
    begin = "OPSIN_SERVE_"
    found = {name.removeprefix(begin).lower(): value for name, value in os.environ.items() if name.startswith(begin)}
    return {name: value for name, value in found.items() if value}


def ollama_folders() -> tuple[Path, ...]:
    """Where Ollama keeps models: OLLAMA_MODELS, else a user's folder and that of its service on Linux."""
    named = os.environ.get("OLLAMA_MODELS", "").strip().strip("'\"")
    if named:
        return (expanded(named),)
    return expanded("~/.ollama/models"), Path("/usr/share/ollama/.ollama/models")


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path that a person gave: a leading ~ is their home folder. It stays as it is where nobody has such a home."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise RequestError(f"a path of the type {type(path).__name__}", hint="give a str or a pathlib.Path")
    if not os.fspath(path):
        raise RequestError("an empty path", hint="give the name of a file")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_debugging() -> bool:
    """Whether the command and the server's log show tracebacks with all that is in them (OPSIN_DEBUG=1)."""
    return os.environ.get("OPSIN_DEBUG", "") not in ("", "0")


def _default_cache() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("opsin", appauthor=False))


def available_threads() -> int:
    """Processors that this process may use: its affinity mask, cut by the cgroup's CPU quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this platform
        count = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(count, int(quota)) if quota else count)


def _cgroup_quota() -> float | None:
    """CPUs allowed by cgroup v2 (cpu.max) or v1 (cpu.cfs_quota_us); None where there is no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text().strip()
            period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return max(1.0, int(quota) / int(period))
