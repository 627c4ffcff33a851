"""How ids are chosen: one request's sampling options, in the names that llama-server gives them.

Thread: anybody's; it never changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from numbers import Integral, Real
from typing import Final

import numpy as np
import numpy.typing as npt

from opsin.arrays import Floats
from opsin.errors import RequestError

Processor = Callable[[npt.NDArray[np.int32], Floats], Floats | None]
Bias = tuple[int | str, float]  # of an id, or of all ids of a text

SAMPLERS: Final = ("penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature")
BREAKERS: Final = ("\n", ":", '"', "*")
_LETTERS: Final = {
    "e": "penalties", "d": "dry", "s": "top_n_sigma", "k": "top_k", "y": "typ_p", "p": "top_p", "m": "min_p",
    "x": "xtc", "t": "temperature", "a": "adaptive_p",
}  # fmt: skip
_ALIASES: Final = {"temp": "temperature", "typ": "typ_p", "typical_p": "typ_p", "typical": "typ_p", "nucleus": "top_p"}
_MOST = 1 << 31
_ANY: Final = (-1e30, 1e30)
# Where a number may lie. Both ends are included.
_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "temperature": (0, 1e30), "dynatemp_range": (0, 1e30), "dynatemp_exponent": (0, 1e6),
    "top_p": (0, 1), "min_p": (0, 1), "typical_p": (0, 1), "top_n_sigma": _ANY,
    "xtc_probability": (0, 1), "xtc_threshold": (0, 1),
    "repeat_penalty": (1e-30, 1e30), "presence_penalty": _ANY, "frequency_penalty": _ANY,
    "dry_multiplier": _ANY, "dry_base": (1, 1e30), "mirostat_tau": _ANY, "mirostat_eta": _ANY,
    "adaptive_target": (-1e30, 1), "adaptive_decay": (0, 0.99),
}  # fmt: skip
_WHOLE: Final[Mapping[str, tuple[int, int]]] = {
    "top_k": (0, _MOST), "repeat_last_n": (-1, _MOST), "dry_allowed_length": (0, _MOST),
    "dry_penalty_last_n": (-1, _MOST), "mirostat": (0, 2), "min_keep": (0, _MOST), "min_tokens": (0, _MOST),
    "seed": (0, (1 << 64) - 1), "max_tokens": (0, _MOST), "logprobs": (0, _MOST),
}  # fmt: skip
# What each step has to look at is bounded: one request's lists are no burden to others.
MOST_BIASES: Final = 1 << 14
MOST_ALLOWED: Final = 1 << 20
MOST_ENDS: Final = 1 << 10
MOST_WORDS: Final = 1 << 8
MOST_BREAKERS: Final = 1 << 6
MOST_SAMPLERS: Final = 20


@dataclass(frozen=True)
class Sampling:
    """Sampling options of one request, in the names, order and meaning that llama-server gives them.

    Attributes:
        temperature: divides logits; 0 for greedy.
        top_k: keep the k likeliest ids; 0 keeps all.
        top_p: keep the likeliest ids whose probabilities sum to p (Holtzman et al. 2020).
        min_p: keep ids at least this share of the likeliest one's probability (Nguyen et al. 2024).
        seed: None for a random one.
        max_tokens: end after so many ids; None for as many as the context holds.
        ignore_eos: go on past end-of-turn ids.
        logprobs: tell the log-probability of each id, and of so many likeliest ones; None tells none.
        post_sampling_probs: let these be of what is drawn from in the end, and not of the model's own logits.
        typical_p: keep ids whose surprise is nearest to the expected one, up to this probability; 1 keeps all
            (Meister et al. 2022).
        top_n_sigma: keep ids within so many standard deviations of the largest logit; 0 and less keep all
            (Tang et al. 2024).
        dynatemp_range: let the temperature lie so far below or above, as certain or uncertain the model is, and
        dynatemp_exponent: how its entropy is bent on the way.
        xtc_probability: how often to leave out all likely ids but the least likely of them, and
        xtc_threshold: the probability from which an id counts as likely.
        repeat_penalty: divides positive logits of ids seen before, and multiplies others (Keskar et al. 2019).
        presence_penalty: is taken from logits of ids seen before, and
        frequency_penalty: for each time that they were seen.
        repeat_last_n: how many last ids of prompt and answer these look at; -1 for all.
        dry_multiplier: how strongly to keep a run of ids from being said again ("don't repeat yourself"); 0 for not,
        dry_base: what it grows with, to the power of the run's length above
        dry_allowed_length: which may be repeated freely, among
        dry_penalty_last_n: last ids of prompt and answer, -1 for all.
        dry_sequence_breakers: texts that no run reaches across.
        mirostat: 1 or 2 for the algorithm that holds the surprise of answers constant, in place of all samplers but
            the temperature; 0 for none (Basu et al. 2021).
        mirostat_tau: the surprise to hold, in bits, and
        mirostat_eta: how fast to steer for it.
        adaptive_target: where `samplers` names adaptive_p: the probability that ids shall have on average; below 0 any,
        adaptive_decay: how slowly it forgets those that were chosen.
        samplers: which act, and in which order: names or their letters, as "edskypmxt".
        min_keep: ids that no sampler of those who cut by probability goes below.
        logit_bias: what is added to logits: {id or text: number, or False for never}; all ids of a text get it.
        min_tokens: no end of the answer before so many ids.
        stop_token_ids: ids that end the answer, beside the model's own.
        bad_words: texts that are never written.
        allowed_token_ids: the only ids that may be chosen; empty for all.
        processors: functions of all ids so far [n], without pictures, and a copy of the logits [vocabulary], which they
            change, or return others for. They act before all else, on the engine's thread: all answers wait for them.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int | None = None
    max_tokens: int | None = None
    ignore_eos: bool = False
    logprobs: int | None = None
    post_sampling_probs: bool = False
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_last_n: int = 64
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    dry_sequence_breakers: Sequence[str] = BREAKERS
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    adaptive_target: float = -1.0
    adaptive_decay: float = 0.9
    samplers: Sequence[str] = SAMPLERS
    min_keep: int = 0
    logit_bias: Mapping[int | str, float | bool] | Sequence[Bias] = ()
    min_tokens: int = 0
    stop_token_ids: Sequence[int] = ()
    bad_words: Sequence[str] = ()
    allowed_token_ids: Sequence[int] = ()
    processors: Sequence[Processor] = ()

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is not _DEFAULTS[name]:
                object.__setattr__(self, name, check(name, value))

    @property
    def biases(self) -> Sequence[Bias]:
        """`logit_bias`, in order; what is never to be chosen has minus infinity."""
        return self.logit_bias  # type: ignore[return-value]  # so it stands once it is checked


