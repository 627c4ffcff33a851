"""What guesses give: tokens a second with them and without, by turns, on a text to copy and on ordinary questions.

    python bench/guesses.py [--model FILE] [--rounds 3] [--tokens 200] [--threads 2] [--draft FILE] [--recite] [--count]

The copy-heavy task is to write a text again with one word changed, which any editor of code or prose asks for; chat is
questions whose answers stand nowhere. Answers are the same with and without (it is checked), drawn from the likeliest.
The model is SmolLM2-135M (tools/fetch_smollm2.py), or another. Of one with random weights, which copies nothing,
`--recite` has each answer be the text with the word changed, id by id: rows cost what they cost in any model. `--count`
is for files of `random_qwen35.py --right`, whose answers count on, so that nothing is looked up: their layer guesses.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ours import smollm2

import opsin
from opsin.engine.sampling import Sampling
from opsin.engine.sequence import Stream
from opsin.spans import Prompt

TEXT = """\
The harbour of the old town lies on the northern side of the bay, where the river meets the sea. In the morning the
fishermen bring their boats to the stone quay and sell what they caught during the night. Around noon the market closes,
the nets are mended in the sun, and the children of the fishermen jump from the wall into the green water. Nobody knows
how old the wall is. Some say that it was built by monks who came over the mountains with nothing but a bell and a book;
others believe that it was always there, and that the town grew around it as a tree grows around a nail.
"""
WORD, OTHER = "fishermen", "sailors"
QUESTIONS = (
    "What is a good way to learn a new language?",
    "Explain why the sky is blue.",
    "Write a short story about a lighthouse keeper.",
    "How do I cook rice?",
)
COPY = (f"Write this text again, word by word, but write '{OTHER}' instead of '{WORD}'.\n\n{TEXT}",)


@dataclass(frozen=True)
class Run:
    """Answers to some questions, one after another."""

    ids: list[list[int]]
    seconds: float
    guessed: int
    right: int

    @property
    def rate(self) -> float:
        """Tokens a second, without the first ones, which come with their prompts."""
        return (sum(len(ids) for ids in self.ids) - len(self.ids)) / self.seconds


class Recited:
    """A constraint: ids one after another, whatever the model holds of them."""

    def __init__(self, ids: list[int], vocabulary: int) -> None:
        self._ids, self._vocabulary, self._place = ids, vocabulary, 0

    @property
    def ended(self) -> bool:
        return self._place == len(self._ids)

    def mask(self) -> npt.NDArray[np.uint8]:
        bits = np.zeros(-(-self._vocabulary // 8), np.uint8)
        id = self._ids[self._place]
        bits[id >> 3] = 1 << (id & 7)
        return bits

    def forced(self) -> Sequence[int]:
        return ()

    def accept(self, id: int) -> None:
        self._place += 1


def read(streams: Iterator[Stream]) -> Run:
    """What streams give, one after another."""
    answers, seconds, guessed, right = list[list[int]](), 0.0, 0, 0
    for stream in streams:
        outputs = list(stream)
        answers.append([output.id for output in outputs if output.id is not None])
        seconds += outputs[-1].at - outputs[0].at
        guessed, right = guessed + stream.guessed, right + stream.right
    return Run(answers, seconds, guessed, right)


def asked(model: opsin.Model, questions: tuple[str, ...], tokens: int) -> Run:
    sampling = Sampling(temperature=0.0, max_tokens=tokens)
    return read(model.engine.submit(model.question(question).prompt, sampling) for question in questions)


def recited(model: opsin.Model, tokens: int) -> Run:
    vocabulary = model.runner.decoder.vocabulary
    given, said = (model.tokenizer.encode(text) for text in (TEXT, TEXT.replace(WORD, OTHER)))
    form = Recited(said[:tokens], vocabulary)
    return read(iter([model.engine.submit(Prompt.of([given]), Sampling(temperature=0.0), constraint=form)]))


def counted(model: opsin.Model, tokens: int) -> Run:
    sampling = Sampling(temperature=0.0, max_tokens=tokens)
    return read(iter([model.engine.submit(Prompt.of([list(range(1000, 1100))]), sampling)]))


def compare(name: str, runs: list[tuple[Run, Run]]) -> None:
    """A line: medians of rates without and with guesses, and of their ratios."""
    assert all(plain.ids == guessing.ids for plain, guessing in runs), "answers differ"
    without, with_guesses = (statistics.median(run.rate for run in some) for some in zip(*runs, strict=True))
    ratio = statistics.median(guessing.rate / plain.rate for plain, guessing in runs)
    last = runs[-1][1]
    told = f"{last.right} of {last.guessed} guesses right, {sum(map(len, last.ids))} tokens"
    print(f"{name:8} {without:8.1f} {with_guesses:8.1f} tokens/s  {ratio:5.2f} times  ({told})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--draft", type=Path, help="a smaller model, which guesses, too")
    parser.add_argument("--recite", action="store_true")
    parser.add_argument("--count", action="store_true")
    args = parser.parse_args()
    path = args.model or smollm2()
    with (
        opsin.load(path, threads=args.threads, context=2048, guesses=0) as plain,
        opsin.load(path, threads=args.threads, context=2048, draft=args.draft) as guessing,
    ):
        tasks = (
            {"recite": lambda model: recited(model, args.tokens)}
            if args.recite
            else {"count": lambda model: counted(model, args.tokens)}
            if args.count
            else {
                "copy": lambda model: asked(model, COPY, args.tokens),
                "chat": lambda model: asked(model, QUESTIONS, args.tokens),
            }
        )
        for name, task in tasks.items():
            for model in (plain, guessing):
                task(model)
            runs = []
            for _ in range(args.rounds):
                time.sleep(0.2)
                runs.append((task(plain), task(guessing)))
            compare(name, runs)


if __name__ == "__main__":
    main()
