"""The tokenizer of a checkpoint as GGUF's keys: from tokenizer.json, or tokenizer.model of SentencePiece.

Which tokens are control tokens, which ids are named and what stands where the vocabulary has holes follows
llama.cpp's converter.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from opsin.convert.checkpoint import read_config, read_json
from opsin.convert.generation import generation_keys
from opsin.convert.sentencepiece import read_pieces
from opsin.convert.templates import template_keys
from opsin.convert.tokenizer_notes import tokenizer_notes
from opsin.errors import FileError, ModelError
from opsin.gguf import Typed, ValueType
from opsin.gguf.writer import Writable
from opsin.text.recognise import BYTE_PAIRS, SENTENCEPIECE, SLOW_CLASSES, find_pre
from opsin.text.vocabulary import BYTE, CONTROL, NORMAL, PREFIX, UNKNOWN, UNUSED, USER_DEFINED

SPACE = "\u2581"  # how SentencePiece writes one
WORD_PIECES, UNIGRAM = "bert", "t5"  # as GGUF calls these kinds
_NEVER, _ADDED = -10000.0, -1000.0  # scores of holes and of added tokens
_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
# Roles and what GGUF calls them, one misspelt there.
_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "sep": "seperator", "pad": "padding", "mask": "mask"}


@dataclass
class Tokens:
    """A vocabulary in the making: holes until something is put there."""

    texts: list[str]
    kinds: list[int]
    scores: list[float]
    keys: dict[str, Writable] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of_holes(cls, rows: int) -> Tokens:
        return cls([f"[PAD{id}]" for id in range(rows)], [UNUSED] * rows, [_NEVER] * rows)

    def put(self, id: int, text: str, kind: int, score: float = 0.0) -> None:
        """An id behind the embeddings is left out: no model can have learnt it."""
        if 0 <= id < len(self.texts):
            self.texts[id], self.kinds[id], self.scores[id] = text, kind, score

    def add(self, id: int, text: str, *, special: bool, visible: bool = False) -> None:
        """A token that stands beside the vocabulary."""
        if (special or _looks_special(text)) and not visible:
            self.put(id, text, CONTROL, _ADDED)
        else:
            self.put(id, text.replace(SPACE, " "), USER_DEFINED, _ADDED)


def vocabulary_keys(
    folder: Path, rows: int, *, has_vision: bool = False, merged: str | None = None, visible: Collection[str] = ()
) -> tuple[dict[str, Writable], list[str]]:
    """`tokenizer.*` and `general.sampling.*` for a model with embeddings of `rows` tokens, and notes on what is lost.

    `has_vision`: whether transformers has a processor for it. `merged`, `visible`: see `Rules`. Raises
    FileError or ModelError.
    """
    written = read_json(folder / "tokenizer.json", optional=True)
    config = _settings(folder)
    model = written.get("model")
    model = model if isinstance(model, Mapping) else {}
    pieces, pairs = folder / "tokenizer.model", folder / "merges.txt"
    if not written and not pieces.is_file() and not pairs.is_file():
        raise FileError(f"{folder} has neither tokenizer.json nor tokenizer.model", hint="save its tokenizer there")
    try:
        if not written and not pieces.is_file():
            kind, tokens = BYTE_PAIRS, _slow_pairs(folder, config, rows)
        elif model.get("type") == "WordPiece":
            kind, tokens = WORD_PIECES, _word_pieces(folder, written, model, rows)
        elif model.get("type") == "Unigram":
            kind, tokens = UNIGRAM, _unigram(written, model, rows)
        elif written and not model.get("byte_fallback"):
            kind, tokens = BYTE_PAIRS, _byte_pairs(folder, model, rows)
        elif merged and written:
            kind, tokens = merged, _with_merges(model, rows)
        else:
            kind = SENTENCEPIECE
            tokens = _agreed(folder, written, model, rows)
        if kind not in (WORD_PIECES, UNIGRAM):
            _check_normalizer(folder, written.get("normalizer"))
        added = _added(folder, written, config)
        for id, (text, special) in added.items():
            tokens.add(id, text, special=special, visible=text in visible)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"{folder}: its tokenizer is not as it should be: {error!r:.80}", hint="download it again"
        ) from error
    found: dict[str, Writable] = {
        f"{PREFIX}model": kind,
        f"{PREFIX}tokens": Typed(ValueType.STRING, tokens.texts),
        f"{PREFIX}token_type": Typed(ValueType.INT32, tokens.kinds),
        **tokens.keys,
        **({f"{PREFIX}scores": Typed(ValueType.FLOAT32, tokens.scores)} if kind in (SENTENCEPIECE, UNIGRAM) else {}),
        **_roles(folder, config, {text: id for id, text in enumerate(tokens.texts)}, pieces=kind == WORD_PIECES),
        **_additions(written, config),
    }
    templates, about_templates = template_keys(folder, has_vision=has_vision)
    end = _content(config.get("eos_token"))
    eos = tokens.texts.index(end) if isinstance(end, str) and end in tokens.texts else None
    drawn, about_answers = generation_keys(folder, tokens.texts, eos)
    notes = [*tokens.notes, *tokenizer_notes(written, config, added), *about_templates, *about_answers]
    keys = {**found, **templates, **drawn}
    _end_as_written(keys, written, tokens.texts)
    return keys, notes


def _settings(folder: Path) -> dict[str, object]:
    """tokenizer_config.json; special_tokens_map.json above it only where it lists no added tokens: an older form."""
    config = read_json(folder / "tokenizer_config.json", optional=True)
    if "added_tokens_decoder" in config:
        return config
    return {**config, **read_json(folder / "special_tokens_map.json", optional=True)}


def _agreed(folder: Path, written: Mapping[str, object], model: Mapping[str, object], rows: int) -> Tokens:
    """From tokenizer.model, which has scores, but where tokenizer.json says otherwise: transformers takes that."""
    pieces = folder / "tokenizer.model"
    if not pieces.is_file():
        return _from_merges(written, model, rows)
    tokens = _pieces(pieces, rows)
    listed = _mapping(model.get("vocab", {})) if written else {}
    strange = next((text for text, id in listed.items() if _int(id) < rows and tokens.texts[_int(id)] != text), None)
    if strange is None:
        return tokens
    tokens = _from_merges(written, model, rows)
    tokens.notes.append(f"tokenizer.model knows no {strange!r:.40} where tokenizer.json has it: it is left out")
    return tokens


def _check_normalizer(folder: Path, part: object) -> None:
    """Refuses what changes text in a way that GGUF has no key for: models would get ids that they were not taught.

    NFC passes although there is none for it either: many widely used models have it, and their files go without.
    """
    if part is None:
        return
    known = _mapping(part)
    kind = known.get("type")
    if kind == "Sequence":
        for inner in _list(known.get("normalizers")):
            _check_normalizer(folder, inner)
        return
    spaces = kind == "Replace" and known.get("pattern") == {"String": " "} and known.get("content") == SPACE
    if kind != "NFC" and not spaces and not (kind == "Prepend" and known.get("prepend") == SPACE):
        raise FileError(
            f"{folder}: tokenizer.json normalises text by {kind!r:.40}, for which GGUF has no key",
            hint="a converted model would read such text by other tokens; if yours is normal already, take "
            '"normalizer" out of tokenizer.json',
        )


def _byte_pairs(folder: Path, model: Mapping[str, object], rows: int) -> Tokens:
    if model.get("type") != "BPE":
        raise ModelError(f"{folder}: tokenizers of type {model.get('type')!r:.40} are not converted", hint="BPE is")
    source = (folder / "tokenizer.json").read_text("utf-8")
    pre = find_pre(source, ignore_merges=model.get("ignore_merges") is True)
    return _of_pairs(_mapping(model["vocab"]), _list(model.get("merges")), pre, rows)


def _slow_pairs(folder: Path, config: Mapping[str, object], rows: int) -> Tokens:
    """From vocab.json and merges.txt, beside which only the class says how text is cut."""
    kind = config.get("tokenizer_class")
    if kind not in SLOW_CLASSES:
        raise ModelError(
            f"{folder} has no tokenizer.json, and its class is {kind!r:.40}", hint="save its tokenizer as a fast one"
        )
    lines = (folder / "merges.txt").read_text("utf-8").split("\n")
    merges: list[object] = [line for line in lines if line.strip() and not line.startswith("#version")]
    tokens = _of_pairs(read_json(folder / "vocab.json"), merges, SLOW_CLASSES[str(kind)], rows)
    tokens.keys |= {f"{PREFIX}add_{role}_token": False for role in ("bos", "eos")}  # where nobody says otherwise
    return tokens


def _of_pairs(vocabulary: Mapping[str, object], merges: Sequence[object], pre: str, rows: int) -> Tokens:
    tokens = Tokens.of_holes(rows)
    for text, id in vocabulary.items():
        tokens.put(_int(id), text, NORMAL)
    tokens.keys = {
        f"{PREFIX}pre": pre,
        f"{PREFIX}merges": Typed(ValueType.STRING, [_merge(pair) for pair in merges]),
    }
    return tokens


def _pieces(path: Path, rows: int) -> Tokens:
    """From SentencePiece's own file."""
    tokens, read = Tokens.of_holes(rows), read_pieces(path)
    for id, (text, score, kind) in enumerate(zip(read.texts, read.scores, read.kinds, strict=True)):
        tokens.put(id, text, kind, score)
    tokens.keys = {f"{PREFIX}add_space_prefix": read.space_prefix}
    return tokens


