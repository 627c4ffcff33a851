"""Many clients ask one server everything it can do, over every protocol at once.

    python tests/serve/mixed_requests.py --requests 20000 [--clients 8] [--models 3] [--seed 1]

With --models the server has so many models and memory for two, and one request in fifty is for another than the first.

Greedy answers must be those of the same request alone, whether told whole, streamed, read slowly, held to a form or
beside others'; what is wrong must be refused in its protocol's words; when all is done nothing may be left behind, and
the process may have grown by 2 % at most since the first tenth of the requests (or --warm). A short round of it is in
the suite.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copyfile
from subprocess import Popen
from tempfile import TemporaryDirectory
from typing import Any

from soak import CLIENTS, EXAMPLES, Client, idle, serving, words

QUESTIONS = [f"What comes after {number}?" for number in range(4)]
PICTURES = ["one.jpg", "scene.png", "six.png", "ring.png"]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 99}}, "required": ["n"],
          "additionalProperties": False}  # fmt: skip
MOVE = {"type": "object", "properties": {"way": {"enum": ["left", "right"]}}, "required": ["way"]}
NANO = EXAMPLES.parent / "src" / "opsin" / "data" / "opsin-nano.gguf"
POOLS_REST = 30  # seconds after which threads of pools end, see `Threads`
GROWTH = 1.02  # of the process's memory, at most
FACTS = ("opsin_requests_inside", "opsin_pages_used", "opsin_memory_pages_used", "opsin_states_used",
         "opsin_pictures_pinned", "opsin_leaked")  # fmt: skip
Complaint = str


@dataclass(frozen=True)
class Asked:
    """A request whose answer is the same each time, and how its text is found in the reply.

    `model` is the one that it is for, whatever a client asks for; a body of bytes is sent as it is, of the `kind`.
    """

    name: str
    path: str
    body: dict[str, Any] | bytes
    text: Callable[[bytes], str]
    image: str = ""
    model: str = ""
    kind: str = "application/json"


def encoded(name: str) -> str:
    return base64.b64encode((EXAMPLES / name).read_bytes()).decode()


def kind_of(name: str) -> str:
    return "image/jpeg" if name.endswith("jpg") else "image/png"


def events(told: bytes) -> list[Any]:
    """The data of server-sent events."""
    return [json.loads(line[6:]) for line in told.decode().splitlines() if line.startswith("data: {")]


def lines(told: bytes) -> list[Any]:
    return [json.loads(line) for line in told.decode().splitlines()]


def _chat_whole(told: bytes) -> str:
    message = json.loads(told)["choices"][0]["message"]
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return str(message["content"] or "") + "".join(f"{call['name']}{call['arguments']}" for call in calls)


def _chat_streamed(told: bytes) -> str:
    said = ""
    for event in events(told):
        for choice in event.get("choices", ()):
            said += choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls") or ():
                said += call["function"].get("name") or ""
                said += call["function"].get("arguments") or ""
    return said


def _all_choices(told: bytes) -> str:
    return "|".join(choice["message"]["content"] for choice in json.loads(told)["choices"])


def _messages_streamed(told: bytes) -> str:
    return "".join(event["delta"].get("text", "") for event in events(told) if event["type"] == "content_block_delta")


def _responses_streamed(told: bytes) -> str:
    return "".join(event["delta"] for event in events(told) if event["type"] == "response.output_text.delta")


def _responses_whole(told: bytes) -> str:
    items = json.loads(told)["output"]
    return "".join(part["text"] for item in items if item["type"] == "message" for part in item["content"])


def openai_requests(question: str, image: str) -> Iterator[Asked]:
    """A text, a picture, a form, a call and several answers, in chat and completions."""
    path, base = "/v1/chat/completions", {"temperature": 0, "max_tokens": 6}
    url = f"data:{kind_of(image)};base64,{encoded(image)}"
    seen = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What colour is it?"}]
    tool = {"type": "function", "function": {"name": "move", "parameters": MOVE}}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    asked = {"messages": [{"role": "user", "content": question}], **base}
    for name, body in {
        "text": asked,
        "picture": {**asked, "messages": [{"role": "user", "content": seen}]},
        "form": {**asked, "response_format": form, "max_tokens": 40},
        "call": {**asked, "tools": [tool], "tool_choice": "required", "max_tokens": 60},
    }.items():
        yield Asked(f"chat, {name}", path, body, _chat_whole, image)
        yield Asked(f"chat, {name}, streamed", path, {**body, "stream": True}, _chat_streamed)
    yield Asked("chat, three answers", path, {**asked, "n": 3}, _all_choices)
    prompt = {"prompt": question, **base}
    yield Asked("completion", "/v1/completions", prompt, lambda told: json.loads(told)["choices"][0]["text"])
    yield Asked(
        "native completion", "/completion", {**prompt, "n_predict": 6}, lambda told: json.loads(told)["content"]
    )


def responses_requests(question: str, image: str) -> Iterator[Asked]:
    """OpenAI's responses."""
    url = f"data:{kind_of(image)};base64,{encoded(image)}"
    seen = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": "What colour is it?"}]
    for name, asked in {"text": question, "picture": [{"role": "user", "content": seen}]}.items():
        body = {
            "input": asked,
            "temperature": 0,
            "max_output_tokens": 16,
            "store": False,
        }  # what is stored takes memory
        yield Asked(f"responses, {name}", "/v1/responses", body, _responses_whole)
        yield Asked(f"responses, {name}, streamed", "/v1/responses", {**body, "stream": True}, _responses_streamed)


