"""The vocabulary of models of speech: GPT-2's byte pairs, then tokens of what is asked for, then moments of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from opsin.convert.checkpoint import read_json
from opsin.errors import FileError
from opsin.gguf import Typed, ValueType
from opsin.gguf.writer import Writable
from opsin.text.bpe import byte_table
from opsin.text.vocabulary import CONTROL, NORMAL, PREFIX, UNUSED

# Tokens of languages in the order of their ids (Radford et al. 2022); newer models have one more.
_CODES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml "
    "cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am "
    "yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue"
)
LANGUAGES = tuple(_CODES.split())
END, START = "<|endoftext|>", "<|startoftranscript|>"
BARE = "<|notimestamps|>"  # the last before those of time
_BEHIND = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
_MOMENTS = 1501  # from 0 to 30 seconds


@dataclass(frozen=True)
class SpeechTokens:
    """`words` are byte pairs as files write them, by id; `specials` follow them, but where some stand elsewhere."""

    words: tuple[str, ...]
    specials: Mapping[int, str]
    merges: tuple[str, ...]

    @classmethod
    def of_folder(cls, folder: Path) -> SpeechTokens:
        """From its tokenizer.json. Raises FileError."""
        written = read_json(folder / "tokenizer.json")
        try:
            model, added = written["model"], written["added_tokens"]
            assert isinstance(model, dict) and isinstance(added, list)
            listed = {int(id): str(text) for text, id in model["vocab"].items()}
            specials = {int(token["id"]): str(token["content"]) for token in added}
            merges = tuple(pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"])
            words = tuple(listed[id] for id in range(len(listed)))
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise FileError(f"{folder / 'tokenizer.json'} is not as it should be: {error!r:.60}") from error
        return cls(words, specials, merges)

    @classmethod
    def of_words(cls, path: Path, words: Sequence[bytes], vocabulary: int) -> SpeechTokens:
        """From bytes in the order of their ids, of which a vocabulary of so many has the usual tokens behind them."""
        table = byte_table()
        texts = tuple("".join(table[byte] for byte in word) for word in words)
        languages = vocabulary - len(words) - 2 - len(_BEHIND) - _MOMENTS
        if not 0 < languages <= len(LANGUAGES):
            raise FileError(f"{path} has {len(words)} words of {vocabulary} tokens", hint="it is of an unknown kind")
        listed = [END, START, *(f"<|{code}|>" for code in LANGUAGES[:languages]), *(f"<|{name}|>" for name in _BEHIND)]
        return cls(texts, dict(enumerate(listed, len(words))), _merges(texts))

    def keys(self, rows: int) -> dict[str, Writable]:
        """`tokenizer.*` for embeddings of so many tokens."""
        texts = [*self.words, *(f"[PAD{id}]" for id in range(len(self.words), rows))]
        kinds = [NORMAL] * len(self.words) + [UNUSED] * (rows - len(self.words))
        specials = dict(self.specials)
        behind = next((id for id, text in specials.items() if text == BARE), None)
        if behind is not None:
            specials |= {behind + 1 + step: f"<|{step / 50:.2f}|>" for step in range(_MOMENTS)}
        for id, text in specials.items():
            if 0 <= id < rows:
                texts[id], kinds[id] = text, CONTROL
        ids = {text: id for id, text in specials.items() if id < rows}
        if END not in ids:
            raise FileError(f"the vocabulary has no {END}", hint="the file is of another kind")
        return {
            f"{PREFIX}model": "gpt2",
            f"{PREFIX}pre": "gpt-2",
            f"{PREFIX}tokens": Typed(ValueType.STRING, texts),
            f"{PREFIX}token_type": Typed(ValueType.INT32, kinds),
            f"{PREFIX}merges": Typed(ValueType.STRING, list(self.merges)),
            f"{PREFIX}eos_token_id": Typed(ValueType.UINT32, ids[END]),
            f"{PREFIX}add_bos_token": False,
        }


def _merges(texts: Sequence[str]) -> tuple[str, ...]:
    """The merges that make words, of their order: a word is what the words before it make, and one merge more."""
    ranks = {text: rank for rank, text in enumerate(texts)}
    made: list[str] = []
    for rank, text in enumerate(texts):
        parts = [*text]
        while len(parts) > 2:
            pairs = [ranks.get(a + b, rank) for a, b in zip(parts, parts[1:], strict=False)]
            best = min(pairs)
            if best >= rank:
                break
            at = pairs.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            made.append(" ".join(parts))
    return tuple(made)
