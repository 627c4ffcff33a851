"""Many clients ask one server about sounds and videos, and have recordings written down, over every protocol at once.

    python tests/serve/mixed_sounds.py --requests 500 [--clients 8] [--seed 1]

The server has two models: one that writes down what was said (a random one, which says nonsense), and one that is asked
about sounds, pictures and videos. Answers must be those of the same request alone, whether told whole or streamed; what
is damaged or wrong must be a 400; when all is done nothing may be left behind. A short round of it is in the suite.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from mixed_requests import (
    Asked,
    Complaint,
    Round,
    _chat_streamed,
    _chat_whole,
    _messages_streamed,
    _responses_streamed,
    _responses_whole,
    events,
    left_behind,
    memory_of,
)  # fmt: skip
from soak import Client, idle, serving

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[1] / "media"))
from made_tracks import made_track
from made_videos import made_video
from tiny_hearing import recording, tiny_hearing
from tiny_speech import published, write_by_hand

from opsin.media.hearing import open_sound

HEARS, WRITES = "hears", "writes"
CHAT, TRANSCRIBE = "/v1/chat/completions", "/v1/audio/transcriptions"
GREEDY = {"temperature": 0, "max_tokens": 6}
TEXT = {"type": "text", "text": "What is said?"}
FORM = "multipart/form-data; boundary=cut"


@cache
def sounds() -> list[tuple[str, bytes]]:
    """Names and files, of every decoder."""
    samples = [open_sound(recording(seconds, seed=seed)).samples for seed, seconds in enumerate((1.1, 2.3, 0.7))]
    tracks = (("a.m4a", "ipod", "aac"), ("b.webm", "webm", "libopus"), ("c.mp4", "mp4", "aac"))
    made = [(name, made_track(heard, kind, codec)) for (name, kind, codec), heard in zip(tracks, samples, strict=True)]
    return [*made, ("d.wav", recording(1.7, seed=5)), ("e.flac", recording(0.9, seed=6, kind="FLAC"))]


def form(name: str, data: bytes, fields: Mapping[str, str]) -> bytes:
    """A recording and what is asked of it."""
    parts = [
        f'--cut\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n' for key, value in fields.items()
    ]
    head = f'--cut\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return "".join([*parts, head]).encode() + data + b"\r\n--cut--\r\n"


def heard(data: bytes) -> dict[str, object]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}


def _user(*parts: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": list(parts)}]


def _as_it_is(told: bytes) -> str:
    return told.decode()


def _spoken(told: bytes) -> str:
    found = events(told)
    said = "".join(event.get("delta", "") for event in found)
    return said if said.strip() == found[-1]["text"] else f"{said!r}, {found[-1]['text']!r} in the end"


def written_down(name: str, data: bytes) -> Iterator[Asked]:
    """A recording in all formats, streamed, and in English. One temperature: nonsense would be tried at all of them."""
    base = {"model": WRITES, "temperature": "0.2", "language": "en"}

    def asked(what: str, read: Callable[[bytes], str] = _as_it_is, path: str = TRANSCRIBE, **more: str) -> Asked:
        return Asked(f"{what} of {name}", path, form(name, data, base | more), read, kind=FORM)

    for format in ("json", "text", "srt", "vtt"):
        yield asked(format, response_format=format)
    words = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
    yield asked("words", **words)
    yield asked("stream", _spoken, stream="true")
    yield asked("translation", path="/v1/audio/translations", response_format="text")


def asked_about(name: str, data: bytes) -> Iterator[Asked]:
    """A sound in all protocols that take one, beside a picture, too."""
    parts, url = _user(TEXT, heard(data)), f"data:audio/wav;base64,{base64.b64encode(data).decode()}"
    linked = {"type": "audio_url", "audio_url": {"url": url}}
    yield Asked(f"chat, {name}", CHAT, {"messages": parts, **GREEDY}, _chat_whole, model=HEARS)
    streamed = {"messages": parts, "stream": True, **GREEDY}
    yield Asked(f"chat, {name}, streamed", CHAT, streamed, _chat_streamed, model=HEARS)
    yield Asked(f"chat, {name}, linked", CHAT, {"messages": _user(linked, TEXT), **GREEDY}, _chat_whole, model=HEARS)
    asked = {"input": _user({"type": "input_text", "text": "What?"}, heard(data)), "temperature": 0, "store": False,
             "max_output_tokens": 16}  # fmt: skip
    yield Asked(f"responses, {name}", "/v1/responses", asked, _responses_whole, model=HEARS)
    yield Asked(f"responses, {name}, streamed", "/v1/responses", {**asked, "stream": True}, _responses_streamed,
                model=HEARS)  # fmt: skip
    shown = {"messages": [{"role": "user", "content": "What?", "images": [base64.b64encode(data).decode()]}],
             "stream": False, "options": {"temperature": 0, "num_predict": 6}}  # fmt: skip
    if not name.endswith(("webm", "mp4")):  # by its first bytes it may be a video
        yield Asked(f"ollama, {name}", "/api/chat", shown, lambda told: json.loads(told)["message"]["content"],
                    model=HEARS)  # fmt: skip


def beside_sounds() -> Iterator[Asked]:
    """Texts, and videos alone and beside a sound."""
    for count in (8, 20):
        film = base64.b64encode(made_video(count, sound=True)).decode()
        seen = {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{film}", "frames": 2}}
        for parts in ([TEXT, seen], [heard(sounds()[0][1]), seen, TEXT]):
            yield Asked("video", CHAT, {"messages": _user(*parts), **GREEDY}, _chat_whole, model=HEARS)
    message = {"max_tokens": 6, "temperature": 0, "messages": [{"role": "user", "content": "Who is it?"}]}
    yield Asked("messages", "/v1/messages", {**message, "stream": True}, _messages_streamed, model=HEARS)


def mistakes() -> list[tuple[str, bytes | dict[str, object], str]]:
    """What is wrong with a recording: all of these are refused with 400."""
    m4a, wav = sounds()[0][1], sounds()[3][1]
    ask, json_kind = {"model": WRITES}, "application/json"
    forms = [
        form("a.wav", b"no sound at all", ask), form("a.m4a", m4a[: len(m4a) // 2], ask), form("a.wav", b"", ask),
        form("a.wav", wav[:20], ask), form("a.wav", wav, {**ask, "response_format": "docx"}),
        form("a.wav", wav, {**ask, "language": "tlh"}), form("a.wav", wav, {"model": HEARS, "response_format": "srt"}),
        form("a.mp4", made_video(3), ask), b"--cut--\r\n",
    ]  # fmt: skip
    film = {"type": "input_video", "input_video": {"data": base64.b64encode(m4a).decode()}}
    parts = [heard(b"no sound at all"), heard(m4a[:2000]), film, {"type": "input_audio", "input_audio": {}}]
    chats: list[tuple[str, bytes | dict[str, object], str]] = [
        (CHAT, {"messages": _user(part), "model": HEARS, "max_tokens": 2}, json_kind) for part in parts
    ]
    return [*((TRANSCRIBE, body, FORM) for body in forms), *chats]


class SoundRound(Round):
    """So many requests of some clients, and what they heard."""

    def _requests(self) -> Iterator[Asked]:
        for name, data in sounds():
            yield from written_down(name, data)
            yield from asked_about(name, data)
        yield from beside_sounds()

    def _others(self) -> Sequence[Callable[[random.Random, Client], tuple[str, int, Complaint]]]:
        return self._leaves, self._leaves_a_recording, self._wrong

    def _leaves(self, draw: random.Random, client: Client) -> tuple[str, int, Complaint]:
        data = draw.choice(sounds())[1]
        body = {"model": HEARS, "messages": _user(heard(data), TEXT), "stream": True, "max_tokens": 200}
        status, _ = client.ask(CHAT, body, leave_after=draw.randint(1, 1500))
        return "left", status, "" if status == 200 else "not begun"

    def _leaves_a_recording(self, draw: random.Random, client: Client) -> tuple[str, int, Complaint]:
        asked = {"model": WRITES, "stream": "true"}
        body = form("a.wav", recording(draw.uniform(2, 20), seed=draw.randrange(1000)), asked)
        status, _ = client.ask(TRANSCRIBE, body, kind=FORM, leave_after=draw.randint(1, 300))
        return "left a recording", status, "" if status == 200 else "not begun"

    def _wrong(self, draw: random.Random, client: Client) -> tuple[str, int, Complaint]:
        path, body, kind = draw.choice(mistakes())
        status, told = client.ask(path, body, kind=kind)
        said = json.loads(told).get("error")
        return f"mistake of {path}", status, "" if status == 400 and said else told[:200].decode()


@contextmanager
def serving_sounds() -> Iterator[tuple[int, int]]:
    """A server of both models: its process and its port."""
    with TemporaryDirectory() as folder:
        (Path(folder) / HEARS).mkdir()
        tiny_hearing(Path(folder) / HEARS, sees=True)
        write_by_hand(Path(folder) / f"{WRITES}.gguf", published())
        with serving(None, "--models-dir", folder, "--models-max", "2") as (process, port):
            yield process.pid, port


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with serving_sounds() as (pid, port):
        clients = SoundRound(port, args.requests)
        before, begun = memory_of(pid), time.monotonic()
        clients.run(args.clients, 1000 * args.seed)
        seconds = time.monotonic() - begun
        while not idle(port):
            time.sleep(0.1)
        time.sleep(1)
        after, left = memory_of(pid), left_behind(port)
    for (name, status), count in sorted(clients.counts.items()):
        print(f"{name:40} {status} {count:6}")
    told = f"{clients.done / seconds:.1f} a second, {len(clients.wrong)} wrong, left: {left}"
    print(f"{clients.done} requests, {told}; memory {before / 1e6:.1f} MB, {after / 1e6:.1f} at the end")
    print("\n".join(clients.wrong[:10]))
    return 1 if clients.wrong or left else 0


if __name__ == "__main__":
    sys.exit(main())
