"""`opsin chat`: one answer, or a conversation. The answer goes to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import difflib
import json
import shlex
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from opsin.cli import forms, options, sampling_flags, video_flags
from opsin.cli.memory import peak_bytes
from opsin.cli.progress import Progress
from opsin.config import expanded
from opsin.errors import OpsinError, RequestError

if TYPE_CHECKING:
    from opsin.api import Answer, Message, Model, Piece
    from opsin.api.prompt_options import PromptOptions
    from opsin.api.replies import ReplyOptions
    from opsin.api.videos import LaidOut, Video
    from opsin.engine.sampling import Sampling
    from opsin.grammar import Grammar
    from opsin.spans import Patches

_LEAVE = ("/exit", "/bye", "/quit")
_COMMANDS = (
    "/image FILE shows a picture with the next question, /audio FILE plays a sound, /clear forgets the conversation, "
    "/exit or Ctrl-D leaves, Ctrl-C stops an answer"
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of this subcommand."""
    parser = commands.add_parser("chat", help="ask a model", description=__doc__)
    parser.set_defaults(run=run)
    options.add_model(parser, bundled=True)
    options.add_guesses(parser)
    options.add_mmproj(parser)
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="the question (default: stdin, or a conversation)")
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        type=expanded,
        metavar="FILE",
        help="a picture to ask about; again for more",
    )
    parser.add_argument(
        "--audio", action="append", default=[], type=expanded, metavar="FILE",
        help="a sound to ask about; again for more",
    )  # fmt: skip
    video_flags.add_videos(parser)
    parser.add_argument("-c", "--context", type=options.positive, metavar="N", help="tokens of prompt and answer")
    parser.add_argument("-s", "--system", metavar="TEXT", help="system message")
    parser.add_argument("-n", "--max-tokens", type=int, metavar="N", help="end an answer after N tokens")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text (repeatable)")
    parser.add_argument("--ignore-eos", action="store_true", help="go on past the end of the answer")
    parser.add_argument("--stats", action="store_true", help="write times and rates to stderr")
    options.add_pictures(parser)
    _add_thoughts(parser)
    forms.add_forms(parser)
    sampling_flags.add_sampling(parser)