def anthropic_requests(question: str, image: str) -> Iterator[Asked]:
    """Anthropic's messages."""
    source = {"type": "base64", "media_type": kind_of(image), "data": encoded(image)}
    seen = [{"type": "image", "source": source}, {"type": "text", "text": "What colour is it?"}]
    for name, asked in {"text": question, "picture": seen}.items():
        body = {"model": "x", "max_tokens": 6, "temperature": 0, "messages": [{"role": "user", "content": asked}]}
        yield Asked(f"messages, {name}", "/v1/messages", body, lambda told: json.loads(told)["content"][0]["text"])
        yield Asked(f"messages, {name}, streamed", "/v1/messages", {**body, "stream": True}, _messages_streamed)
        counted = {key: body[key] for key in ("model", "messages")}
        yield Asked("count", "/v1/messages/count_tokens", counted, lambda told: str(json.loads(told)["input_tokens"]))


def ollama_requests(question: str, image: str) -> Iterator[Asked]:
    """Ollama's chat and generate, which stream unless told not to."""
    options = {"options": {"temperature": 0, "num_predict": 6}}
    messages = {"text": [{"role": "user", "content": question}],
                "picture": [{"role": "user", "content": "What colour is it?", "images": [encoded(image)]}]}  # fmt: skip
    for name, said in messages.items():
        body = {"model": "x", "messages": said, **options}
        whole = {**body, "stream": False}
        yield Asked(f"ollama, {name}", "/api/chat", whole, lambda told: json.loads(told)["message"]["content"])
        yield Asked(f"ollama, {name}, streamed", "/api/chat", body,
                    lambda told: "".join(line["message"]["content"] for line in lines(told)))  # fmt: skip
    prompt = {"model": "x", "prompt": question, **options}
    yield Asked("ollama, generate", "/api/generate", prompt,
                lambda told: "".join(line["response"] for line in lines(told)))  # fmt: skip


def embedding_requests(question: str, image: str) -> Iterator[Asked]:
    """Vectors of a text, in OpenAI's shape and Ollama's."""
    yield Asked("embedding", "/v1/embeddings", {"input": question}, lambda told: _first(json.loads(told)["data"][0]))
    yield Asked("ollama, embed", "/api/embed", {"input": [question]},
                lambda told: str(json.loads(told)["embeddings"][0][:9]))  # fmt: skip


def _first(entry: Any) -> str:
    return str(entry["embedding"][:9])


MAKERS = (openai_requests, responses_requests, anthropic_requests, ollama_requests, embedding_requests)
MISTAKES = [
    ("/v1/chat/completions", {"messages": []}), ("/v1/chat/completions", {"messages": [{"role": "user"}]}),
    ("/v1/responses", {"input": 5}), ("/v1/messages", {"model": "x", "messages": []}),
    ("/api/chat", {"model": "x", "messages": 3}), ("/api/generate", {"model": "x", "prompt": "a", "context": [1]}),
    ("/completion", {"prompt": {"a": 1}}), ("/tokenize", {"content": 2}), ("/v1/chat/completions", b"{"),
]  # fmt: skip