def _from_merges(written: Mapping[str, object], model: Mapping[str, object], rows: int) -> Tokens:
    """SentencePiece's vocabulary as tokenizer.json writes it, by merges: the earlier one makes a token, the better."""
    tokens, ranks = Tokens.of_holes(rows), dict[str, int]()
    merges = _list(model.get("merges"))
    for rank, pair in enumerate(merges):
        left, right = pair.split(" ", 1) if isinstance(pair, str) else cast(list[str], pair)
        ranks.setdefault(left + right, rank)
    unknown = model.get("unk_token")
    for text, id in _mapping(model["vocab"]).items():
        kind = UNKNOWN if text == unknown else BYTE if _BYTE.fullmatch(text) else NORMAL
        tokens.put(_int(id), text, kind, -float(ranks.get(text, len(merges))) if kind == NORMAL else 0.0)
    tokens.keys = {
        f"{PREFIX}add_space_prefix": _prepends(written.get("normalizer")) or _prepends(written.get("pre_tokenizer"))
    }
    return tokens


def _with_merges(model: Mapping[str, object], rows: int) -> Tokens:
    """SentencePiece's vocabulary with the merges themselves, for a tokenizer of byte pairs that has no bytes in it."""
    tokens, unknown = Tokens.of_holes(rows), model.get("unk_token")
    for text, id in _mapping(model["vocab"]).items():
        tokens.put(_int(id), text, UNKNOWN if text == unknown else BYTE if _BYTE.fullmatch(text) else NORMAL)
    merges = [_merge(pair) for pair in _list(model.get("merges"))]
    tokens.keys = {f"{PREFIX}merges": Typed(ValueType.STRING, merges), f"{PREFIX}add_space_prefix": False}
    return tokens


