"""From files to a model in memory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from opsin.api.arguments import check_type, check_whole
from opsin.api.draft import load_drafter
from opsin.api.facts import Facts
from opsin.api.files import Files, find
from opsin.api.media_folder import MediaFolder
from opsin.api.model import Model
from opsin.api.notes import find_notes
from opsin.api.pairing import pair
from opsin.api.prompting import Prompting
from opsin.api.replies import Replies
from opsin.api.senses import Senses
from opsin.api.text_part import Text
from opsin.config import Config, from_environment
from opsin.engine.engine import Engine
from opsin.engine.guessing import GUESSES, MOST_GUESSES, Guessing
from opsin.engine.media_store import MediaStore
from opsin.engine.next_tokens import NextTokens
from opsin.engine.pages import pages_for
from opsin.engine.pooling import Pooler
from opsin.engine.runner import Limits, Runner
from opsin.engine.states import count_slots
from opsin.errors import ModelError, RequestError
from opsin.gguf import File
from opsin.gguf.roles import PROJECTOR, find_other
from opsin.grammar import Grammars
from opsin.hub.bundled import bundled
from opsin.hub.found import Found
from opsin.media.budget import USUAL, PictureBudget
from opsin.media.fetch import FetchRules
from opsin.media.limits import PictureLimits
from opsin.models import Decoder, is_known, load_decoder
from opsin.nn.batch import MEMORY
from opsin.nn.dense import DenseHead
from opsin.nn.module import FileReader
from opsin.nn.next_token import WithoutNextToken
from opsin.nn.rank import RankHead
from opsin.ops import PAGE, PageType
from opsin.ops.cpu import Cpu
from opsin.ops.cpu.findings import clear, examine
from opsin.ops.device import Device, Findings, Notice
from opsin.text import ChatTemplate, Tokenizer
from opsin.text.template import KEY

if TYPE_CHECKING:
    from opsin.api.speech.hearing import Hearing

_CONTEXT = 8192  # rows of a sequence where nobody asks for more
_WHOLE = 2048  # the same of an encoder, whose steps have room for a whole text
_EMBEDDINGS = 256 << 20  # bytes of pictures that are kept
_SOUNDS = 8  # windows that are heard at once
_PICTURES = 4  # of the largest kind, that text may remember at once where layers look at them beside it
PARTS, DEVICES = ("text", "vision"), ("cpu",)


def load(
    path: str | Path | None = None, *, mmproj: str | Path | None = None, vision: bool = True,
    threads: int | None = None, context: int | None = None, pages: PageType = "f16", sequences: int = 32,
    states: int | None = None, rules: FetchRules | None = None, limits: PictureLimits | None = None,
    device: str | Mapping[str, str] = "cpu", notice: Notice | None = None, verify: bool = False,
    budget: PictureBudget = USUAL, template: str | None = None, config: Config | None = None,
    media_cache: MediaFolder | None = None, guesses: int = GUESSES,
    draft: str | Path | None = None,
) -> Model:  # fmt: skip
    """Read a model into memory.

    Args:
        path: a GGUF file, the first of its splits, a folder with one model in it, or a folder of transformers, whose
            safetensors are converted in memory; "ollama:name:tag" takes a model of Ollama's store,
            "hf:owner/repo:quant" one of Hugging Face's hub, fetched where it is not in the cache. An mmproj file alone
            gives a model that encodes pictures and cannot write. None takes the small model that comes with opsin.
        mmproj: the file of the part for pictures; None takes the model's own, or the best that fits of those beside it.
        vision: False leaves it out, with the part for sound. Weights are read when the first picture or sound comes.
        threads: compute threads; None takes what this process may use.
        context: tokens that the cache holds, which all sequences share: one prompt and its answer may have as many, up
            to what the model was trained for. None takes what a store says of the model (num_ctx), else the model's
            own, at most 8192.
        pages: how the KV cache is kept: f16, q8_0 (half of it), q4_0 (a third, and much less exact) or f32.
        sequences: how many may run at once. The cache is shared by all.
        states: bytes for recurrent states, of models that have any: one for each sequence that runs, the others keep
            where conversations may go on. None takes at most 1 GiB, but at least two.
        rules: what may be fetched for messages with URLs in them; None allows public http(s) addresses and no files.
        limits: how large a picture may be.
        device: where to compute; {"text": ..., "vision": ...} says it of each part. There is "cpu" so far.
        notice: told in a line when something slow happens.
        verify: compare the files of a store with the digests under which they were published, which reads them whole.
        budget: how finely pictures are looked at where a question does not say. None gets more than its most pixels
            and tokens.
        template: how chats are written, in Jinja; None takes the file's own.
        media_cache: a folder that keeps what pictures became, so that none is encoded again after a restart.
        guesses: tokens that are guessed ahead at most, by what the text repeats, where that pays; 0 for none. Answers
            are the same, and come sooner.
        draft: a smaller model with the same vocabulary, given as `path` is, which guesses, too.

    `Model.notes` says what a person should know: parts that were left out and why, which of several files was taken,
    and what the file lacks, says wrongly, or asks for that is not built. That fewer tokens fit than the model was
    trained for is no note: a prompt that is too long is an error with both numbers.

    Raises FileError or ModelError, saying what is wrong with the file.
    """
    start = time.perf_counter()
    check_devices(device)
    rules, limits = FetchRules() if rules is None else rules, PictureLimits() if limits is None else limits
    for given, kind, name in ((vision, bool, "vision"), (rules, FetchRules, "rules"),
                              (limits, PictureLimits, "limits"), (verify, bool, "verify"),
                              (budget, PictureBudget, "budget"),
                              (MediaFolder(Path()) if media_cache is None else media_cache, MediaFolder,
                               "media_cache")):  # fmt: skip
        check_type(given, kind, name)
    if template is not None:
        check_type(template, str, "template")
    _check_counts(threads=threads, context=context, sequences=sequences)
    check_whole(1 if states is None else states, "states", most=1 << 62)
    check_whole(guesses, "guesses", least=0, most=MOST_GUESSES)
    if not isinstance(pages, str) or pages not in get_args(PageType):
        raise RequestError(f"pages={pages!r:.80}", hint=f"give one of {', '.join(get_args(PageType))}")
    if not callable(notice) and notice is not None:
        raise RequestError(f"notice={notice!r:.80}", hint="give a function that takes a line")
    path = bundled() if path is None else path
    opened = open_device(config or from_environment(), threads=threads, notice=notice)
    loading = _Loading(opened, rules, limits, budget, media_cache)
    text: Text | None = None
    senses: Senses | None
    try:
        files = find(path, mmproj, vision=vision, verify=verify, notice=notice)
        file, notes = files.open(vision=vision and not files.chosen)
        loading.notes.extend(notes)
        with file:
            check_is_model(file)
            if file.get_str("general.architecture") == PROJECTOR:
                senses, hint = loading.senses(file, files.text), ""
            else:
                read = loading.read(file, files.found, template, guesses=guesses > 0 and draft is None)
                senses, hint = loading.pair(files, file, read) if vision else (None, "it was loaded with vision=False")
                usual = files.found.context if files.found is not None else None
                rows = cache_rows(read.decoder, context, usual, sequences)
                text = loading.text(
                    read, senses, rows=rows, sequences=sequences, pages=pages, states=states,
                    guessing=loading.guessing(guesses, draft, read, rows=rows, sequences=sequences, pages=pages),
                )  # fmt: skip
    except BaseException:
        opened.close()
        raise
    seconds = time.perf_counter() - start
    return Model(
        files.text, opened, text, senses, no_media_hint=hint, notes=tuple(loading.notes), load_seconds=seconds,
        name=files.name,
    )  # fmt: skip


def _with_template(metadata: Mapping[str, object], template: str | None) -> Mapping[str, object]:
    """A file's metadata as if it had this template and no variants of it."""
    if template is None:
        return metadata
    return {**{key: value for key, value in metadata.items() if not key.startswith(KEY)}, KEY: template}


