"""Eight clients ask one server everything at once, beside a watcher of /health: no answer of ours may be a failure.

    python tests/serve/soak.py --seconds 60 [--model FILE]

Ids, texts and greedy answers are compared with those made alone, also while conversations are saved, restored and
erased, and where pictures are stored, named, or read from disk. Prints a line a route, and the longest gap of /health.
A short round of it is in the suite.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import string
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

CLIENTS = 8
PICTURES = ["one.jpg", "scene.png", "six.png", "ring.png"]
PLACES = 32  # for answers
EXAMPLES = Path(__file__).parents[2] / "examples"
QUESTIONS = [f"What comes after {number}?" for number in range(6)]
CALLS = [
    {"role": "user", "content": "w?"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"city": "Paris"}'}}]},
    {"role": "tool", "tool_call_id": "c", "content": "42"},
]  # fmt: skip
Reply = tuple[int, bytes]


class Client:
    """A connection that is kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._made = HTTPConnection("127.0.0.1", port, timeout=300)

    def __del__(self) -> None:
        self._made.close()

    @staticmethod
    def encoded(body: object) -> bytes:
        """A body as it is sent: making a large one keeps a client's other threads from asking."""
        return json.dumps(body).encode()

    def ask(
        self, path: str, body: object = None, *, leave_after: int | None = None, pause: float = 0,
        kind: str = "application/json", method: str = "POST",
    ) -> Reply:  # fmt: skip
        """Status and body; `leave_after` so many bytes the client goes away; it `pause`s between small reads."""
        data = body if body is None or isinstance(body, bytes) else self.encoded(body)
        try:
            self._made.request("GET" if body is None else method, path, data, {"Content-Type": kind})
            response = self._made.getresponse()
            if leave_after is None:
                return response.status, _read(response, pause)
            told = response.read(leave_after)
            status = response.status
        except (ConnectionError, TimeoutError):
            self._made.close()
            self._made = HTTPConnection("127.0.0.1", self._port, timeout=300)
            raise
        self._made.close()
        return status, told


def _read(response: HTTPResponse, pause: float) -> bytes:
    if not pause:
        return response.read()
    told = b""
    while piece := response.read(512):
        told += piece
        time.sleep(pause)
    return told


def chat(question: str, **others: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 6, **others}


