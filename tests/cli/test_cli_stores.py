"""Commands take names in stores where they take files."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from fake_hub import fake_hub
from ollama_store import pull
from opsin_process import COMMAND
from opsin_process import environment as environment_of_tests
from tiny_sight import tiny_pair
from waiting import wait_for

from opsin.cli import environment, main, options
from opsin.gguf import File


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of Ollama's with a model that sees."""
    folder = tmp_path_factory.mktemp("store")
    text, tower = tiny_pair(folder)
    params = {"temperature": 0, "num_ctx": 96, "repeat_penalty": 1.5, "tfs_z": 0.5}
    layers = [("model", text.read_bytes()), ("projector", tower.read_bytes()), ("params", json.dumps(params).encode())]
    pull(folder / "models", layers)
    return folder / "models"


def test_chat_answers_from_ollamas_store(run, store):
    model = store.parent / "model.gguf"
    asked = ("-n", 8, "--ignore-eos", "hi")
    wanted = run("chat", "-m", model, "--temperature", 0, "--repeat-penalty", 1.5, *asked)
    unlike = run("chat", "-m", model, "--temperature", 0, *asked)
    done = run("chat", "-m", "ollama:tiny", "--verify", *asked, OLLAMA_MODELS=str(store))
    assert (done.returncode, done.stdout) == (0, wanted.stdout)
    assert wanted.stdout != unlike.stdout, "the store's penalty shows"
    assert "repeat_last_n" not in done.stderr and "general.sampling.tfs_z" in done.stderr


def test_inspect_shows_both_parts_and_what_stands_beside(run, store):
    done = run("inspect", "ollama:tiny", "--json", OLLAMA_MODELS=str(store))
    told = json.loads(done.stdout)
    with File.open(store.parent / "model.gguf") as file:
        assert told["name"] == file.get_str("general.name", "")
        assert sum(kind["count"] for kind in told["tensors"].values()) == len(file.tensors)
    assert told["vision"]["projector"] == "gemma3" and told["vision"]["problem"] is None
    assert told["metadata"]["general.sampling.temp"] == 0
    assert any("sha256-" in note for note in told["notes"]) and any("tfs_z" in note for note in told["notes"])


def test_bench_takes_names_too(run, store):
    done = run("bench", "-m", "ollama:tiny", "-p", 8, "-n", 2, "--json", OLLAMA_MODELS=str(store))
    assert json.loads(done.stdout)["model"] == "ollama:tiny"


@pytest.mark.parametrize("command", [("chat", "-m"), ("serve", "--port", "0", "-m"), ("bench", "-m"), ("inspect",)])
def test_a_model_that_is_not_there_is_a_line_and_bad_file(run, store, command):
    done = run(*command, "ollama:absent", *(["hi"] if command[0] == "chat" else []), OLLAMA_MODELS=str(store))
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 3
    assert "'absent'" in last and "tiny:latest" in last and "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def hub(store):
    """A fake hub with the same model, and the variables by which a process finds it."""
    with fake_hub() as made:
        made.repos["owner/tiny-GGUF"] = {
            "tiny-Q8_0.gguf": (store.parent / "model.gguf").read_bytes(),
            "tiny-F16.gguf": (store.parent / "model.gguf").read_bytes(),
            "mmproj-F16.gguf": (store.parent / "mmproj.gguf").read_bytes(),
        }
        variables = {"HF_ENDPOINT": made.url, "HF_HOME": str(store.parent / "hf"), "HF_TOKEN": "", "HF_HUB_CACHE": "",
                     "HF_HUB_OFFLINE": ""}  # fmt: skip
        yield made, variables


