"""How byte-pair vocabularies cut text before they merge: one entry a name of `tokenizer.ggml.pre`.

The patterns are facts of the models (their published tokenizer.json), written for the `regex` module. They are applied
one after the other, each to the pieces that the one before left; what a pattern does not match stays as a piece.
"""

from __future__ import annotations

from dataclasses import dataclass

_CONTRACTION = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_HAN_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_HAN_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_HEAD = r"[^\r\n\p{L}\p{N}]?"
_ASCII_SIGN = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"


def _llama(numbers: str) -> str:
    return f"{_CONTRACTION}|{_LETTERS}|{numbers}|{_SIGNS}|{_SPACES}"


def _cased(numbers: str, contraction: str) -> str:
    words = f"{_HEAD}{_UPPER}*{_LOWER}+{contraction}|{_HEAD}{_UPPER}+{_LOWER}*{contraction}"
    return rf"{words}|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"


def _signs_first(signs: str) -> str:
    """GPT-2's pattern between runs of these signs. They hold the apostrophe, so that there are no contractions."""
    return (
        rf"[{signs}]+| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}{signs}]+"
        rf"|\s+(?![^\s{signs}])|\s+"
    )


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_QWEN2 = _llama(r"\p{N}")
_GPT4O = _cased(r"\p{N}{1,3}", f"{_CONTRACTION}?")
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
# The cased letters of older Unicode, as DeepSeek lists them.
_DEEPSEEK_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅ"
    "ὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-"
    "ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_DEEPSEEK_WORDS = rf"{_ASCII_SIGN}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
_DEEPSEEK_HAN = "[一-龥぀-ゟ゠-ヿ]+"

# Digits in threes, counted from the right: only where a run begins is it worth looking to its end, or long runs would
# take quadratic time. What stands before the first three is a group of one or two.
_FEW = r"(?<!\d)\d{1,2}(?=(?:\d{3})++(?!\d))"
_NO_THREE = r"(?:\D++|(?<!\d)\d{1,2}+(?!\d))++"