def _word_pieces(
    folder: Path, written: Mapping[str, object], model: Mapping[str, object], rows: int
) -> Tokens:  # fmt: skip
    """BERT's: a token that begins a word gets a space before it here, one within a word loses its mark."""
    tokens, mark = Tokens.of_holes(rows), str(model.get("continuing_subword_prefix", "##"))
    for text, id in _mapping(model["vocab"]).items():
        is_role = text.startswith("[") and text.endswith("]")
        inside = text.startswith(mark) and text != mark
        tokens.put(_int(id), text.removeprefix(mark) if inside else text if is_role else SPACE + text, NORMAL)
    normalizer = _mapping(written.get("normalizer"))
    if normalizer.get("type") != "BertNormalizer" or normalizer.get("handle_chinese_chars") is False:
        raise FileError(f"{folder}: tokenizer.json normalises text otherwise than BERT does", hint="GGUF cannot say it")
    lowercase, strips = normalizer.get("lowercase") is not False, normalizer.get("strip_accents")
    tokens.keys = {f"{PREFIX}normalizer.lowercase": lowercase}
    if isinstance(strips, bool):
        tokens.keys[f"{PREFIX}normalizer.strip_accents"] = strips
    return tokens


def _unigram(written: Mapping[str, object], model: Mapping[str, object], rows: int) -> Tokens:
    """Pieces with their scores, and SentencePiece's own way to normalise text, as XLM-R has them."""
    tokens, unknown = Tokens.of_holes(rows), model.get("unk_id")
    pieces = _list(model["vocab"])
    if not pieces:
        raise ValueError("there are no pieces")
    for id, entry in enumerate(pieces):
        text, score = cast(tuple[str, float], entry)
        tokens.put(id, text, UNKNOWN if id == unknown else NORMAL, float(score))
    normalizer = _mapping(written.get("normalizer") or {})
    parts = [_mapping(part) for part in _list(normalizer.get("normalizers", [normalizer]))]
    maps = [base64.b64decode(str(part["precompiled_charsmap"])) for part in parts if part.get("type") == "Precompiled"]
    tokens.keys = {
        f"{PREFIX}add_space_prefix": _prepends(written.get("pre_tokenizer")),
        f"{PREFIX}remove_extra_whitespaces": True,  # words are cut at white space before anything else
    }
    if maps:
        tokens.keys[f"{PREFIX}precompiled_charsmap"] = Typed(ValueType.UINT8, [*maps[0]])
    return tokens


