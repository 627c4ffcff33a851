"""The vocabulary that a GGUF file describes: texts, scores and kinds of its tokens, and which of them have a role.

It knows nothing of how text is cut into tokens. Which tokens end a generation follows llama.cpp, which looks at their
texts as well as at the file's keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from opsin.errors import FileError, ModelError
from opsin.text.keys import read_int, read_numbers, read_text, read_texts

PREFIX = "tokenizer.ggml."

UNDEFINED, NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(7)

MAX_TOKENS = 1 << 22
_NO_ID = (-1, (1 << 32) - 1)  # how some files say that there is none

_EOT_TEXTS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<EOT>", "_<EOT>",
    "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>",
)  # fmt: skip
_EOM_TEXTS = ("<|eom_id|>",)
_FIM_TEXTS: Mapping[str, tuple[str, ...]] = {
    "fim_pre": ("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
                "<|code_prefix|>", "<|prefix|>"),
    "fim_suf": ("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
                "<|code_suffix|>", "<|suffix|>"),
    "fim_mid": ("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
                "<|code_middle|>", "<|middle|>"),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}  # fmt: skip
_OLD_FIM_KEYS = {"fim_pre": "prefix", "fim_suf": "suffix", "fim_mid": "middle"}
_FIM_ENDS = ("fim_pad", "fim_rep", "fim_sep")
END_TEXTS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
    "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
)  # fmt: skip
# Phi-3's own texts: its special tokens swallow the whitespace behind them, which GGUF has no field for.
_STRIPPING_TEXTS = ("<|assistant|>", "<|placeholder1|>", "<|system|>", "<|end|>", "<|user|>")
# gpt-oss speaks through these, so they are shown like text although the file calls them control.
_SHOWN_TEXTS = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")


# llama.cpp's enum of vocabularies, by what files call them.
_TYPES = {"llama": 1, "gpt2": 2, "gemma4": 2, "whitespace": 2, "bert": 3, "t5": 4, "rwkv": 5, "plamo2": 6}


def vocabulary_type(metadata: Mapping[str, object]) -> int:
    """The number that llama.cpp's programs tell of a file's kind of vocabulary; 0 for none that is known."""
    return _TYPES.get(read_text(metadata, f"{PREFIX}model") or "", 0)


class Vocabulary:
    """Tokens of a file. `kinds[id]` is one of the constants above; `ids[text]` the inverse of `texts[id]`.

    `notes` say what the file lacks or says wrongly.
    """

    def __init__(self, metadata: Mapping[str, object], defaults: Mapping[str, int]) -> None:
        self.texts = _read_texts(metadata)
        self.ids = dict(zip(self.texts, range(len(self.texts)), strict=True))
        if len(self.ids) != len(self.texts):
            raise FileError(f"{len(self.texts) - len(self.ids)} token texts occur twice in {PREFIX}tokens",
                            hint="convert the model again")  # fmt: skip
        size = len(self.texts)
        self.kinds = np.asarray(_read_each(metadata, "token_type", size, NORMAL, whole=True)).astype(np.int64).tolist()
        self.scores = _read_each(metadata, "scores", size, 0.0)
        self.notes: list[str] = []
        self._has_kinds = f"{PREFIX}token_type" in metadata
        if not self._has_kinds:
            self.notes.append(f"{PREFIX}token_type is missing: special tokens are known by their texts alone")
        self.bos = self._read_id(metadata, "bos", defaults)
        self.eos = self._read_id(metadata, "eos", defaults)
        self.unknown = self._read_id(metadata, "unknown", defaults)
        self.separator = self._read_id(metadata, "seperator", defaults)  # the key is misspelt in the format
        self.eot = self._find_role(metadata, "eot", _EOT_TEXTS)
        self.eom = self._find_role(metadata, "eom", _EOM_TEXTS)
        self.fim = {role: self._find_fim(metadata, role, texts) for role, texts in _FIM_TEXTS.items()}
        self.end_ids = frozenset(self._find_ends() | set(self._read_ends(metadata)))
        self._note_ends()

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def strips_right(self) -> bool:
        """Whether special tokens swallow the whitespace behind them."""
        return all(text in self.ids for text in _STRIPPING_TEXTS)

    def of_kind(self, *kinds: int) -> list[int]:
        """Ids of the tokens of these kinds, in order."""
        found: list[int] = np.flatnonzero(np.isin(self.kinds, kinds)).tolist()
        return found

    def _read_id(self, metadata: Mapping[str, object], role: str, defaults: Mapping[str, int]) -> int | None:
        """The id that the file names; one outside the vocabulary counts as absent, as it does in llama.cpp.

        Unlike there, a default that is an ordinary token is none: answers would end at its first comma.
        """
        key = f"{PREFIX}{role}_token_id"
        told, default = read_int(metadata, key), defaults.get(role)
        if told is not None and 0 <= told < len(self):
            return told
        if told is not None and told not in _NO_ID:
            self.notes.append(f"{key} is {told}, which is none of the {len(self)} tokens")
        if default is None or not 0 <= default < len(self):
            return None
        if self._has_kinds and self.kinds[default] == NORMAL and role in ("bos", "eos"):
            return None
        return default

    def _read_ends(self, metadata: Mapping[str, object]) -> list[int]:
        """More ends of answers, under a key that is Ollama's."""
        told = read_numbers(metadata, f"{PREFIX}eos_token_ids", whole=True) or ()
        strange = [int(id) for id in told if not 0 <= id < len(self)]
        if strange:
            self.notes.append(f"{PREFIX}eos_token_ids names {strange[0]}, which is none of the {len(self)} tokens")
        return [int(id) for id in told if 0 <= id < len(self)]

    def _note_ends(self) -> None:
        if not self.end_ids:
            self.notes.append("no token ends an answer: answers go on until they are as long as they may be")
        elif self._has_kinds and self.eos is not None and self.kinds[self.eos] == NORMAL:
            self.notes.append(
                f"the token that ends answers, {self.eos} ({self.texts[self.eos]!r:.40}), is an ordinary one: an "
                "answer ends where it would write that"
            )

    def _find_role(self, metadata: Mapping[str, object], role: str, texts: Iterable[str]) -> int | None:
        named = self._read_id(metadata, role, {})
        if named is not None:
            return named
        for text in texts:
            if text in self.ids:
                self.kinds[self.ids[text]] = CONTROL
                return self.ids[text]
        return None

    def _find_fim(self, metadata: Mapping[str, object], role: str, texts: Iterable[str]) -> int | None:
        old = self._read_id(metadata, _OLD_FIM_KEYS[role], {}) if role in _OLD_FIM_KEYS else None
        return old if old is not None else self._find_role(metadata, role, texts)

    def _find_ends(self) -> set[int]:
        ends = {id for role in _FIM_ENDS if (id := self.fim[role]) is not None}
        for text in END_TEXTS:
            if text in self.ids:
                self.kinds[self.ids[text]] = CONTROL
                ends.add(self.ids[text])
        for text in _SHOWN_TEXTS:
            if text in self.ids:
                self.kinds[self.ids[text]] = USER_DEFINED
        ends |= {id for id in (self.eos, self.eot, self.eom) if id is not None}
        self._except_harmony(ends)
        self._except_plain_s(ends)
        return ends

    def _has_end(self, ends: set[int], *texts: str) -> bool:
        return any(self.ids.get(text) in ends for text in texts)

    def _except_harmony(self, ends: set[int]) -> None:
        """Where `<|return|>` or `<|flush|>` ends a turn, `<|end|>` only ends one message of it."""
        calls = self._has_end(ends, "<|call|>", "<|calls|>")
        if calls and self._has_end(ends, "<|return|>", "<|flush|>") and self._has_end(ends, "<|end|>"):
            ends.discard(self.ids["<|end|>"])
            self.kinds[self.ids["<|end|>"]] = USER_DEFINED

    def _except_plain_s(self, ends: set[int]) -> None:
        """Gemma 4 and PLaMo have `</s>` as an ordinary piece of text."""
        if self._has_end(ends, "<|tool_response>", "<|plamo:eos|>") and self._has_end(ends, "</s>"):
            ends.discard(self.ids["</s>"])
            self.kinds[self.ids["</s>"]] = NORMAL


def _read_texts(metadata: Mapping[str, object]) -> list[str]:
    if f"{PREFIX}tokens" not in metadata:
        raise ModelError("the file holds no vocabulary", hint="it may be a projector (mmproj): give the model as well")
    raw = read_texts(metadata, f"{PREFIX}tokens")
    if len(raw) > MAX_TOKENS:
        raise FileError(f"{len(raw)} tokens in {PREFIX}tokens, more than {MAX_TOKENS}", hint="the file is damaged")
    texts = list(raw)
    if "" in texts:
        texts = [text or f"[EMPTY_{id}]" for id, text in enumerate(texts)]
    return texts


def _read_each(
    metadata: Mapping[str, object], name: str, size: int, absent: float, *, whole: bool = False
) -> Sequence[float]:
    """A number for each token."""
    numbers = read_numbers(metadata, PREFIX + name, whole=whole)
    if numbers is None:
        return [absent] * size
    if len(numbers) < size:
        raise FileError(f"{PREFIX}{name} has {len(numbers)} entries for {size} tokens", hint="the file is damaged")
    return numbers[:size]