def open_device(config: Config, *, threads: int | None = None, notice: Notice | None = None) -> Device:
    """A device to compute on; close it. Raises DeviceError where this machine cannot have it as the options say."""
    return Cpu(config, threads=threads, notice=notice)


def examine_device(config: Config) -> Findings:
    """What can be said of the device without opening it. Compiles nothing."""
    return examine(config)


def clear_caches(config: Config, *, weights: bool, kernels: bool) -> int:
    """Take away what devices keep on disk for later starts; how many bytes it had."""
    return clear(config, weights=weights, kernels=kernels)


def _check_counts(*, threads: int | None, context: int | None, sequences: int) -> None:
    check_whole(1 if threads is None else threads, "threads")
    check_whole(1 if context is None else context, "context")
    check_whole(sequences, "sequences")


def check_devices(device: str | Mapping[str, str]) -> None:
    """Raises RequestError for a part or a device that there is not."""
    asked = device if isinstance(device, Mapping) else dict.fromkeys(PARTS, device)
    for part, name in asked.items():
        if not isinstance(part, str) or part not in PARTS:
            raise RequestError(f"device={{{part!r}: ...}}: no part of a model", hint=f"parts are {', '.join(PARTS)}")
        if not isinstance(name, str) or name not in DEVICES:
            raise RequestError(f"there is no device {name!r:.80} for {part}", hint=f"there is {', '.join(DEVICES)}")