PATTERNS: dict[str, tuple[str, ...]] = {
    "llama3": (_llama(r"\p{N}{1,3}"),),
    "qwen2": (_QWEN2,),
    "qwen35": (
        rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
        rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}",
    ),
    "tekken": (_cased(r"\p{N}", ""),),
    "gpt4o": (_GPT4O,),
    "gpt2": (_GPT2,),
    "digit_gpt2": (r"\p{N}", _GPT2),
    "falcon": (_signs_first(r"\p{P}\$\+<=>\^~\|`"), r"[0-9][0-9][0-9]"),
    "default": (_signs_first(r"\p{P}\$\+<=>\^~\|"), r"\p{N}+", r"[0-9][0-9][0-9]"),
    "deepseek_coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"),
    "deepseek_llm": (
        r"[\r\n]",
        rf"\s?[{_DEEPSEEK_LETTERS}]+",
        r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
        r"\s+\Z",
        "[一-龥ࠀ-一가-퟿]+",
        r"\p{N}+",
    ),
    "deepseek3": (r"\p{N}{1,3}", _DEEPSEEK_HAN, rf"{_DEEPSEEK_WORDS}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"),
    "spark": (
        r"\p{N}{1,3}",
        _DEEPSEEK_HAN,
        rf"{_DEEPSEEK_WORDS}| ?[\p{{P}}\p{{S}}]+|[\r\n]|\s+(?!\S)|\s+",
        r"\p{N}",
    ),
    "bloom": (_BLOOM,),
    "viking": (_BLOOM, r"\p{N}"),
    "gemma4": (r"[^\n]+|[\n]+",),
    "whitespace": (r"\S+",),
    "kimi": (
        rf"[\p{{Han}}]+|{_HEAD}{_HAN_UPPER}*{_HAN_LOWER}+{_CONTRACTION}?|{_HEAD}{_HAN_UPPER}+{_HAN_LOWER}*{_CONTRACTION}?"
        rf"|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACES}",
    ),
    "bailing": (rf"{_CONTRACTION}|{_LETTERS}|\p{{N}}|{_SIGNS}|\s*[\r\n]|\s+(?!\S)|\s+",),
    "seed": (rf"{_CONTRACTION}|{_LETTERS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}",),
    "minicpm5": (r"\p{N}{1,3}", _llama(r"\p{N}+")),
    "exaone_moe": (
        rf"{_CONTRACTION}|{_HEAD}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
    "laguna": (r"[^\n]+|[\n]+", _QWEN2),
    "aya": (r"(?<!\d)\d++\B(*SKIP)(*FAIL)|(?<!\d)\d{1,2}(?=(?:\d{3})*+\b)|\d{3}", _GPT4O),
    "superbpe": (
        r"\p{N}+",
        rf"\A(?:{_NO_THREE}(?:{_FEW})?|{_FEW})|\d{{3}}(?:(?!\d){_NO_THREE}(?:{_FEW})?)?",
    ),
    "youtu": (
        "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+",
        _cased(r"\p{N}", f"{_CONTRACTION}?"),
    ),
    "afmoe": (
        r"(?<!\p{N})\p{N}{1,2}(?=(?:\p{N}{3})*+(?!\p{N}))|\p{N}{3}",
        "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+",
        rf"{_DEEPSEEK_WORDS}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}",
    ),
    "ufakzeka": (rf"{_LETTERS}|\p{{N}}|{_SIGNS}|{_SPACES}",),
    "jais2": (
        rf"{_CONTRACTION}|{_LETTERS}|\p{{N}}{{1,3}}|{_SIGNS}|\s*[\r\n]+|"
        + "|".join(rf"\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4))
        + r"|\s{1,2}(?!\S)|\s{1}",
    ),
    "chameleon": (
        r"<sentinel:[0-9]+>",
        r"(?:IMGIMG)(?:(?:A|B|C|D|E|F|G|H|I){1,4})Z",
        r"(?:[\t\n]|    |  )",
        r"\p{N}",
        r"[\p{P}!-/:-@\[-`{-~]",
        _GPT2,
    ),
}


@dataclass(frozen=True)
class PreTokenizer:
    """What a `pre` name means. `add_bos` is the default where the file says nothing."""

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False
    default_bos: bool = True  # false: the vocabulary has no BOS unless the file names one
    byte_encoded: bool = True  # false: tokens are plain text with U+2581 for a space
    newline_runs: bool = False  # a run of newlines is the token of that text, where there is one
    space_begins_words: bool = False  # each space begins a word, and a line that has none gets one
    spaces_vanish: bool = False  # words are what stands between white space

    @property
    def word_patterns(self) -> int:
        """How many patterns it takes until pieces are words, which come again. The rest cuts within words."""
        marks = (r"\p{L", _DEEPSEEK_LETTERS)
        first = (at for at, pattern in enumerate(self.patterns, 1) if any(mark in pattern for mark in marks))
        return next(first, len(self.patterns))


def _entries() -> dict[str, PreTokenizer]:
    entries: dict[str, PreTokenizer] = {}

    def add(
        pattern: str, names: str, *, ignore_merges: bool = False, add_bos: bool = False, default_bos: bool = True,
        byte_encoded: bool = True, **rare: bool,
    ) -> None:  # fmt: skip
        for name in names.split():
            entries[name] = PreTokenizer(PATTERNS[pattern], ignore_merges, add_bos, default_bos, byte_encoded, **rare)

    llama3 = "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano"
    add("llama3", llama3, ignore_merges=True, add_bos=True)
    add("llama3", "dbrx smaug-bpe")
    add("llama3", "glm4 glm5", ignore_merges=True, default_bos=False)
    add("llama3", "chatglm-bpe", default_bos=False)
    add("qwen2", "qwen2 deepseek-r1-qwen kormo f2llmv2 hunyuan solar-open grok-2 megrez stablelm2")
    add("qwen35", "qwen35")
    add("tekken", "tekken", ignore_merges=True, add_bos=True)
    add("gpt4o", "gpt-4o llama4 kanana2 talkie minimax-m2")
    add("gpt2", "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert exaone4 mpt")
    add("gpt2", "olmo jais jina-v1-en jina-v2-code roberta-bpe trillion granite-docling")
    add("digit_gpt2", "starcoder refact codeshell exaone minerva-7b mellum2 command-r smollm")
    add("deepseek_llm", "deepseek-llm")
    add("deepseek_coder", "deepseek-coder")
    add("deepseek3", "deepseek-v3 hunyuan-dense joyai-llm hy_v4")
    add("falcon", "falcon")
    add("bloom", "bloom gpt3-finnish poro-chat")
    add("viking", "viking")
    add("gemma4", "gemma4 granite-embed-multi-311m", byte_encoded=False, newline_runs=True)
    add("gemma4", "sarvam-moe", byte_encoded=False)
    add("gemma4", "mmbert", byte_encoded=False, newline_runs=True, space_begins_words=True)
    add("whitespace", "whitespace", byte_encoded=False, spaces_vanish=True)
    add("kimi", "kimi-k2")
    add("bailing", "bailingmoe bailingmoe2 llada-moe")
    add("seed", "seed-coder")
    add("chameleon", "chameleon", add_bos=True)
    add("minicpm5", "minicpm5", ignore_merges=True)
    add("exaone_moe", "exaone-moe")
    add("laguna", "laguna")
    add("aya", "tiny_aya cohere2moe")
    add("superbpe", "superbpe")
    add("jais2", "jais-2")
    add("spark", "spark2_5")
    add("ufakzeka", "ufakzeka")
    add("youtu", "youtu", ignore_merges=True)
    add("afmoe", "afmoe")
    add("gpt4o", "granite-embed-multi-97m", ignore_merges=True)
    add("default", "default")
    return entries


PRE_TOKENIZERS: dict[str, PreTokenizer] = _entries()
