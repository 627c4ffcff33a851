"""`opsin chat` about pictures: files as options or within a conversation, sizes on stderr."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from tiny_sight import SIDE, tiny_pair, tiny_tower

import opsin
from opsin.api.prompt_options import PLAIN
from opsin.api.replies import ReplyOptions
from opsin.cli.chat import Chat, _answer, _obey, _show

ANY = ("-n", "8", "--temperature", "20", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--seed", "3", "--ignore-eos")
OPTIONS = {"temperature": 20.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 3, "max_tokens": 8, "ignore_eos": True}


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    tiny_pair(folder)
    for seed in (1, 2):
        picture(seed).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    with opsin.load(folder / "model.gguf", threads=2, context=512) as made:
        yield made


def answer(model, *parts):
    return model.chat([{"role": "user", "content": list(parts)}], **OPTIONS).text


def test_pictures_as_options_come_before_the_question(run, folder, model):
    images = ("--image", folder / "1.png", "--image", folder / "2.png")
    done = run("chat", "-m", folder / "model.gguf", *ANY, *images, "Which?")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip("\n") == answer(model, picture(1), picture(2), "Which?").rstrip("\n")
    assert f"1.png: 40 x 30 pixels, seen at {SIDE} x {SIDE}, 16 tokens\n" in done.stderr
    assert "2.png: " in done.stderr


def test_a_picture_takes_as_many_tokens_as_were_asked_for(run, tmp_path):
    tiny_pair(tmp_path, "idefics3")
    picture(1).resize((120, 60)).save(tmp_path / "1.png")
    given = ("chat", "-m", tmp_path / "model.gguf", *ANY, "--image", tmp_path / "1.png", "What?")
    assert "seen at 128 x 64, 144 tokens\n" in run(*given).stderr
    for options in (
        ("--detail", "low"),
        ("--max-image-tokens", 20),
        ("--image-max-tokens", 16),
        ("--max-pixels", 1024),
    ):
        assert "seen at 32 x 32, 16 tokens\n" in run(*given, *options).stderr, options
    assert "16 tokens; max_image_tokens is 5: it takes 16 tokens" in run(*given, "--image-max-tokens", 5).stderr


def test_numbers_that_contradict_each_other_are_told_before_a_model_is_loaded(run):
    done = run("chat", "-m", "none.gguf", "--image-min-tokens", 9, "--max-image-tokens", 8, "What?")
    assert (done.returncode, done.stdout) == (2, "")
    assert "min_image_tokens: 9 is more than max_image_tokens, 8" in done.stderr


def test_the_part_for_pictures_may_lie_elsewhere(run, folder, model, tmp_path):
    text, tower = tmp_path / "model.gguf", tmp_path / "eyes" / "tower.gguf"
    text.write_bytes((folder / "model.gguf").read_bytes())
    tower.parent.mkdir()
    tiny_tower(tower)
    done = run("chat", "-m", text, "--mmproj", tower, *ANY, "--image", folder / "1.png", "What?", "--stats")
    assert done.stdout.rstrip("\n") == answer(model, picture(1), "What?").rstrip("\n")
    assert ", 16 of pictures, first after" in done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [("none.png", "none.png: cannot be read"), ("model.gguf", "model.gguf: a GGUF model, not a picture")],
)
def test_a_file_that_is_no_picture_is_told_in_a_line(run, folder, name, said):
    done = run("chat", "-m", folder / "model.gguf", "--image", folder / name, "What?")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_of_text_says_what_it_lacks(run, folder, tmp_path):
    alone = tmp_path / "alone.gguf"
    alone.write_bytes((folder / "model.gguf").read_bytes())
    done = run("chat", "-m", alone, "--image", folder / "1.png", "What?")
    assert done.returncode == 2
    assert "takes text only (give the mmproj file" in done.stderr


def test_a_part_for_pictures_that_does_not_fit_is_told_and_left_out(run, folder, tmp_path):
    text = tmp_path / "model.gguf"
    text.write_bytes((folder / "model.gguf").read_bytes())
    tiny_tower(tmp_path / "mmproj.gguf", width=96)
    done = run("chat", "-m", text, *ANY, "What?")
    assert done.returncode == 0
    assert "pictures are left out" in done.stderr


# Conversations


@pytest.fixture
def chat(model):
    return Chat(model, opsin.Sampling(**OPTIONS), (), None, False, PLAIN, ReplyOptions())


def test_a_picture_goes_with_the_next_question_and_stays_in_the_conversation(chat, model, folder, capsys):
    _show(chat, "/image", f"'{folder / '1.png'}'")
    assert "40 x 30" in capsys.readouterr().err
    _answer(chat, "What?")
    first = capsys.readouterr().out
    _answer(chat, "And?")
    second = capsys.readouterr().out
    said = answer(model, picture(1), "What?")
    assert first.rstrip("\n") == said.rstrip("\n")
    messages = [
        {"role": "user", "content": [picture(1), "What?"]},
        {"role": "assistant", "content": said},
        {"role": "user", "content": "And?"},
    ]
    assert second.rstrip("\n") == model.chat(messages, **OPTIONS).text.rstrip("\n")


@pytest.mark.parametrize(
    "typed",
    ["{0}/a b.png", "'{0}/a b.png'", '"{0}/a b.png"', "{0}/a\\ b.png", "~/a b.png", "{0}/it's.png", '{0}/a"b.png'],
)
def test_a_picture_is_named_as_it_stands_or_as_a_terminal_writes_it(chat, tmp_path, monkeypatch, capsys, typed):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a b.png", "it's.png", 'a"b.png'):
        picture(1).save(tmp_path / name)
    _obey(chat, "/image", typed.format(tmp_path))
    assert "40 x 30" in capsys.readouterr().err
    assert len(chat.media) == 1


def test_several_pictures_may_be_dropped_at_once(chat, tmp_path, capsys):
    for name in ("a b.png", "c.png"):
        picture(1).save(tmp_path / name)
    _obey(chat, "/image", f"'{tmp_path}/a b.png' {tmp_path}/c.png ")
    assert capsys.readouterr().err.count("40 x 30") == len(chat.media) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/image", "/image FILE: say which picture"),
        ("/img x.png", "there is no /img; did you mean /image?"),
        ("/cls", "there is no /cls"),
        ("/clear all", ""),
        ("/set temperature 1", "there is no /set"),
        ("/help", "/image FILE shows a picture"),
        ("/", "there is no /"),
    ],
)
def test_a_line_with_a_slash_is_done_or_named(chat, capsys, line, said):
    assert _obey(chat, *line.partition(" ")[::2])
    assert said in capsys.readouterr().err


def test_a_file_that_is_dropped_alone_is_not_taken_for_a_command(chat, folder, capsys):
    assert _obey(chat, str(folder / "1.png"), "What is this?")
    assert f"did you mean /image {folder / '1.png'}?" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["/exit", "/bye", "/quit"])
def test_a_conversation_is_left_by_any_usual_word(chat, word):
    assert not _obey(chat, word, "")


def test_clearing_forgets_pictures_too(chat, model, folder, capsys):
    _show(chat, "/image", str(folder / "1.png"))
    chat.clear()
    _answer(chat, "What?")
    assert capsys.readouterr().out.rstrip("\n") == answer(model, "What?").rstrip("\n")


def test_a_bad_picture_ends_no_conversation(chat, capsys):
    _show(chat, "/image", "/none.png")
    assert "none.png: cannot be read" in capsys.readouterr().err
    assert chat.media == []


def test_what_the_model_refuses_keeps_the_picture(chat, folder, capsys):
    _show(chat, "/image", str(folder / "1.png"))
    _answer(chat, "x" * 2000)
    assert "context size (512 tokens)" in capsys.readouterr().err
    assert len(chat.media) == 1