def picture(name: str) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode((EXAMPLES / name).read_bytes()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def words(draw: random.Random, count: int) -> str:
    return " ".join("".join(draw.choices(string.ascii_letters, k=draw.randint(3, 12))) for _ in range(count))


class Crowd:
    """What clients ask, and what they must hear."""

    def __init__(self, port: int, tokenize: Callable[[str], list[int]], *, sees: bool) -> None:
        self.port, self.tokenize, self.sees = port, tokenize, sees
        self.alone = {question: self._answer(Client(port), question) for question in QUESTIONS}
        self.seen = {name: self._look(Client(port), picture(name))[1] for name in (PICTURES if sees else ())}
        self.counts: Counter[tuple[str, int]] = Counter()
        self.wrong: list[str] = []
        self._lock = threading.Lock()

    def _answer(self, client: Client, question: str) -> str:
        status, body = client.ask("/v1/chat/completions", chat(question))
        return json.loads(body)["choices"][0]["message"]["content"] if status == 200 else f"status {status}"

    def ask(self, seed: int, until: float) -> None:
        """One client's requests."""
        draw, client = random.Random(seed), Client(self.port)
        works = [self._ids, self._chat, self._stream, self._leaves, self._history, self._told, self._mistakes]
        works += [self._slots, *([self._pictures, self._stored, self._named] if self.sees else [])]
        while time.monotonic() < until:
            work = draw.choice(works)
            try:
                found = list(work(draw, client))
            except (ConnectionError, TimeoutError) as error:
                found = [(work.__name__, 0, f"{type(error).__name__}")]
            with self._lock:
                for path, status, complaint in found:
                    self.counts[path, status] += 1
                    if complaint:
                        self.wrong.append(f"{path}: {status} {complaint}")

    def _ids(self, draw: random.Random, client: Client) -> Iterator[tuple[str, int, str]]:
        texts = [words(draw, 60)[:500] for _ in range(20)]
        status, body = client.ask("/tokenize", {"content": texts})
        ids = json.loads(body).get("tokens")
        one = draw.choice(texts)
        own, asked = self.tokenize(one), json.loads(client.ask("/tokenize", {"content": one})[1]).get("tokens")
        yield "/tokenize", status, "" if status == 200 and asked == own else f"{asked} for {one!r}"
        status, body = client.ask("/detokenize", {"tokens": ids})
        right = status == 200 and "".join(json.loads(body)["content"].split()) == "".join("".join(texts).split())
        yield "/detokenize", status, "" if right else "another text"

    def _chat(self, draw: random.Random, client: Client) -> Iterator[tuple[str, int, str]]:
        question = draw.choice(QUESTIONS)
        answer = self._answer(client, question)
        yield "/v1/chat/completions", 200, "" if answer == self.alone[question] else f"{answer!r}"

    def _stream(self, draw: random.Random, client: Client) -> Iterator[tuple[str, int, str]]:
        question = draw.choice(QUESTIONS)
        status, body = client.ask("/v1/chat/completions", chat(question, stream=True))
        events = [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: {")]
        text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event.get("choices"))
        right = body.endswith(b"data: [DONE]\n\n") and text == self.alone[question]
        yield "stream", status, "" if right else f"{text!r}"

    def _leaves(self, draw: random.Random, client: Client) -> Iterator[tuple[str, int, str]]:
        asked = chat(words(draw, 30), stream=True, max_tokens=200, logprobs=True, ignore_eos=True)
        status, _ = client.ask("/v1/chat/completions", asked, leave_after=draw.randint(1, 2000))
        yield "left", status, ""

    def _history(self, draw: random.Random, client: Client) -> Iterator[tuple[str, int, str]]:
        for path in ("/apply-template", "/v1/chat/completions/input_tokens"):
            status, body = client.ask(path, {"messages": CALLS})
            yield path, status, "" if status == 200 else body.decode()

    def _told(self, draw: random.Random, client: Client) -> Iterator[tuple[str, int, str]]:
        for path in ("/health", "/props", "/slots", "/metrics", "/v1/models"):
            status, body = client.ask(path)
            yield path, status, "" if status == 200 else body.decode()

    def _mistakes(self, draw: random.Random, client: Client) -> Iterator[tuple[str, int, str]]:
        body = draw.choice([{}, {"messages": []}, chat("x", tools=[{}]), chat("x" * 300_000), chat("x", n=99)])
        status, told = client.ask("/v1/chat/completions", body)
        yield "mistake", status, "" if status == 400 else told.decode()[:200]

    def _look(self, client: Client, part: dict[str, Any]) -> tuple[int, str]:
        """The status, and what is said of a picture, or what is wrong."""
        content = [part, {"type": "text", "text": "What colour is it?"}]
        asked = {"messages": [{"role": "user", "content": content}], "max_tokens": 4, "temperature": 0}
        status, body = client.ask("/v1/chat/completions", asked)
        told = json.loads(body)["choices"][0]["message"]["content"] if status == 200 else body.decode()[:200]
        return status, told

    def _pictures(self, draw: random.Random, client: Client) -> Iterator[tuple[str, int, str]]:
        name = draw.choice(PICTURES)
        status, told = self._look(client, picture(name))
        yield "picture", status, "" if told == self.seen[name] else told

    def _stored(self, draw: random.Random, client: Client) -> Iterator[tuple[str, int, str]]:
        name = draw.choice(PICTURES)
        head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
        form = head + (EXAMPLES / name).read_bytes() + b"\r\n--x--\r\n"
        status, body = client.ask("/v1/files", form, kind="multipart/form-data; boundary=x")
        yield "/v1/files", status, "" if status == 200 else body.decode()[:200]
        id = json.loads(body)["id"]
        status, told = self._look(client, {"type": "file", "file": {"file_id": id}})
        yield "stored picture", status, "" if told == self.seen[name] else told
        status, body = client.ask(f"/v1/files/{id}", b"", method="DELETE")
        yield "/v1/files", status, "" if status == 200 else body.decode()[:200]

    def _named(self, draw: random.Random, client: Client) -> Iterator[tuple[str, int, str]]:
        name = draw.choice(PICTURES)
        for part in ({**picture(name), "uuid": name}, {"type": "image_url", "uuid": name}):
            status, told = self._look(client, part)
            yield "named picture", status, "" if told == self.seen[name] else told

    def _slots(self, draw: random.Random, client: Client) -> Iterator[tuple[str, int, str]]:
        place, name = draw.randrange(PLACES), f"{draw.randrange(CLIENTS)}.bin"
        for action in draw.sample(["save", "restore", "erase"], 2):
            status, body = client.ask(f"/slots/{place}?action={action}", {"filename": name})
            fine = status == 200 or (status == 400 and action == "restore" and b"Unable to restore" in body)
            yield f"/slots {action}", status, "" if fine else body.decode()[:200]


def watch(port: int, until: float) -> list[float]:
    """Seconds that each /health took."""
    client, took = Client(port), []
    while time.monotonic() < until:
        start = time.perf_counter()
        client.ask("/health")
        took.append(time.perf_counter() - start)
        time.sleep(0.02)
    return took


@contextmanager
def serving(model: Path | None, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server, and its port."""
    kept = TemporaryDirectory()
    command = [sys.executable, "-m", "opsin", "serve", "--port", "0", *(["-m", str(model)] if model else [])]
    command += ["--slot-save-path", f"{kept.name}/slots", "--media-cache", f"{kept.name}/media", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    drain = threading.Thread(target=lambda: process.stderr.read(), daemon=True)  # type: ignore[union-attr]
    try:
        line = next(line for line in process.stderr if "listening on" in line)
        port = int(line.split("listening on http://127.0.0.1:")[1].split(",")[0])
        drain.start()
        while Client(port).ask("/health")[0] != 200:
            time.sleep(0.1)
        yield process, port
    finally:
        process.terminate()
        process.wait(30)
        drain.join()
        process.stderr.close()
        kept.cleanup()


def soak(port: int, tokenize: Callable[[str], list[int]], seconds: float, *, sees: bool) -> tuple[Crowd, list[float]]:
    """Everything at once for so long."""
    crowd = Crowd(port, tokenize, sees=sees)
    until = time.monotonic() + seconds
    clients = [threading.Thread(target=crowd.ask, args=(seed, until)) for seed in range(CLIENTS)]
    for client in clients:
        client.start()
    took = watch(port, until)
    for client in clients:
        client.join()
    return crowd, took


def idle(port: int) -> bool:
    """Whether nothing is left behind."""
    told = Client(port).ask("/metrics")[1].decode()
    return "opsin_requests_inside 0.0\n" in told


def main() -> int:
    import opsin

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--model", type=Path, help="a GGUF file (default: the model that comes with opsin)")
    args = parser.parse_args()
    with opsin.load(args.model, threads=1, vision=False, context=512) as model, serving(args.model) as (_, port):
        crowd, took = soak(port, lambda text: model.tokenize(text, special=True), args.seconds, sees=args.model is None)
        time.sleep(1)
        is_idle = idle(port)
    for (path, status), count in sorted(crowd.counts.items()):
        print(f"{path:40} {status} {count:6}")
    failures = sum(count for (_, status), count in crowd.counts.items() if status >= 500)
    took.sort()
    print(f"{failures} failures of ours, {len(crowd.wrong)} wrong answers, idle afterwards: {is_idle}")
    print(f"/health {len(took)} times: median {took[len(took) // 2]:.4f} s, longest {took[-1]:.3f} s")
    for line in crowd.wrong[:10]:
        print(line)
    return 1 if failures or crowd.wrong or not is_idle else 0


if __name__ == "__main__":
    sys.exit(main())
