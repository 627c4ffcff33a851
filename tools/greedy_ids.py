"""Prints what machines and instruction sets are compared by, as JSON: the ids of greedy answers.

    python tools/greedy_ids.py [MODEL.gguf] [--tokens 200] [--questions 5]

Of opsin-nano, so many of the recorded questions about a picture; of a model of text, so many tokens of one answer. With
them the instruction set, and a digest of the logits of that answer's prompt, which sets of equally long vectors share.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

from PIL import Image

import opsin
from opsin.config import from_environment
from opsin.ops.cpu.isa import choose

HERE = Path(__file__).resolve().parents[1]
ASKED = [{"role": "user", "content": "Tell me a long story about a dog who went to sea."}]


def of_nano(questions: int) -> dict[str, list[int]]:
    """By question."""
    recorded = json.loads((HERE / "tests/nano/answers.json").read_text())
    found = {}
    with opsin.load(threads=2, sequences=1, context=512) as model:
        for line in recorded[:questions]:
            content = [*(Image.open(HERE / name) for name in line["pictures"]), line["question"]]
            answer = model.chat([{"role": "user", "content": content}], temperature=0.0, max_tokens=24)
            print(f"{line['question']} {answer.text}", file=sys.stderr, flush=True)
            found[f"{line['pictures']} {line['question']}"] = list(answer.ids)
    return found


def of_text(path: Path, tokens: int) -> tuple[list[int], str]:
    """The ids, and the digest of the prompt's logits."""
    with opsin.load(path, threads=2, sequences=1, context=512) as model:
        logits = model.logits(list(model.chat_prompt(ASKED).spans[0].ids))
        answer = model.chat(ASKED, temperature=0.0, max_tokens=tokens, ignore_eos=True)
        print(answer.text, file=sys.stderr)
        return list(answer.ids), hashlib.sha256(logits.tobytes()).hexdigest()


def main() -> None:
    """Answer and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--questions", type=int, default=5)
    args = parser.parse_args()
    ids, digest = of_nano(args.questions) if args.questions else {}, ""
    if args.model is not None:
        ids[args.model.name], digest = of_text(args.model, args.tokens)
    print(json.dumps({"instructions": choose(from_environment()).name, "logits": digest, "ids": ids}))


if __name__ == "__main__":
    main()