_DEFAULTS: Final = {field.name: field.default for field in fields(Sampling)}
NAMES: Final = tuple(_DEFAULTS)


def read_samplers(given: object) -> tuple[str, ...]:
    """Names of samplers in their order, from names as they are written here and there, or from letters.

    Raises RequestError for what is none.
    """
    if isinstance(given, str):
        wrong = next((letter for letter in given if letter not in _LETTERS), None)
        if wrong is not None:
            told = f"samplers: {wrong!r:.80} is no sampler's letter"
            raise _refusal("samplers", told, f"give some of {_some_letters()}")
        listed = [_LETTERS[letter] for letter in given[: MOST_SAMPLERS + 1]]
    else:
        listed = [_sampler(name) for name in _listed("samplers", given, MOST_SAMPLERS)]
    if len(listed) > MOST_SAMPLERS:
        raise _refusal("samplers", f"samplers: {len(listed)} of them", f"give at most {MOST_SAMPLERS}")
    return tuple(listed)


def _sampler(name: object) -> str:
    known = (*SAMPLERS, "adaptive_p")
    if isinstance(name, str):
        plain = name[:80].lower().replace("-", "_")
        plain = _ALIASES.get(plain, plain)
        found = next((one for one in known if plain in (one, one.replace("_", ""))), None)
        if found is not None:
            return found
    raise _refusal("samplers", f"samplers: {name!r:.80} is no sampler", f"give some of {', '.join(known)}")


