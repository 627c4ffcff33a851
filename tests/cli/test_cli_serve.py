"""`opsin serve` as a process: what it prints, that it answers, how it ends."""

from __future__ import annotations

import base64
import io
import json
import re
import signal
import socket
import subprocess
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from opsin_process import COMMAND
from PIL import Image
from tiny_sight import tiny_pair, tiny_tower
from waiting import PATIENCE, wait_for

OPSIN = [*COMMAND, "serve"]


def start(*arguments):
    return subprocess.Popen([*OPSIN, "--port", "0", *map(str, arguments)], stderr=subprocess.PIPE, text=True)


def greeting(process):
    """The server's URL, and all that it said until it was ready."""
    said = ""
    while "OPENAI_BASE_URL" not in said:
        line = process.stderr.readline()
        assert line, f"it ended: {said}"
        said += line
    return re.search(r"OPENAI_BASE_URL=(http://127\.0\.0\.1:\d+)/v1", said)[1], said


def test_it_says_how_to_ask_and_answers_until_it_is_told_to_end(tiny_file):
    with start("-m", tiny_file(), "-c", 128) as process:
        url, said = greeting(process)
        assert f"curl {url}/v1/chat/completions" in said
        body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}).encode()
        with urllib.request.urlopen(f"{url}/v1/chat/completions", body, timeout=600) as reply:
            assert json.load(reply)["usage"]["prompt_tokens"] > 0
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) in (0, 130)


def test_a_file_that_is_no_model_ends_it_with_one_line(tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with start("-m", tmp_path / "bad.gguf") as process:
        said = process.stderr.read()
        assert process.wait(PATIENCE) == 3
    assert "bad.gguf" in said.splitlines()[-1]
    assert "Traceback" not in said


@pytest.mark.parametrize("wrong", [("--port", "70000"), ("--host", "203.0.113.1"), ("--media-path", "/no/such/folder")])
def test_a_wrong_option_is_told_in_one_line(run, tiny_file, wrong):
    done = run("serve", "-m", tiny_file(), *wrong)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_what_loading_found_out_is_said_before_the_first_question(tmp_path):
    text, _ = tiny_pair(tmp_path)
    tower = tiny_tower(tmp_path / "mmproj.gguf", width=96)
    with start("-m", text, "-c", 128) as process:
        _, said = greeting(process)
        process.kill()
    assert any(str(tower) in line and "96" in line and line.startswith("opsin: ") for line in said.splitlines()), said


def test_a_part_for_pictures_alone_is_no_server(ends, tmp_path):
    code, said = ends("-m", tiny_tower(tmp_path / "mmproj.gguf"))
    assert code == 4 and "no text model" in said


@pytest.mark.parametrize(("told", "codes"), [(signal.SIGTERM, (0, -15, 143)), (signal.SIGINT, (0, 130))])
def test_it_ends_soon_while_it_streams(tiny_file, told, codes):
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "ignore_eos": True, "stream": True, "n": 8})
    with start("-m", tiny_file(), "-c", 512) as process:
        url, _ = greeting(process)
        with urllib.request.urlopen(f"{url}/v1/chat/completions", body.encode(), timeout=600) as reply:
            assert reply.read(10)
            process.send_signal(told)
            assert process.wait(PATIENCE) in codes
        rest = process.stderr.read()
        assert "Traceback" not in rest, rest
        assert len(rest.splitlines()) <= 1, rest


def test_a_port_that_is_taken_is_told_in_one_line(run, tiny_file):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("serve", "-m", tiny_file(), "--port", port)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and port in done.stderr


def test_what_cannot_be_loaded_ends_it_with_a_code_of_its_kind(ends, tiny_file, tmp_path):
    text = tiny_file()
    (tmp_path / "page.gguf").write_text("<html>not a model</html>")
    sight, wide = tmp_path / "sight", tmp_path / "wide"
    for folder in (sight, wide):
        folder.mkdir()
    tiny_pair(sight)
    tower = tiny_tower(wide / "mmproj.gguf", width=96)
    for arguments, code, words in (
        (("-m", tmp_path / "none.gguf"), 3, ("none.gguf",)),
        (("-m", tmp_path / "page.gguf"), 3, ("page.gguf",)),
        (("-m", text, "--mmproj", tmp_path / "none.gguf"), 3, ("none.gguf",)),
        (("-m", text, "--mmproj", text), 4, ("no part for pictures",)),
        (("-m", sight / "model.gguf", "--mmproj", tower), 4, ("96", "64", "model.gguf", "mmproj.gguf")),
        (("-m", text, "-c", 1 << 20), 2, ("context=1048576",)),
    ):
        got, said = ends(*arguments)
        assert got == code, said
        assert all(word in said for word in words), said


