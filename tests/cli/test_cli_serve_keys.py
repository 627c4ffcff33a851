"""Who guards a server: keys of the command line, of a file and of the environment; none is ignored in silence."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.error
import urllib.request

import pytest
from opsin_process import COMMAND, environment
from test_cli_serve import greeting
from waiting import PATIENCE

from opsin.cli import environment as variables
from opsin.cli import main, options, serve
from opsin.errors import RequestError
from opsin.media.budget import PictureBudget


def settings(*arguments, **named):
    """What a server would do, and what it would say of the environment."""
    args = main.parser().parse_args(["serve", "-m", "x.gguf", *map(str, arguments)])
    lines = variables.fill(args, named)
    return serve._settings(args), lines


def secrets(*arguments):
    return tuple(key.secret for key in settings(*arguments)[0].keys)


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ("# keys of the team\nsk-real-one\n", ("sk-real-one",)),
        ("\n  # a\n\tsk-1 \r\n\r\n#sk-2\nsk-3", ("sk-1", "sk-3")),
        ("\ufeffsk-1\n", ("sk-1",)),
        ("a,b\n", ("a,b",)),
    ],
)
def test_a_file_of_keys_holds_a_key_a_line_and_comments_are_none(tmp_path, content, keys):
    path = tmp_path / "keys"
    path.write_bytes(content.encode())
    assert secrets("--api-key-file", path) == keys


def test_keys_stand_between_commas_and_all_ways_add_up(tmp_path):
    (tmp_path / "keys").write_text("c\n")
    (tmp_path / "more").write_text("e\n")
    files = ("--api-key-file", tmp_path / "keys", "--api-key-file", tmp_path / "more")
    assert secrets("--api-key", "a, b", "--api-key", "d", *files) == tuple("abdce")


@pytest.mark.parametrize("key", ["", " ", ",", "a,", "a,,b", "two words", "schl\u00fcssel", "a\x00b", "a\tb"])
def test_a_key_that_would_guard_nothing_or_differently_is_refused_without_being_told(key):
    for arguments, named in ((("--api-key", key), {}), ((), {"LLAMA_API_KEY": key}), ((), {"OPSIN_API_KEY": key})):
        with pytest.raises(RequestError) as caught:
            settings(*arguments, **named)
        assert not key.strip(" ,") or key not in str(caught.value)


@pytest.mark.parametrize("content", ["", "\n\n", "# only\n# comments\n", "key # of Bob\n", "\u2713\n", "a\x00\n"])
def test_a_file_without_a_sound_key_is_refused(tmp_path, content):
    path = tmp_path / "keys"
    path.write_bytes(content.encode())
    for arguments, named in ((("--api-key-file", path), {}), ((), {"LLAMA_ARG_API_KEY_FILE": str(path)})):
        with pytest.raises(RequestError) as caught:
            settings(*arguments, **named)
        assert "Bob" not in str(caught.value)
    path.write_bytes("sk-1\n".encode("utf-16"))
    with pytest.raises(RequestError):
        settings("--api-key-file", path)


def test_the_environment_of_a_container_is_taken_where_the_thing_is_there(tmp_path):
    (tmp_path / "keys").write_text("in-file")
    made, lines = settings(
        LLAMA_ARG_HOST="0.0.0.0", LLAMA_ARG_PORT="9", LLAMA_API_KEY="a,b", LLAMA_ARG_API_KEY="c", LLAMA_ARG_ALIAS="me",
        LLAMA_ARG_API_KEY_FILE=str(tmp_path / "keys"), LLAMA_ARG_CTX_SIZE="0", LLAMA_ARG_THREADS="-1",
        LLAMA_ARG_N_GPU_LAYERS="99", LLAMA_MEDIA_MARKER="<x>",
    )  # fmt: skip
    assert (made.host, made.port, made.name, {key.secret for key in made.keys}) == (
        "0.0.0.0",
        9,
        "me",
        {"a", "b", "c", "in-file"},
    )
    assert len(lines) == 2 and "LLAMA_API_KEY" in lines[0] and "in-file" not in "".join(lines)
    assert "LLAMA_MEDIA_MARKER" in lines[0] and made.media_marker == "<x>"
    assert lines[1].startswith("LLAMA_ARG_N_GPU_LAYERS: there is no GPU")
    assert settings()[1] == []


def test_tokens_of_pictures_are_taken_from_the_environment_too():
    args = main.parser().parse_args(["serve", "-m", "x.gguf", "--image-max-tokens", "64"])
    named = {"LLAMA_ARG_IMAGE_MIN_TOKENS": "16", "LLAMA_ARG_IMAGE_MAX_TOKENS": "99"}
    taken, aside = variables.fill(args, named)
    assert options.picture_budget(args) == PictureBudget(min_image_tokens=16, max_image_tokens=64)
    assert "IMAGE_MIN_TOKENS" in taken and "IMAGE_MAX_TOKENS" in aside


def test_the_command_line_wins_and_says_what_it_leaves_aside():
    made, lines = settings("--port", 0, "--api-key", "own", LLAMA_ARG_PORT="9", LLAMA_API_KEY="theirs")
    assert (made.port, [key.secret for key in made.keys]) == (0, ["own"])
    assert len(lines) == 1 and "LLAMA_ARG_PORT, LLAMA_API_KEY" in lines[0] and "theirs" not in lines[0]


@pytest.mark.parametrize(
    "named",
    [{"LLAMA_ARG_SSL_KEY_FILE": ""}, {"LLAMA_ARG_SSL_CERT_FILE": ""}, {"LLAMA_ARG_PORT": "http"},
     {"LLAMA_ARG_CTX_SIZE": "many"}, {"LLAMA_ARG_PORT": "70000"}],
)  # fmt: skip
def test_what_cannot_be_taken_from_the_environment_is_refused_by_name(named):
    with pytest.raises(RequestError, match=f"{next(iter(named))}|port 70000"):
        settings(**named)


def test_a_container_that_was_guarded_by_its_environment_is_guarded(tiny_file):
    named = environment(LLAMA_API_KEY="sk-secret", LLAMA_ARG_MODEL=str(tiny_file()), LLAMA_ARG_PORT="0")
    command = [*COMMAND, "serve", "-c", "128"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=named) as process:
        try:
            url, said = greeting(process)
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"{url}/v1/models", timeout=PATIENCE)
            with caught.value as refused:
                assert refused.code == 401
            asked = urllib.request.Request(f"{url}/v1/models", headers={"Authorization": "Bearer sk-secret"})
            with urllib.request.urlopen(asked, timeout=PATIENCE) as reply:
                assert json.load(reply)["object"] == "list"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)
        assert "sk-secret" not in said + process.stderr.read()