def cache_rows(decoder: Decoder, asked: int | None, usual: int | None, sequences: int) -> int:
    """Rows of the cache. Raises RequestError where more is asked than so many sequences can fill."""
    usual = min(usual or _CONTEXT, _WHOLE if _is_bidirectional(decoder) else 1 << 31)
    rows = min(decoder.context, usual) if asked is None else asked
    if not 0 < rows <= decoder.context * sequences:
        each = f"this model was trained for 1 to {decoder.context}"
        raise RequestError(f"context={rows}", hint=each if sequences == 1 else f"{each}, times {sequences} sequences")
    return rows


def check_is_model(file: File) -> None:
    """Raises ModelError for GGUF files that are something else than a model of text, or its mmproj."""
    other = find_other(file, is_known=is_known(file))
    if other is not None:
        what, hint = other
        raise ModelError(f"{file.path} is {what}", hint=hint)


def _is_bidirectional(decoder: Decoder) -> bool:
    """Whether a step must have room for a whole text."""
    return any(shape.bidirectional for shape in decoder.groups.values())


@dataclass(frozen=True)
class _Read:
    """What a file of text holds."""

    decoder: Decoder
    tokenizer: Tokenizer
    template: ChatTemplate | None
    facts: Facts
    hearing: Hearing | None
    rank_head: RankHead | None
    dense: DenseHead | None


def _hearing(file: File, decoder: Decoder) -> Hearing | None:
    """The part for sound of a text model, where its file holds one that it remembers."""
    if not file.get_bool("clip.has_audio_encoder", False) or MEMORY not in decoder.groups:
        return None
    from opsin.api.speech.hearing import Hearing

    hearing = Hearing(file)
    hearing.check(decoder)
    return hearing