def test_chat_fetches_from_the_hub_once(run, store, hub):
    made, variables = hub
    wanted = run("chat", "-m", store.parent / "model.gguf", "-n", 8, "--temperature", 0, "--ignore-eos", "hi")
    rest = ("-n", 8, "--temperature", 0, "--ignore-eos", "hi")
    first = run("chat", "-hf", "owner/tiny-GGUF:Q8_0", "--verify", *rest, **variables)
    assert (first.returncode, first.stdout) == (0, wanted.stdout), first.stderr
    assert first.stderr.count("fetching tiny-Q8_0.gguf") == first.stderr.count("fetching mmproj-F16.gguf") == 1
    offline = run("chat", "-m", "hf:owner/tiny-GGUF:Q8_0", *rest, **{**variables, "HF_HUB_OFFLINE": "1"})
    assert (offline.returncode, offline.stdout) == (0, wanted.stdout), offline.stderr
    flag = run("chat", "--offline", "-m", "hf:owner/tiny-GGUF:Q8_0", *rest, **variables)
    assert (flag.returncode, flag.stdout) == (0, wanted.stdout), flag.stderr
    absent = run("chat", "--offline", "-m", "hf:owner/tiny-GGUF:F16", *rest, **variables)
    assert absent.returncode == 3 and "there are Q8_0" in absent.stderr  # of those that were fetched
    assert sorted(made.fetched()) == ["mmproj-F16.gguf", "tiny-Q8_0.gguf"]


def test_a_token_of_the_command_line_opens_what_is_private(run, store, hub, tmp_path):
    made, variables = hub
    made.repos["owner/secret-GGUF"] = {"tiny-Q8_0.gguf": (store.parent / "model.gguf").read_bytes()}
    made.token, made.private = "hf_right", {"owner/secret-GGUF"}
    variables = {**variables, "HF_HOME": str(tmp_path)}
    shut = run("inspect", "hf:owner/secret-GGUF", **variables)
    opened = run("inspect", "hf:owner/secret-GGUF", "--hf-token", "hf_right", "--json", **variables)
    wrong = run("inspect", "hf:owner/secret-GGUF", "-hft", "hf_wrong", "--json", **variables)
    assert (shut.returncode, opened.returncode, wrong.returncode) == (3, 0, 3), opened.stderr
    assert "hf_wrong" not in wrong.stderr


def test_inspect_and_bench_take_the_hubs_names(run, hub):
    told = json.loads(run("inspect", "hf:owner/tiny-GGUF:Q8_0", "--json", **hub[1]).stdout)
    assert told["vision"]["projector"] == "gemma3"
    done = run("bench", "-hfr", "owner/tiny-GGUF:Q8_0", "-hff", "tiny-F16.gguf", "-p", 8, "-n", 2, "--json", **hub[1])
    assert json.loads(done.stdout)["model"] == "hf:owner/tiny-GGUF/tiny-F16.gguf"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("chat", "-hf", "owner/absent", "hi"), 3, "there is no owner/absent"),
        (("bench", "--hf-repo", "owner/tiny-GGUF:Q2_K"), 3, "there are F16, Q8_0"),
        (("chat", "-hf", "nothing", "hi"), 2, "owner/repo"),
        (("chat", "-hff", "x.gguf", "hi"), 2, "give -hf owner/repo"),
        (("chat", "-hf", "a/b", "-m", "c", "hi"), 2, "not allowed with"),
    ],
)
def test_what_the_hub_lacks_is_a_line(run, hub, arguments, code, said):
    done = run(*arguments, **hub[1])
    assert done.returncode == code
    assert said in done.stderr.strip().splitlines()[-1] and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("typed", "variables", "model"),
    [
        ((), {"LLAMA_ARG_HF_REPO": "o/r:Q8_0"}, "hf:o/r:Q8_0"),
        ((), {"LLAMA_ARG_HF_REPO": "o/r:Q8_0", "LLAMA_ARG_HF_FILE": "x.gguf"}, "hf:o/r/x.gguf"),
        ((), {"LLAMA_ARG_MODEL": "ollama:tiny"}, "ollama:tiny"),
        (("-m", "hf:a/b"), {"LLAMA_ARG_HF_REPO": "o/r", "LLAMA_ARG_HF_FILE": "x.gguf"}, "hf:a/b"),
        (("-hf", "hf:a/b", "-hff", "y.gguf"), {}, "hf:a/b/y.gguf"),
    ],
)
def test_serve_takes_names_from_the_environment_too(typed, variables, model):
    args = main.parser().parse_args(["serve", *typed])
    environment.fill(args, variables)
    assert options.model_file(args) == model


