"""Which models a folder or a file of TOML names, and with which options each is loaded."""

from __future__ import annotations

import asyncio
import pickle

import pytest
from tiny import tiny_llama

from opsin.cli import main, serve
from opsin.cli.model_lists import models_of
from opsin.cli.several_models import are_several
from opsin.errors import FileError, RequestError
from opsin.serve.replica import inner

PARSER = main.parser()


def parsed(*words: str):
    return PARSER.parse_args(["serve", *words])


def listed(*words: str):
    args = parsed(*words)
    return {one.name: one.args for one in models_of(args, args.run.args[0])}


def served(*words: str):
    args = parsed(*words)
    return serve._served(args.run.args[0], args)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sees").mkdir()
    for name in ("a.gguf", "b-00001-of-00002.gguf", "sees/c.gguf", "mmproj-a.gguf", "b-00002-of-00002.gguf", ".d.gguf"):
        tiny_llama(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_a_folder_has_a_model_in_each_file_and_folder_of_one(folder):
    found = listed("--models-dir", str(folder), "-c", "128")
    assert {name: args.model for name, args in found.items()} == {
        "a": folder / "a.gguf", "b-00001-of-00002": folder / "b-00001-of-00002.gguf", "sees": folder / "sees",
    }  # fmt: skip
    assert {args.context for args in found.values()} == {128}


def test_a_list_has_flags_for_all_and_for_each(folder):
    (folder / "models.toml").write_text(
        'ctx-size = 256\n[small]\nmodel = "a.gguf"\nalias = "s,tiny"\ntemp = 0.5\n'
        '[other]\nhf-repo = "owner/repo:Q8_0"\nctx_size = 64\nno-mmproj = true\n[third]\nmodel = "ollama:x"\n'
    )
    found = listed("--models", str(folder / "models.toml"), "--temp", "0.1", "-np", "2")
    assert {name: args.model for name, args in found.items()} == {
        "small": folder / "a.gguf", "other": "hf:owner/repo:Q8_0", "third": "ollama:x",
    }  # fmt: skip
    assert [args.context for args in found.values()] == [256, 64, 256]
    assert [args.vision for args in found.values()] == [True, False, True]
    settings, registry, *_ = served("--models", str(folder / "models.toml"), "--temp", "0.1")
    small = registry.find("tiny")
    assert small.name == "small" and small.aliases == ["small", "s", "tiny"]
    assert small.options.defaults["temperature"] == 0.5 and settings.defaults["temperature"] == 0.1


def test_llama_server_s_ini_is_read(folder):
    (folder / "models.ini").write_text(
        f"version = 1\n; for all\n[*]\nc = 256\nstop-timeout = 3\n\n[small]\nmodel = {folder}/a.gguf\nTEMP = 0.5\n"
        "LLAMA_ARG_N_PARALLEL = 3\nno-mmproj = 1\n\n[owner/repo:Q8_0]\nctx-size = 64\njinja = true\nno-mmap = off\n"
    )
    found = listed("--models-preset", str(folder / "models.ini"))
    assert {name: (args.model, args.context, args.vision) for name, args in found.items()} == {
        "small": (folder / "a.gguf", 256, False), "owner/repo:Q8_0": ("hf:owner/repo:Q8_0", 64, True),
    }  # fmt: skip
    assert found["small"].parallel == 3
    (folder / "models.ini").write_text("[a\n")
    with pytest.raises(FileError, match="is no INI"):
        served("--models", str(folder / "models.ini"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a", "is no TOML"),
        ("", "holds no models"),
        ("[a]\nctx-size = 5", "names no model"),
        ('[a]\nmodel = "a.gguf"\nwings = 2', r"\[a\] cannot be read"),
        ('[a]\nmodel = ["a.gguf"]', "is no text and no number"),
        ('[a]\nmodel = "a.gguf"\nport = 99', r"\[a\] sets what is the whole server's"),
    ],
)
def test_a_list_that_cannot_be_taken_says_why(folder, text, says):
    (folder / "models.toml").write_text(text)
    with pytest.raises((RequestError, FileError), match=says):
        served("--models", str(folder / "models.toml"))


def test_one_model_beside_several_and_folders_that_are_none_are_refused(tmp_path):
    assert not are_several(parsed())
    with pytest.raises(RequestError, match="--model beside several models"):
        served("--models-dir", str(tmp_path), "-m", "x.gguf")
    with pytest.raises(FileError, match="holds no models"):
        served("--models-dir", str(tmp_path))
    with pytest.raises(FileError, match="cannot be listed"):
        served("--models-dir", str(tmp_path / "nowhere"))


def test_a_list_is_read_anew_with_the_same_models_kept(folder):
    _, registry, *_ = served("--models-dir", str(folder))
    before = registry.find("a")
    tiny_llama(folder / "new.gguf")
    registry._list(registry._sources())
    assert registry.find("a") is before and registry.find("new")


def test_replicas_are_sent_all_models_with_their_own_flags(folder):
    (folder / "models.toml").write_text('[small]\nmodel = "a.gguf"\nalias = "s"\n[other]\nmodel = "sees/c.gguf"')
    args = parsed(
        "--models", str(folder / "models.toml"), "--replicas", "2", "--models-max", "1", "--tags", "x", "-t", "1"
    )
    made = serve._served_by_replicas(args.run.args[0], args)
    sent = pickle.loads(pickle.dumps(made))
    assert sent.names == {"small": "small", "other": "other", "s": "small"} and sent.most == 1
    registry = sent.service(inner)
    small = registry.find("s")
    assert small.options.tags == ("x",) and small.options.hosts == registry.options.hosts == ("*",)
    with sent.sources[0].load() as model:
        assert model.writes and sent.sources[0].need() > 0 and sent.free(0) > 0
    asyncio.run(registry.close())