def _prepends(part: object) -> bool:
    """Whether a normaliser or pre-tokenizer puts a space before the text."""
    if not isinstance(part, Mapping):
        return False
    if part.get("type") == "Prepend":
        return bool(part.get("prepend") == SPACE)
    if part.get("type") == "Metaspace":
        scheme = part.get("prepend_scheme", "always" if part.get("add_prefix_space", True) else "never")
        return bool(scheme != "never")
    inner = part.get("normalizers", part.get("pretokenizers"))
    return any(map(_prepends, inner)) if isinstance(inner, list) else False


def _added(folder: Path, written: Mapping[str, object], config: Mapping[str, object]) -> dict[int, tuple[str, bool]]:
    """Tokens beside the vocabulary by id: text, and whether it is special. tokenizer_config.json's word counts."""
    listed = [(int(id), entry) for id, entry in _mapping(config.get("added_tokens_decoder", {})).items()]
    listed += [(_int(_mapping(entry)["id"]), entry) for entry in _list(written.get("added_tokens"))]
    if not listed:  # an older form, beside tokenizer.model alone
        special = {_content(value) for key, value in config.items() if key.endswith("_token")}
        special |= {_content(value) for value in _list(config.get("additional_special_tokens"))}
        beside = read_json(folder / "added_tokens.json", optional=True)
        listed = [(_int(id), {"content": text, "special": text in special}) for text, id in beside.items()]
    found: dict[int, tuple[str, bool]] = {}
    for id, entry in listed:
        known = _mapping(entry)
        found.setdefault(id, (str(known["content"]), known.get("special") is True))
    return found


def _content(value: object) -> object:
    """A token's text, of the two forms in which it may stand."""
    return value.get("content") if isinstance(value, Mapping) else value