def _some_letters() -> str:
    return ", ".join(f"{letter} ({name})" for letter, name in _LETTERS.items())


def _biases(name: str, given: object) -> tuple[Bias, ...]:
    pairs = list(given.items()) if isinstance(given, Mapping) else _listed(name, given, MOST_BIASES)
    if len(pairs) > MOST_BIASES:
        raise _refusal(name, f"{name}: {len(pairs)} of them", f"give at most {MOST_BIASES}")
    found: list[Bias] = []
    for pair in pairs:
        token, bias = pair if isinstance(pair, tuple | list) and len(pair) == 2 else (None, None)
        if not isinstance(token, str) and not _is_whole(token, 0, _MOST):
            raise _refusal(name, f"{name}: {pair!r:.80}", "give {id or text: number}")
        if bias is False:
            bias = -math.inf
        if bias != -math.inf and not _is_number(bias, *_ANY):
            raise _refusal(name, f"{name}: {pair!r:.80}", "give a number, or False for never")
        found.append((token if isinstance(token, str) else int(token), float(bias)))  # type: ignore[arg-type]
    return tuple(found)


def _flag(name: str, given: object) -> bool:
    if not isinstance(given, bool):
        raise _refusal(name, f"{name}={given!r:.80}", "give True or False")
    return given


def _texts(name: str, given: object, most: int) -> tuple[str, ...]:
    listed = _listed(name, given, most)
    if not all(isinstance(text, str) and text for text in listed):
        raise _refusal(name, f"{name}={given!r:.80}", 'give a list of texts, as ["so"]')
    return tuple(listed)  # type: ignore[arg-type]


def _ids(name: str, given: object, most: int) -> tuple[int, ...]:
    listed = _listed(name, given, most)
    for id in listed:
        if not _is_whole(id, 0, _MOST):
            raise _refusal(name, f"{name}: {id!r:.80} is no id", "give a list of whole numbers")
    return tuple(int(id) for id in listed)  # type: ignore[call-overload]


def _processors(name: str, given: object) -> tuple[Processor, ...]:
    listed = _listed(name, given, MOST_WORDS)
    if not all(callable(one) for one in listed):
        raise _refusal(name, f"{name}={given!r:.80}", "give a list of functions of ids and logits")
    return tuple(listed)  # type: ignore[arg-type]


def _listed(name: str, given: object, most: int) -> list[object]:
    if isinstance(given, np.ndarray) and given.ndim == 1:
        given = given.tolist()
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise _refusal(name, f"{name}={given!r:.80}", "give a list")
    if len(given) > most:
        raise _refusal(name, f"{name}: {len(given)} of them", f"give at most {most}")
    return list(given)


def _refusal(name: str, message: str, hint: str) -> RequestError:
    error = RequestError(message, hint=hint)
    error.param = name
    return error


def _within(name: str, value: object, *, low: float, high: float, whole: bool = False) -> object:
    if not (_is_whole(value, low, high) if whole else _is_number(value, low, high)):
        wanted = f"a whole number, {low} to {high}" if whole else f"{low:g} to {high:g}"
        raise _refusal(name, f"{name}={value!r:.80}", f"give {wanted}")
    return value


def _is_whole(value: object, low: float, high: float) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and low <= int(value) <= high


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and bool(low <= value <= high)  # type: ignore[operator]


# What an option must be that is not left at its default, and the form in which it is kept.
_CHECKS: Final[Mapping[str, Callable[[str, object], object]]] = {
    **{name: partial(_within, low=low, high=high) for name, (low, high) in _RANGES.items()},
    **{name: partial(_within, low=least, high=most, whole=True) for name, (least, most) in _WHOLE.items()},
    "ignore_eos": _flag,
    "post_sampling_probs": _flag,
    "samplers": lambda _, given: read_samplers(given),
    "logit_bias": _biases,
    "dry_sequence_breakers": partial(_texts, most=MOST_BREAKERS),
    "bad_words": partial(_texts, most=MOST_WORDS),
    "stop_token_ids": partial(_ids, most=MOST_ENDS),
    "allowed_token_ids": partial(_ids, most=MOST_ALLOWED),
    "processors": _processors,
}
