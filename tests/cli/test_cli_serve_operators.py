"""`opsin serve` as operators start it: TLS, a prefix, named keys, an access log; and no key in anything it writes."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import urllib.error
import urllib.request

import pytest
from certificates import CERTIFICATE, KEY
from opsin_process import COMMAND
from waiting import PATIENCE

SECRETS = ("sk-right-one", "sk-named-one", "sk-wrong-one")


def ask(url, key, context, **body):
    asked = urllib.request.Request(url, json.dumps(body).encode(), {"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(asked, timeout=PATIENCE, context=context) as reply:
        return reply.status


def test_a_guarded_server_writes_no_key_anywhere(tiny_file, tmp_path):
    (tmp_path / "cert.pem").write_text(CERTIFICATE)
    (tmp_path / "key.pem").write_text(KEY)
    (tmp_path / "keys").write_text("# ours\nbob: sk-named-one at-once=2 per-minute=2\n")
    command = [
        *COMMAND, "serve", "-m", str(tiny_file()), "-c", "128", "--port", "0", "--api-prefix", "/llm/",
        "--ssl-cert-file", str(tmp_path / "cert.pem"), "--ssl-key-file", str(tmp_path / "key.pem"),
        "--api-key", "sk-right-one", "--api-key-file", str(tmp_path / "keys"), "--access-log", str(tmp_path / "log"),
    ]  # fmt: skip
    context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        said = ""
        while "OPENAI_BASE_URL" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        url = said.partition("OPENAI_BASE_URL=")[2].strip()
        assert url.startswith("https://127.0.0.1:") and url.endswith("/llm/v1")
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        assert ask(f"{url}/chat/completions", "sk-right-one", context, **body) == 200
        assert [ask(f"{url}/chat/completions", "sk-named-one", context, **body) for _ in range(2)] == [200, 200]
        for key, path, status in (
            ("sk-named-one", "/chat/completions", 429), ("sk-wrong-one", "/chat/completions", 401),
            ("sk-right-one", "/sk-right-one?api_key=sk-right-one", 404),
        ):  # fmt: skip
            with pytest.raises(urllib.error.HTTPError) as caught:
                ask(url + path, key, context, **body)
            with caught.value as refused:
                assert refused.code == status and not any(secret in refused.read().decode() for secret in SECRETS[1:])
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        said += process.stderr.read()
    log = (tmp_path / "log").read_text()
    told = [json.loads(line) for line in log.splitlines()]
    assert [one["status"] for one in told] == [200, 200, 200, 429, 401, 404]
    assert [one["key"] for one in told] == ["", "bob", "bob", "bob", "", ""]
    assert not any(secret in said + log for secret in SECRETS), said


def test_what_is_wrong_with_an_operators_options_is_told_in_a_line(ends, tiny_file, tmp_path):
    (tmp_path / "cert.pem").write_text(CERTIFICATE)
    (tmp_path / "keys").write_text("bob: sk-secret twice=2\n")
    for arguments, words in (
        (("--ssl-cert-file", tmp_path / "cert.pem"), "--ssl-cert-file without --ssl-key-file"),
        (("--ssl-cert-file", tmp_path / "cert.pem", "--ssl-key-file", tmp_path / "cert.pem"), "cannot be read"),
        (("--api-prefix", "llm"), "the prefix 'llm'"),
        (("--api-key-file", tmp_path / "keys"), "line 1: what stands behind the key is no limit"),
        (("--forwarded-allow", "proxy"), "'proxy' is no address"),
        (("--access-log", tmp_path / "no" / "log"), "cannot write the access log"),
    ):
        code, said = ends("-m", tiny_file(), *arguments)
        assert code == 2 and words in said and "sk-secret" not in said