@pytest.mark.parametrize(
    ("given", "name"), [(("-m", "ollama:tiny"), "tiny"), (("-hf", "owner/tiny-GGUF:Q8_0"), "owner/tiny-GGUF:Q8_0")]
)
def test_serve_calls_the_model_as_its_store_does(store, hub, given, name):
    variables = environment_of_tests(OLLAMA_MODELS=str(store), **hub[1])
    command = [*COMMAND, "serve", "--port", "0", "-c", "128", *given]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables) as process:
        said = ""
        while "OPENAI_BASE_URL=" not in said:
            line = process.stderr.readline()
            assert line, f"it ended: {said}"
            said = said + line
        url = said.rpartition("OPENAI_BASE_URL=")[2].split()[0]
        with urllib.request.urlopen(f"{url}/models", timeout=600) as reply:
            assert [model["id"] for model in json.load(reply)["data"]] == [name]
        process.terminate()
        process.stderr.read()


def test_what_a_process_fetched_that_was_killed_is_taken_up_by_the_next(hub, tmp_path):
    made, variables = hub
    data = bytes(range(256)) * (3 << 14)  # 12 MB, of which the library writes the first 10 at once
    made.repos["owner/large"] = {"large-Q8_0.gguf": data}
    variables = environment_of_tests(**{**variables, "HF_HOME": str(tmp_path)})
    code = "from opsin.hub.locate import locate; print(locate('hf:owner/large', vision=False).text)"
    goes_on = made.goes_on = threading.Event()
    blobs = tmp_path / "hub/models--owner--large/blobs"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=variables) as process:
        try:
            wait_for(lambda: sum(path.stat().st_size for path in blobs.glob("*")) >= 10 << 20)
        finally:
            process.kill()
            goes_on.set()
    (partial,) = blobs.iterdir()
    begun = partial.stat().st_size
    assert 10 << 20 <= begun < len(data)
    made.ranges.clear()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=True)
    assert Path(done.stdout.strip()).read_bytes() == data
    assert made.ranges == [f"bytes={begun}-"]


def test_merge_and_quantize_take_names(run, store, hub, tmp_path):
    variables = {"OLLAMA_MODELS": str(store), **hub[1]}
    pair = (store.parent / "model.gguf", store.parent / "mmproj.gguf")
    assert run("merge", *pair, "-o", tmp_path / "wanted.gguf").returncode == 0
    with File.open(tmp_path / "wanted.gguf") as file:
        wanted = {name: file.read(name).tobytes() for name in file.tensors}
    for given in (
        ["ollama:tiny"],
        ["hf:owner/tiny-GGUF:Q8_0"],
        [pair[0]],
        ["ollama:tiny", pair[1]],
        ["-hf", "owner/tiny-GGUF:Q8_0"],
    ):
        done = run("merge", *given, "-o", tmp_path / "one.gguf", **variables)
        assert done.returncode == 0, done.stderr
        with File.open(tmp_path / "one.gguf") as file:
            assert {name: file.read(name).tobytes() for name in file.tensors} == wanted
            if given == ["ollama:tiny"]:
                assert file.get_float("general.sampling.temp") == 0
    assert run("quantize", pair[0], "-o", tmp_path / "wanted.gguf", "Q8_0").returncode == 0
    with File.open(tmp_path / "wanted.gguf") as file:
        wanted = {name: file.read(name).tobytes() for name in file.tensors}
    for place in ("ollama:tiny", "hf:owner/tiny-GGUF:Q8_0"):
        done = run("quantize", place, "-o", tmp_path / "small.gguf", "Q8_0", **variables)
        assert done.returncode == 0, done.stderr
        with File.open(tmp_path / "small.gguf") as file:
            assert {name: file.read(name).tobytes() for name in file.tensors} == wanted


def test_merge_asks_where_there_is_not_one_file_for_pictures(run, store, tmp_path):
    alone = tmp_path / "alone.gguf"
    alone.write_bytes((store.parent / "model.gguf").read_bytes())
    done = run("merge", alone, "-o", tmp_path / "one.gguf")
    assert done.returncode == 2 and "no files for pictures beside it" in done.stderr
    for name in ("mmproj-a.gguf", "mmproj-b.gguf"):
        (tmp_path / name).write_bytes((store.parent / "mmproj.gguf").read_bytes())
    done = run("merge", alone, "-o", tmp_path / "one.gguf")
    assert done.returncode == 2 and "name one: mmproj-a.gguf, mmproj-b.gguf" in done.stderr
    assert not (tmp_path / "one.gguf").exists()