class Round:
    """So many requests of some clients, and what they heard."""

    def __init__(self, port: int, requests: int, names: Sequence[str] = ("x",)) -> None:
        self.port, self.requests, self.names = port, requests, names
        self.asked = list(self._requests())
        client = Client(port)
        self.alone = [self._said(client, asked, names[0]) for asked in self.asked]
        self.counts: Counter[tuple[str, int]] = Counter()
        self.wrong = [f"{asked.name} alone: {said}" for asked, said in zip(self.asked, self.alone, strict=True)
                      if said[0] != 200 or not said[1]]  # fmt: skip
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def _requests(self) -> Iterator[Asked]:
        for pair in zip(QUESTIONS, PICTURES, strict=True):
            for make in MAKERS:
                yield from make(*pair)

    def _others(self) -> Sequence[Callable[[random.Random, Client], tuple[str, int, Complaint]]]:
        """What else clients do, one time in five."""
        return self._leaves, self._reads_slowly, self._mistake, self._goes_on, self._sent_once, self._saves

    @staticmethod
    def _said(client: Client, asked: Asked, model: str) -> tuple[int, str]:
        """The reply's status, and its text or what was refused."""
        body = asked.body if isinstance(asked.body, bytes) else {**asked.body, "model": asked.model or model}
        status, told = client.ask(asked.path, body, kind=asked.kind)
        return status, asked.text(told) if status == 200 else told[:200].decode()

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    def run(self, clients: int, seed: int = 0) -> None:
        """Ask all; each client draws by a seed of its own, from this one on."""
        threads = [threading.Thread(target=self._client, args=(seed + number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self, seed: int) -> None:
        draw, client = random.Random(seed), Client(self.port)
        while next(self._numbers) < self.requests:
            work = self._one if draw.random() < 0.8 else draw.choice(self._others())
            try:
                name, status, complaint = work(draw, client)
            except (ConnectionError, TimeoutError) as error:
                name, status, complaint = work.__name__, 0, type(error).__name__
            with self._lock:
                self.counts[name, status] += 1
                if complaint:
                    self.wrong.append(f"{name}: {status} {complaint}")

    def _one(self, draw: random.Random, client: Client) -> tuple[str, int, Complaint]:
        number = draw.randrange(len(self.asked))
        asked, expected = self.asked[number], self.alone[number]
        said = self._said(client, asked, draw.choice(self.names) if draw.random() < 0.02 else self.names[0])
        return asked.name, said[0], "" if said == expected else f"{said!r}, {expected!r} alone"

    def _leaves(self, draw: random.Random, client: Client) -> tuple[str, int, Complaint]:
        path = draw.choice(("/v1/chat/completions", "/v1/messages", "/api/chat"))
        body = {"model": self.names[0], "messages": [{"role": "user", "content": words(draw, 20)}], "stream": True}
        status, _ = client.ask(path, {**body, "max_tokens": 200}, leave_after=draw.randint(1, 1500))
        return "left", status, "" if status == 200 else "not begun"

    def _reads_slowly(self, draw: random.Random, client: Client) -> tuple[str, int, Complaint]:
        body = {"model": self.names[0], "messages": [{"role": "user", "content": QUESTIONS[0]}], "temperature": 0,
                "max_tokens": 40, "stream": True, "ignore_eos": True}  # fmt: skip
        status, told = client.ask("/v1/chat/completions", body, pause=0.005)
        return "read slowly", status, "" if told.endswith(b"data: [DONE]\n\n") else "cut"

    def _mistake(self, draw: random.Random, client: Client) -> tuple[str, int, Complaint]:
        path, body = draw.choice(MISTAKES)
        status, told = client.ask(path, {**body, "model": self.names[0]} if isinstance(body, dict) else body)
        said = json.loads(told).get("error")
        return f"mistake of {path}", status, "" if status == 400 and said else told[:200].decode()

    def _goes_on(self, draw: random.Random, client: Client) -> tuple[str, int, Complaint]:
        """A response that goes on with a stored one says what the whole conversation says in one request."""
        question = draw.choice(QUESTIONS)
        base = {"model": self.names[0], "temperature": 0, "max_output_tokens": 16}
        first = json.loads(client.ask("/v1/responses", {"input": question, **base})[1])
        more = {"input": "And then?", "previous_response_id": first["id"], **base}
        status, told = client.ask("/v1/responses", more)
        history = [{"role": "user", "content": question}, *first["output"], {"role": "user", "content": "And then?"}]
        _, again = client.ask("/v1/responses", {"input": history, "store": False, **base})
        same = status == 200 and _responses_whole(told) == _responses_whole(again)
        for id in (first["id"], json.loads(told).get("id")):
            client.ask(f"/v1/responses/{id}", {}, method="DELETE")
        return "goes on", status, "" if same else f"{told[:300]!r} {again[:300]!r}"

    def _sent_once(self, draw: random.Random, client: Client) -> tuple[str, int, Complaint]:
        """A picture that is sent once and named by its id is the one that is sent in a request."""
        image = draw.choice(PICTURES)
        data = (EXAMPLES / image).read_bytes()
        head = f'--cut\r\nContent-Disposition: form-data; name="file"; filename="{image}"\r\n\r\n'
        form = head.encode() + data + b"\r\n--cut--\r\n"
        status, told = client.ask("/v1/files", form, kind="multipart/form-data; boundary=cut")
        if status != 200:
            return "sent once", status, told[:200].decode()
        file = json.loads(told)["id"]
        number = next(n for n, asked in enumerate(self.asked) if asked.name == "chat, picture" and image in asked.image)
        seen = [{"type": "file", "file": {"file_id": file}}, {"type": "text", "text": "What colour is it?"}]
        asked = replace(
            self.asked[number], body={**self.asked[number].body, "messages": [{"role": "user", "content": seen}]}
        )
        said, expected = self._said(client, asked, self.names[0]), self.alone[number]
        client.ask(f"/v1/files/{file}", {}, method="DELETE")
        return "sent once", said[0], "" if said == expected else f"{said!r}, {expected!r} alone"

    def _saves(self, draw: random.Random, client: Client) -> tuple[str, int, Complaint]:
        """What a place holds is saved, forgotten and put back; then a request says what it says alone."""
        place, body = draw.randrange(2), {"filename": f"kept-{draw.randrange(4)}", "model": self.names[0]}
        for action in ("save", "erase", "restore"):
            status, told = client.ask(f"/slots/{place}?action={action}", body)
            is_full = action == "restore" and status == 400 and b"Unable to restore slot" in told
            if status != 200 and not is_full:
                return f"saves ({action})", status, told[:200].decode()
        _, status, complaint = self._one(draw, client)
        return "saves", status, complaint


def memory_of(pid: int) -> int:
    """Bytes of a process that stand in memory."""
    told = Path(f"/proc/{pid}/status").read_text()
    return int(told.split("VmRSS:")[1].split()[0]) * 1024


def left_behind(port: int) -> dict[str, float]:
    """What /metrics counts that should be zero when nobody asks."""
    told = Client(port).ask("/metrics")[1].decode()
    values = dict(line.rsplit(" ", 1) for line in told.splitlines() if line.startswith(FACTS))
    return {name: float(value) for name, value in values.items() if float(value)}


def settled(process: Popen[bytes], port: int, names: Sequence[str]) -> tuple[int, int]:
    """Memory and threads of a server at rest, with the same models in memory each time: the last that were asked."""
    while not idle(port):
        time.sleep(0.1)
    for name in names:
        Client(port).ask("/v1/completions", {"model": name, "prompt": "Hi", "max_tokens": 1})
    time.sleep(POOLS_REST + 2)
    return memory_of(process.pid), threads_of(process.pid)


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def several(folder: Path, names: Sequence[str]) -> list[str]:
    """Flags of a server of the bundled model under each of several names, with memory for two; none for one name."""
    if len(names) < 2:
        return []
    for name in names:
        copyfile(NANO, folder / f"{name}.gguf")
    return ["--models-dir", str(folder), "--models-max", "2"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--models", type=int, default=1)
    parser.add_argument("--warm", type=int, help="requests before memory is first measured; a tenth by default")
    parser.add_argument("--seed", type=int, default=0, help="of what the clients draw")
    args = parser.parse_args()
    names, first = [f"m{number}" for number in range(args.models)], args.warm or args.requests // 10
    with TemporaryDirectory() as folder, serving(None, *several(Path(folder), names)) as (process, port):
        warm = Round(port, first, names)
        warm.run(args.clients, 1000 * args.seed)
        before = settled(process, port, names)
        begun = time.monotonic()
        rest = Round(port, args.requests - first, names)
        rest.run(args.clients, 1000 * args.seed + args.clients)
        seconds = time.monotonic() - begun
        after, left = settled(process, port, names), left_behind(port)
    for (name, status), count in sorted((warm.counts + rest.counts).items()):
        print(f"{name:40} {status} {count:6}")
    wrong = warm.wrong + rest.wrong
    print(f"{warm.done + rest.done} requests, {rest.done / seconds:.1f} a second, {len(wrong)} wrong, left: {left}")
    print(f"memory {before[0] / 1e6:.1f} MB after {warm.done}, {after[0] / 1e6:.1f} at the end; "
          f"threads {before[1]}, {after[1]}")  # fmt: skip
    print("\n".join(wrong[:10]))
    return 1 if wrong or left or after[0] > GROWTH * before[0] else 0


if __name__ == "__main__":
    sys.exit(main())