def _roles(folder: Path, config: Mapping[str, object], ids: Mapping[str, int], *, pieces: bool) -> dict[str, Writable]:
    """The ids that have a role: as tokenizer_config.json says, else config.json.

    Texts of BERT's (`pieces`) begin with the token of the class ([CLS]) and end with the separator, as do others that
    name these and neither BOS nor EOS.
    """
    config = dict(config)
    for role, other in (("bos", "cls"), ("eos", "sep")):
        if not pieces and _content(config.get(f"{role}_token")) is None and f"{other}_token" in config:
            config[f"{role}_token"] = config[f"{other}_token"]
    settings = read_config(folder)
    text = settings.get("text_config")
    found: dict[str, Writable] = {}
    for role, name in (_ROLES | ({"cls": "bos"} if pieces else {})).items():
        token = _content(config.get(f"{role}_token"))
        id = ids.get(token) if isinstance(token, str) else settings.get(f"{role}_token_id")
        if id is None and isinstance(text, Mapping):
            id = text.get(f"{role}_token_id")
        id = id[0] if isinstance(id, list) and id else id
        if type(id) is int and 0 <= id < len(ids):
            found[f"{PREFIX}{name}_token_id"] = Typed(ValueType.UINT32, id)
    return found


def _additions(written: Mapping[str, object], config: Mapping[str, object]) -> dict[str, Writable]:
    """Whether BOS and EOS are put around a text: by what the tokenizer does, else by what its settings say."""
    found = {role: config.get(f"add_{role}_token") for role in ("bos", "eos")}
    processor = written.get("post_processor")
    inner = processor.get("processors", [processor]) if isinstance(processor, Mapping) else []
    for part in _list(inner):
        kind = _mapping(part).get("type")
        if kind == "ByteLevel":
            found = {role: told if isinstance(told, bool) else False for role, told in found.items()}
        elif kind == "TemplateProcessing":
            single = [_mapping(entry) for entry in _list(_mapping(part).get("single"))]
            found = {"bos": "SpecialToken" in single[0], "eos": "SpecialToken" in single[-1]} if single else found
            pair = ["SpecialToken" in _mapping(entry) for entry in _list(_mapping(part).get("pair", []))]
            found |= {"sep": pair.count(True) > 3} if pair else {}  # two of them stand between the texts of a pair
        elif kind in ("BertProcessing", "RobertaProcessing"):
            found = {"bos": True, "eos": True}
    return {f"{PREFIX}add_{role}_token": told for role, told in found.items() if isinstance(told, bool)}


def _end_as_written(found: dict[str, Writable], written: Mapping[str, object], texts: Sequence[str]) -> None:
    """Where a text ends with another token than its EOS, that is the file's EOS, and the other ends turns (EOT)."""
    eos, processor = f"{PREFIX}eos_token_id", written.get("post_processor")
    inner = processor.get("processors", [processor]) if isinstance(processor, Mapping) else []
    for part in map(_mapping, _list(inner)):
        single = _list(part.get("single")) if part.get("type") == "TemplateProcessing" else []
        token = _mapping(_mapping(single[-1]).get("SpecialToken", {})).get("id") if len(single) > 1 else None
        if token in texts and eos in found and found[eos] != Typed(ValueType.UINT32, texts.index(str(token))):
            found[f"{PREFIX}eot_token_id"] = found[eos]
            found[eos] = Typed(ValueType.UINT32, texts.index(str(token)))


def _looks_special(text: str) -> bool:
    ends = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
    known = ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
    return text in known or any(text.startswith(start) and text.endswith(end) for start, end in ends)


def _merge(pair: object) -> str:
    """A merge as GGUF writes it; a space within a side becomes the character 256 further."""
    if isinstance(pair, str):
        return pair
    left, right = cast(Sequence[str], pair)
    return f"{left.replace(' ', chr(288))} {right.replace(' ', chr(288))}"


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r:.40} is no JSON object")
    return value


def _list(value: object) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.40} is no list")
    return value


def _int(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r:.40} is no id")
    return value