def _add_thoughts(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("thoughts", "of models that think before they answer; they go to stderr")
    group.add_argument("--think", action=argparse.BooleanOptionalAction, help="whether to think, where one may choose")
    group.add_argument(
        "--reasoning-budget", type=int, default=-1, metavar="N", help="end thoughts after N tokens; -1: no limit"
    )
    group.add_argument("--reasoning-budget-message", default="", metavar="TEXT", help="what they end with then")
    group.add_argument(
        "--reasoning-format", choices=("auto", "none", "deepseek", "deepseek-legacy"), default="auto",
        help="none, deepseek-legacy: they stand in the answer, between the model's own words",
    )  # fmt: skip
    group.add_argument(
        "--chat-template-kwargs", type=_variables, default={}, metavar="JSON", help="variables of the chat template"
    )


def _variables(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object")
    return value


def run(args: argparse.Namespace) -> int:
    """Answer once, or converse where stdin is a terminal and no question was given."""
    converses = args.prompt is None and sys.stdin.isatty()
    prompt = None if converses else _question(args.prompt)
    asked, budget, thoughts = sampling_flags.sampling_options(args), options.picture_budget(args), _thoughts(args)
    form = forms.asked_form(args)

    import opsin

    path = options.model_file(args)
    with Progress(f"loading {path}") as progress:
        model = opsin.load(
            path, mmproj=args.mmproj, vision=args.vision, threads=args.threads, context=args.context,
            pages=args.cache_type, sequences=1, notice=progress, verify=args.verify, budget=budget,
            states=options.state_bytes(args), guesses=options.guesses(args), draft=args.draft,
        )  # fmt: skip
    options.tell(model.with_text())
    with model:
        stop = tuple(args.stop) or model.facts.stop
        chat = Chat(model, replace(model.facts.sampling, **asked), stop, args.system, args.stats, *thoughts, form)
        for path in args.image:
            chat.show(path)
        for path in args.audio:
            chat.play(path)
        for video in video_flags.videos(args):
            chat.watch(video)
        if prompt is None:
            return _converse(chat)
        chat.ask(prompt)
    return 0


def _question(prompt: str | None) -> str:
    try:
        text = _clean(sys.stdin.read() if prompt is None else prompt)
    except OSError as error:
        raise RequestError(f"the question cannot be read from stdin: {error.strerror}") from error
    if not text.strip():
        raise RequestError("the question is empty", hint="give it as an argument or on stdin")
    return text


def _clean(text: str) -> str:
    """Text without the lone surrogates that bytes outside UTF-8 become on a command line."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _thoughts(args: argparse.Namespace) -> tuple[PromptOptions, ReplyOptions]:
    """What was asked of thoughts; refused before a model is loaded."""
    from opsin.api.reply_keywords import reply_options

    if args.reasoning_budget < -1:
        raise RequestError(f"--reasoning-budget {args.reasoning_budget}", hint="give a number of tokens, or -1")
    most = None if args.reasoning_budget == -1 else args.reasoning_budget
    told, reply = reply_options({"think": args.think, "thought_tokens": most, "variables": args.chat_template_kwargs})
    within = args.reasoning_format in ("none", "deepseek-legacy")
    last = "" if args.think is False else args.reasoning_budget_message
    return told, replace(reply, thoughts="within" if within else "apart", last_thought=last)


@dataclass
class Chat:
    """A conversation with a model: what was said, and how to answer."""

    model: Model
    sampling: Sampling
    stop: tuple[str, ...]
    system: str | None
    stats: bool
    told: PromptOptions
    reply: ReplyOptions
    form: Grammar | None = None

    def __post_init__(self) -> None:
        self.messages: list[Message] = []
        self.media: list[Patches | LaidOut] = []  # of the next question
        self.clear()

    def show(self, path: Path) -> None:
        """A picture for the next question. Says how large it is, and how large the model sees it."""
        patches = self.model.prepare(path)
        self.media.append(patches)
        print(f"{path.name}: {_seen(patches)}", file=sys.stderr)

    def play(self, path: Path) -> None:
        """A sound for the next question. Says how long it is."""
        from opsin.media.sound import Sound

        patches = self.model.prepare(Sound(path))
        self.media.append(patches)
        told = [f"{patches.seconds or 0:.1f} seconds, {patches.rows} tokens", *patches.notes]
        print(f"{path.name}: {'; '.join(told)}", file=sys.stderr)

    def watch(self, video: Video) -> None:
        """A video for the next question. Says which frames the model sees, and what they take."""
        name = str(video.source)
        laid = video.on(self.model, name)
        self.media.append(laid)
        print(f"{name}: {video_flags.told(laid)}", file=sys.stderr)

    def clear(self) -> None:
        """Forget everything but the system message."""
        self.media = []
        self.messages = [{"role": "system", "content": _clean(self.system)}] if self.system is not None else []

    def ask(self, text: str) -> None:
        """Write the answer as it comes. An interrupted one is remembered as far as it got."""
        start = time.perf_counter()
        content = [*self.media, text] if self.media else text
        messages: list[Message] = [*self.messages, {"role": "user", "content": content}]
        question = self.model.question(messages, self.told)
        answer = self.model.generate(question, self.sampling, stop=self.stop, reply=self.reply, grammar=self.form)
        self.media = []
        told = Told()
        first = 0.0
        try:
            while (piece := answer.next_piece()) is not None:
                first = first or time.perf_counter()
                told.show(piece)
        finally:
            self.messages = [*messages, told.message]
        if not "".join(told.text[-1:]).endswith("\n"):
            _write("\n")
        if self.stats:
            self._tell(answer, start, first or start)

    def _tell(self, answer: Answer, start: float, first: float) -> None:
        now, count = time.perf_counter(), len(answer.ids)
        usage = answer.usage
        parts = {"of pictures": usage.pictures, "of sounds": usage.sounds, "cached": usage.cached}
        told = "".join(f", {tokens} {name}" for name, tokens in parts.items() if tokens)
        rate = f"{(count - 1) / (now - first):.1f} tokens/s" if count > 1 else "too short for a rate"
        print(
            f"load {self.model.load_seconds:.2f} s; prompt {usage.prompt} tokens{told}, "
            f"first after {first - start:.2f} s; answer {count} tokens, {rate}, ended by {answer.reason}; "
            f"peak {peak_bytes() / 1e6:.0f} MB; {self.model.device.threads} threads",
            file=sys.stderr,
        )


@dataclass
class Told:
    """What was shown of an answer: its text, and on stderr, apart from it, its thoughts."""

    text: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)

    def show(self, piece: Piece) -> None:
        """Some more of it."""
        from opsin.text.calls import Thought

        for delta in piece.deltas:
            if isinstance(delta, Thought):
                self.thoughts.append(delta.text)
                print(delta.text, end="", file=sys.stderr, flush=True)
        if piece.text:
            if self.thoughts and not self.text:
                print("\n", file=sys.stderr)
            self.text.append(piece.text)
            _write(piece.text)

    @property
    def message(self) -> Message:
        """As the conversation holds it."""
        thoughts = {"reasoning_content": "".join(self.thoughts)} if self.thoughts else {}
        return {"role": "assistant", "content": "".join(self.text), **thoughts}


def _seen(patches: Patches) -> str:
    """A picture's sizes, and what a person should know of it."""
    (width, height), seen = patches.original or (0, 0), patches.size
    sizes = f"{width} x {height} pixels, " + (f"seen at {seen[0]} x {seen[1]}, " if seen else "")
    return "; ".join([f"{sizes}{patches.rows} tokens", *patches.notes])


def _write(text: str) -> None:
    """To stdout, now."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _converse(chat: Chat) -> int:
    """Read questions from a terminal until it ends."""
    print(f"{chat.model.name}: {_COMMANDS}", file=sys.stderr)
    with suppress(ImportError):  # not on every platform
        import readline  # noqa: F401 - gives input() a history and line editing
    Thread(target=chat.model.tokenizer.prepare, daemon=True).start()  # while the first question is written
    while True:
        try:
            text = _clean(_read_line()).strip()
        except EOFError:
            print(file=sys.stderr)
            return 0
        except KeyboardInterrupt:
            print("\nCtrl-D leaves", file=sys.stderr)
            continue
        if text.startswith("/"):
            if not _obey(chat, *text.partition(" ")[::2]):
                return 0
        elif text:
            _answer(chat, text)


def _obey(chat: Chat, command: str, rest: str) -> bool:
    """Do what a line that begins with a slash says. Whether the conversation goes on."""
    if command in _LEAVE:
        return False
    if command == "/clear":
        chat.clear()
    elif command in ("/image", "/audio"):
        _show(chat, command, rest.strip())
    elif command == "/help":
        print(_COMMANDS, file=sys.stderr)
    else:
        near = difflib.get_close_matches(command, ("/image", "/audio", "/clear", "/help", *_LEAVE), 1)
        if expanded(command).is_file():
            near = [f"/image {command}"]
        print(f"opsin: there is no {command}" + (f"; did you mean {near[0]}?" if near else ""), file=sys.stderr)
        print(_COMMANDS, file=sys.stderr)
    return True


def _read_line() -> str:
    if sys.stdout.isatty():
        return input("> ")
    print("> ", end="", file=sys.stderr, flush=True)
    return input()


def _show(chat: Chat, command: str, name: str) -> None:
    """A picture or a sound that cannot be read ends nothing."""
    what, take = ("picture", chat.show) if command == "/image" else ("sound", chat.play)
    if not name:
        print(f"opsin: {command} FILE: say which {what}, then ask about it", file=sys.stderr)
        return
    try:
        for path in _named(name):
            take(path)
    except OpsinError as error:
        print(f"opsin: {error}", file=sys.stderr)


def _named(text: str) -> list[Path]:
    """The files of a line: one name as it stands, spaces and all; else as a shell reads them.

    So a terminal writes the files that are dropped on it: in quotes, with backslashes before spaces.
    """
    whole = expanded(text)
    if whole.is_file():
        return [whole]
    try:
        return [expanded(name) for name in shlex.split(text)]
    except ValueError:  # a quote that nothing closes
        return [whole]


def _answer(chat: Chat, text: str) -> None:
    """Errors and Ctrl-C end an answer, not the conversation."""
    try:
        chat.ask(text)
    except KeyboardInterrupt:
        print("\n(stopped)", file=sys.stderr)
    except OpsinError as error:
        print(f"opsin: {error}; /clear starts anew", file=sys.stderr)
