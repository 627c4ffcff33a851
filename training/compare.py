"""Do llama.cpp and opsin give the same greedy answers as torch? `python -m training.compare` asks them 200 questions.

llama.cpp runs through `xllamacpp`; pictures go to it as PNG of the model's own size. The torch model is rounded to
float16 as the file is. Beside llama.cpp it gets a picture without the line breaks that transformers adds, beside opsin
with them: each as the program itself does. `--opsin` asks opsin alone and leaves the other figures as they are.

`--questions all` asks all of the test; each program answers earlier questions itself. `--forms bundled` asks the file
that comes with opsin, if it holds these weights.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import time
from pathlib import Path

import gguf
import numpy as np
import torch
from PIL import Image

from training.evaluate import ask_items, load_model
from training.export import FILE_TYPES, FOLDER, export
from training.model import Nano
from training.testset import Item, build

REPORT = Path(__file__).parent / "compare.json"
BUNDLED = "bundled"


def as_png(pixels: np.ndarray) -> str:
    """A data URI of the picture."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def open_server(model: Path, tower: Path, threads: int) -> object:
    """llama.cpp's server inside this process."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.mmproj.path = str(tower)
    params.n_ctx = 1024
    params.n_parallel = 1
    params.cpuparams.n_threads = threads
    params.use_jinja = True
    params.warmup = False
    return xllamacpp.Server(params)


def ask_server(server: object, item: Item, limit: int = 24) -> str:
    """llama.cpp's greedy answer."""
    content: list[dict[str, object]] = [{"type": "image_url", "image_url": {"url": as_png(picture)}}
                                        for picture in item.pictures]
    content.append({"type": "text", "text": item.question})
    request = {"messages": [{"role": "user", "content": content}], "max_tokens": limit, "temperature": 0.0,
               "top_k": 1, "cache_prompt": False}
    reply = server.handle_chat_completions(request)  # type: ignore[attr-defined]
    parsed = json.loads(reply) if isinstance(reply, str | bytes) else reply
    if "choices" not in parsed:
        raise RuntimeError(f"llama.cpp answered {parsed}")
    return str(parsed["choices"][0]["message"]["content"]).strip()


def ask_opsin(paths: tuple[Path, ...], items: list[Item], threads: int, limit: int = 24) -> list[str]:
    """opsin's greedy answers, from the files or, without any, from the bundled one."""
    import opsin

    said: list[str] = []
    with opsin.load(*paths[:1], mmproj=paths[1] if paths else None, threads=threads, sequences=1) as model:
        for item in items:
            messages: list[dict[str, object]] = []
            content: list[object] = [*item.pictures]
            for question in (*item.before, item.question):
                messages.append({"role": "user", "content": [*content, question]})
                reply = model.chat(messages, max_tokens=limit, temperature=0.0).text.strip()
                messages.append({"role": "assistant", "content": reply})
                content = []
            said.append(reply)
    return said


def choose(count: int | None) -> list[Item]:
    """Questions from all over the test, the same ones every time; all of them for None."""
    if count is None:
        return build()
    items = [item for item in build(0.2) if not item.before]
    if count > len(items):
        raise SystemExit(f"--questions {count}: at most {len(items)}, or all")
    return random.Random("compare").sample(items, count)


def bundled_alike(files: tuple[Path, Path]) -> tuple[Path, ...]:
    """No files, which stands for the bundled one, if it holds the weights of these."""
    from opsin.hub.bundled import bundled

    held, ours = ({tensor.name: tensor.data for path in paths for tensor in gguf.GGUFReader(path).tensors}
                  for paths in ((bundled(),), files))
    if held.keys() != ours.keys() or any(not np.array_equal(held[name], ours[name]) for name in ours):
        raise SystemExit("the file that comes with opsin was made from other weights")
    return ()


def rounded(model: Nano) -> Nano:
    """The model with its matrices rounded as the F16 file rounds them."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "position_embedding" not in name:  # which stays float32
                parameter.copy_(parameter.half().float())
    return model


def agreement(items: list[Item], ours: list[str], theirs: list[str], name: str) -> dict[str, float]:
    """Shares of equal and of right answers; prints a few that differ."""
    differing = [(i.category, i.question, a, b) for i, a, b in zip(items, ours, theirs, strict=True) if a != b]
    for line in differing[:5]:
        print(name, *line, sep=" | ")
    return {"same as torch": 1 - len(differing) / len(items), "right": right(items, theirs)}


def right(items: list[Item], said: list[str]) -> float:
    """The share of right answers."""
    return sum(a == i.answer for a, i in zip(said, items, strict=True)) / len(items)


def ask_torch(model: Nano, items: list[Item], *, lines: bool) -> list[str]:
    """The greedy answers of the rounded model."""
    return ask_items(rounded(model), items, lines=lines)


def compare(model: Nano, count: int, threads: int, folder: Path) -> dict[str, dict[str, float]]:
    """Shares of equal answers and of right answers in llama.cpp, a format each."""
    items = choose(count)
    ours = ask_torch(model, items, lines=False)
    table = {"torch": {"right": right(items, ours)}}
    for form in FILE_TYPES:
        server = open_server(*export(model, form, folder), threads)
        table[form] = agreement(items, ours, [ask_server(server, item) for item in items], form)
        del server
    return table


def compare_opsin(model: Nano, items: list[Item], forms: list[str], threads: int,
                  folder: Path) -> dict[str, dict[str, float]]:
    """The same for opsin."""
    began = time.perf_counter()
    ours = ask_torch(model, items, lines=True)
    print(f"torch: {time.perf_counter() - began:.0f} s", flush=True)
    table = {"torch, with line breaks": {"right": right(items, ours)}}
    for form in forms:
        began = time.perf_counter()
        paths = bundled_alike(export(model, "F16", folder)) if form == BUNDLED else export(model, form, folder)
        table[f"opsin {form}"] = agreement(items, ours, ask_opsin(paths, items, threads), f"opsin {form}")
        print(f"opsin {form}: {time.perf_counter() - began:.0f} s", flush=True)
    return table


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="", help="a run below training/runs; else the weights in the package")
    parser.add_argument("--questions", default="200", help="how many, or all (opsin only)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=REPORT)
    parser.add_argument("--files", type=Path, default=FOLDER, help="where to write the GGUF files")
    parser.add_argument("--opsin", action="store_true", help="ask opsin instead of llama.cpp")
    parser.add_argument("--forms", nargs="+", choices=[*FILE_TYPES, BUNDLED], default=list(FILE_TYPES),
                        help="which files opsin is asked with")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    count = None if chosen.questions == "all" else int(chosen.questions)
    if not (count or chosen.opsin):
        parser.error("--questions all is for --opsin: llama.cpp is not asked earlier questions")
    model = load_model(chosen.run)
    table = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
    if chosen.opsin:
        found = compare_opsin(model, choose(count), chosen.forms, chosen.threads, chosen.files)
    else:
        found = compare(model, count, chosen.threads, chosen.files)
    table |= {name if count else f"{name}, all questions": row for name, row in found.items()}
    chosen.out.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