def test_a_file_of_keys_that_holds_none_is_told(ends, tiny_file, tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("empty", "binary", "missing"):
        code, said = ends("-m", tiny_file(), "--api-key-file", tmp_path / name)
        assert code == 2 and name in said
    assert ends("-m", tiny_file(), "--api-key", " ")[0] == 2
    assert ends("-m", tiny_file(), "--sse-ping-interval", "soon")[0] == 2


def drip(server):
    """A byte of a head now and then, so that whoever fetches waits as long as they ever do."""
    taken = []
    with suppress(OSError), ExitStack() as stack:
        server.settimeout(0.5)
        while True:
            with suppress(TimeoutError):
                taken.append(stack.enter_context(server.accept()[0]))
                taken[-1].sendall(b"HTTP/1.1 200 OK\r\nX: ")
            for connection in taken:
                with suppress(OSError):
                    connection.sendall(b"x")


def test_it_ends_soon_while_a_picture_does_not_come(tmp_path):
    tiny_pair(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        threading.Thread(target=drip, args=(silent,), daemon=True).start()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.png"
        parts = [{"type": "image_url", "image_url": {"url": url}}] * 6
        body = json.dumps({"messages": [{"role": "user", "content": parts}], "stream": True}).encode()
        options = ("-m", tmp_path / "model.gguf", "-c", 256, "--allow-private-media", "--sse-ping-interval", 1)
        with start(*options) as process:
            url, _ = greeting(process)
            port = int(url.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port)) as client:
                head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
                client.sendall(head.encode() + body)
                assert client.recv(20).startswith(b"HTTP/1.1 200")  # comments have begun
                process.send_signal(signal.SIGTERM)
                try:
                    assert process.wait(PATIENCE) in (0, -15, 143)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise
            rest = process.stderr.read()
            assert "Traceback" not in rest, rest


def test_memory_of_large_pictures_is_given_back(tmp_path):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1500, 3), np.uint8)
    Image.fromarray(noise).resize((3000, 2000)).save(file, "JPEG", quality=90)
    tiny_pair(tmp_path)

    def ask(number: int) -> int:
        data = base64.b64encode(file.getvalue() + bytes([number])).decode()
        part = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}
        body = json.dumps({"messages": [{"role": "user", "content": [part]}], "max_tokens": 2}).encode()
        with urllib.request.urlopen(f"{url}/v1/chat/completions", body, timeout=600) as reply:
            return reply.status

    def resident() -> int:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) >> 10

    with start("-m", tmp_path / "model.gguf", "-c", 512) as process:
        url, _ = greeting(process)
        try:
            ask(100)
            before = resident()
            with ThreadPoolExecutor(12) as threads:
                assert set(threads.map(ask, range(12))) == {200}
            wait_for(lambda: resident() - before < 60)
        finally:
            process.kill()


def test_an_operator_says_how_many_tokens_a_picture_may_take(tmp_path):
    text, _ = tiny_pair(tmp_path, "idefics3")
    file = io.BytesIO()
    Image.new("RGB", (120, 60)).save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    part = {"type": "image_url", "image_url": {"url": url}, "max_image_tokens": 144}
    body = json.dumps({"messages": [{"role": "user", "content": [part]}], "max_tokens": 1, "detail": "high"}).encode()
    with start("-m", text, "-c", 512, "--image-max-tokens", 48) as process:
        server, _ = greeting(process)
        with urllib.request.urlopen(f"{server}/v1/chat/completions", body, timeout=600) as reply:
            assert json.load(reply)["usage"]["prompt_tokens_details"]["image_tokens"] == 48  # of 144
        process.kill()
