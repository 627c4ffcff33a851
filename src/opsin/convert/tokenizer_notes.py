"""What a tokenizer of transformers does and GGUF has no key for, where it is no reason to refuse the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_FLAGS = {"lstrip": "the space before", "rstrip": "the space behind", "single_word": "no part of a word"}


def tokenizer_notes(
    written: Mapping[str, object], config: Mapping[str, object], added: Mapping[int, tuple[str, bool]]
) -> list[str]:
    """One line for each. `written` is tokenizer.json, `config` tokenizer_config.json, both checked by their reader."""
    return [*_of_flags(written, config, added), *_of_settings(config), *_of_additions(written, config)]


def _of_flags(
    written: Mapping[str, object], config: Mapping[str, object], added: Mapping[int, tuple[str, bool]]
) -> Iterator[str]:
    listed, decoder = written.get("added_tokens"), config.get("added_tokens_decoder")
    entries = [
        *(listed if isinstance(listed, list) else []),
        *(decoder.values() if isinstance(decoder, Mapping) else []),
    ]
    for flag, what in _FLAGS.items():
        texts = [str(entry["content"]) for entry in entries if entry.get(flag) is True]
        if texts:
            shown = ", ".join(f"{text!r:.40}" for text in dict.fromkeys(texts))[:120]
            yield f"tokens that take {what} with them ({flag}) have no key in GGUF, and do not: {shown}"


def _of_settings(config: Mapping[str, object]) -> Iterator[str]:
    if config.get("clean_up_tokenization_spaces") is True:
        yield "clean_up_tokenization_spaces has no key in GGUF: answers keep spaces before signs"
    if config.get("split_special_tokens") is True:
        yield "split_special_tokens has no key in GGUF: texts of special tokens become those tokens"


def _of_additions(written: Mapping[str, object], config: Mapping[str, object]) -> Iterator[str]:
    """Tokens that are put around a text and are neither BOS nor EOS."""
    processor = written.get("post_processor")
    inner = processor.get("processors", [processor]) if isinstance(processor, Mapping) else []
    known = {_text(config.get(f"{role}_token")) for role in ("bos", "eos", "cls", "sep")}
    for part in inner if isinstance(inner, list) else []:
        for entry in part.get("single") or [] if isinstance(part, Mapping) else []:
            special = entry.get("SpecialToken") if isinstance(entry, Mapping) else None
            if isinstance(special, Mapping) and special.get("id") not in known:
                yield (
                    f"tokenizer.json puts {special.get('id')!r:.40} beside each text; GGUF can say that of BOS and EOS"
                )


def _text(value: object) -> object:
    return value.get("content") if isinstance(value, Mapping) else value