@dataclass(frozen=True)
class _Loading:
    """What all steps of loading need."""

    device: Device
    rules: FetchRules
    limits: PictureLimits
    budget: PictureBudget
    media_cache: MediaFolder | None
    notes: list[str] = field(default_factory=list)

    def read(self, file: File, found: Found | None, chat_template: str | None, *, guesses: bool) -> _Read:
        """`guesses`: with the layer that guesses further tokens, where there is one."""
        with ThreadPoolExecutor(1) as beside:
            # A large vocabulary takes as long as the weights of a small model: both at once.
            coming = beside.submit(Tokenizer.from_metadata, file.metadata)
            reader = FileReader(file, self.device.eager())
            decoder = load_decoder(file, reader if guesses else WithoutNextToken(reader))
            heads = RankHead.load(file, reader, decoder.width), DenseHead.load(file, reader, decoder.width)
            tokenizer = coming.result()
        if tokenizer.vocabulary_size > decoder.ids:
            raise ModelError(
                f"{file.path}: the tokenizer has {tokenizer.vocabulary_size} tokens, the model {decoder.ids}"
            )
        template = ChatTemplate.from_metadata(_with_template(file.metadata, chat_template))
        hearing = _hearing(file, decoder)
        self.notes.extend(find_notes(file, tokenizer, template, hears=hearing is not None))
        facts = Facts.of(file)
        if found is not None:
            facts = replace(facts, stop=found.stop, system=found.system)
        return _Read(decoder, tokenizer, template, facts, hearing, *heads)

    def senses(self, file: File, path: Path) -> Senses:
        """The parts for media of a file, which may be the one that is open."""
        return Senses.load(path, self.rules, self.limits, file if path == file.path else None, self.budget)

    def pair(self, files: Files, file: File, read: _Read) -> tuple[Senses | None, str]:
        """The part for media that belongs to a text model; where there is none, what to do about it."""
        own = file.get_bool("clip.has_vision_encoder", False)
        own = own or (file.get_bool("clip.has_audio_encoder", False) and read.hearing is None)
        found = pair(files, partial(self.senses, file), read.decoder, read.tokenizer, own=own)
        self.notes.extend(found.notes)
        return found.senses, found.no_media_hint

    def guessing(
        self, most: int, draft: str | Path | None, read: _Read, *, rows: int, sequences: int, pages: PageType
    ) -> Guessing | None:
        """How ids are guessed; None for not at all."""
        if not most:
            return None
        drafter = None
        if draft is not None:
            drafter = load_drafter(draft, self.device, read.tokenizer, rows=rows, sequences=sequences, pages=pages)
        return Guessing(most, drafter=drafter)

    def text(
        self, read: _Read, senses: Senses | None, *, rows: int, sequences: int, pages: PageType, states: int | None,
        guessing: Guessing | None,
    ) -> Text:  # fmt: skip
        decoder, hearing = read.decoder, read.hearing
        media = hearing if senses is None else senses
        at_once = _PICTURES if hearing is None else min(_SOUNDS, sequences)
        count = -(-(rows if hearing is None else max(rows, at_once * decoder.context)) // PAGE) + sequences
        whole = min(rows, decoder.context) if _is_bidirectional(decoder) else 0
        limits = Limits(
            rows=max(512, sequences, whole), outputs=max(64, sequences), sequences=sequences,
            context=min(rows, decoder.context), pages=count,
            states=count_slots(decoder.states, states, sequences=sequences, pages=count),
            memory=at_once * pages_for(media.memory_rows) if media is not None and MEMORY in decoder.groups else 1,
        )  # fmt: skip
        disk = None
        if senses is not None and self.media_cache is not None:
            disk = senses.keep_in(self.media_cache, decoder.media_width)
        store = MediaStore(_EMBEDDINGS, disk) if media is not None else None
        runner = Runner(self.device, decoder, limits, pages, store)
        if guessing is not None and guessing.drafter is None and decoder.guesses:
            guessing = replace(guessing, drafter=NextTokens(runner))
        encoders = media.load_encoders(self.device) if media is not None else None
        engine = Engine(runner, read.tokenizer.end_ids, encoders, guessing)
        grammars = Grammars(read.tokenizer, decoder.vocabulary)
        replies = Replies(read.tokenizer, read.template, grammars, decoder.vocabulary)
        markers = senses.markers if senses is not None else {}
        prompting = Prompting(read.tokenizer, read.template, markers, replies.format)
        pooler = Pooler(engine, runner, read.dense)
        return Text(
            runner, engine, pooler, read.tokenizer, grammars, prompting, replies, read.facts, hearing, read.rank_head
        )  # fmt: skip
