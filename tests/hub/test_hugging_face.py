"""Models of Hugging Face's hub, by a fake one: which files are taken, how they are fetched, what is said if not."""

from __future__ import annotations

import errno
import re
import shutil
from collections import namedtuple

import numpy as np
import pytest
from fake_hub import COMMIT, as_the_hub
from PIL import Image
from tiny_sight import tiny_pair

import opsin
from opsin.errors import DeviceError, FileError, OpsinError, RequestError
from opsin.hub import hugging_face
from opsin.hub.file_names import number_format, splits
from opsin.hub.locate import locate


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A fake hub, which the library takes for the real one, and a cache of this test alone."""
    with as_the_hub(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return tiny_pair(tmp_path_factory.mktemp("pair"))


def names_of(found):
    return found.text.name, [path.name for path in found.vision]


def test_a_model_is_fetched_with_its_part_for_pictures_and_gives_the_bits_of_the_files(hub, pair):
    text, tower = pair
    hub.repos["owner/tiny-GGUF"] = {"tiny-Q8_0.gguf": text.read_bytes(), "mmproj-F16.gguf": tower.read_bytes()}
    lines = []
    question = [{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (40, 40), "red")}]}]
    made = []
    for place, options in ((text, {}), ("hf:owner/tiny-GGUF:q8_0", {"verify": True, "notice": lines.append})):
        with opsin.load(place, threads=1, context=256, **options) as model:
            made.append(np.asarray(model.logits(model.question(question).prompt)))
            name = model.name
    assert np.array_equal(*made)
    assert name == "owner/tiny-GGUF:Q8_0"
    told = [line for line in lines if line.startswith("fetching")]
    assert told[-1].startswith("fetching mmproj-F16.gguf: 100 % of ")
    assert sorted(hub.fetched()) == ["mmproj-F16.gguf", "tiny-Q8_0.gguf"]


def test_what_is_in_the_cache_is_not_fetched_again_and_serves_without_the_hub(hub, monkeypatch):
    from huggingface_hub import constants

    hub.repos["o/r"] = {"r-Q8_0.gguf": b"text", "mmproj-r-f16.gguf": b"eyes"}
    first = locate("hf:o/r")
    hub.asked.clear()
    assert locate("hf:o/r") == first
    assert hub.fetched() == []
    hub.status = 503
    again = locate("hf:o/r")
    assert (again.text, again.vision) == (first.text, first.vision)
    assert any("cache" in note for note in again.notes)
    again.verify()
    hub.status, _ = 0, hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate("hf:o/r:Q8_0").text == first.text
    with pytest.raises(FileError, match="has no Q4_K_M"):
        locate("hf:o/r:Q4_K_M")
    with pytest.raises(FileError, match="HF_HUB_OFFLINE is set"):
        locate("hf:o/other")
    assert hub.asked == []


MANY = {
    "m-Q4_K_M.gguf": b"1", "m-Q8_0.gguf": b"2", "m-UD-Q4_K_XL.gguf": b"3", "m-BF16.gguf": b"4", "imatrix.gguf": b"5",
    "mmproj-BF16.gguf": b"6", "mmproj-Q8_0.gguf": b"7", "mmproj-F32.gguf": b"8", "README.md": b"9",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [("m/m", "m-Q4_K_M.gguf"), ("m/m:Q8_0", "m-Q8_0.gguf"), ("m/m:q8_0", "m-Q8_0.gguf"),
     ("m/m:Q4_K_XL", "m-UD-Q4_K_XL.gguf"), ("m/m:UD-Q4_K_XL", "m-UD-Q4_K_XL.gguf"), ("m/m:bf16", "m-BF16.gguf"),
     ("m/m/m-BF16.gguf", "m-BF16.gguf")],
)  # fmt: skip
def test_the_quant_that_is_asked_for_is_taken(hub, name, text):
    hub.repos["m/m"] = MANY
    found = locate(f"hf:{name}")
    assert names_of(found) == (text, ["mmproj-Q8_0.gguf"])
    assert len(hub.fetched()) == 2
    assert bool(found.notes) == (name == "m/m")


def test_no_file_for_pictures_is_fetched_where_none_is_wanted(hub):
    hub.repos["m/m"] = MANY
    assert names_of(locate("hf:m/m", vision=False)) == ("m-Q4_K_M.gguf", [])
    assert hub.fetched() == ["m-Q4_K_M.gguf"]


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        (["mmproj-F16.gguf", "mmproj-Q8_0.gguf", "mmproj-BF16.gguf"], "mmproj-F16.gguf"),
        (["mmproj-BF16.gguf", "mmproj-Q8_0.gguf"], "mmproj-Q8_0.gguf"),
        (["mmproj-F32.gguf", "mmproj-BF16.gguf"], "mmproj-BF16.gguf"),
        (["mmproj-other-7b-f16.gguf", "mmproj-m-2b-bf16.gguf"], "mmproj-m-2b-bf16.gguf"),
        (["mmproj-Q4_0.gguf", "mmproj-F32.gguf"], "mmproj-F32.gguf"),
    ],
)
def test_the_best_file_for_pictures_is_taken(hub, files, taken):
    hub.repos["m/m"] = {"m-2b-Q8_0.gguf": b"1", **dict.fromkeys(files, b"2")}
    assert names_of(locate("hf:m/m"))[1] == [taken]


def test_split_files_are_taken_whole(hub):
    parts = [f"Q8_0/big-Q8_0-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    hub.repos["m/big"] = {name: name.encode() for name in (*reversed(parts), "big-Q2_K.gguf")}
    found = locate("hf:m/big:Q8_0")
    assert found.text.name == "big-Q8_0-00001-of-00003.gguf"
    assert sorted(path.name for path in found.text.parent.iterdir()) == [part.partition("/")[2] for part in parts]
    found.verify()
    later = found.text.with_name("big-Q8_0-00003-of-00003.gguf").resolve()
    later.write_bytes(b"other")
    with pytest.raises(FileError, match="is damaged"):
        found.verify()


def test_a_connection_that_breaks_is_taken_up_where_it_ended(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    data = bytes(range(256)) * 4096
    hub.repos["m/m"] = {"m-Q8_0.gguf": data}
    hub.break_after = 100_000
    assert locate("hf:m/m").text.read_bytes() == data
    assert len(hub.ranges) == 1
    assert hub.ranges[0] != "bytes=0-"


@pytest.fixture
def cut(hub, monkeypatch):
    """A repository whose only file was fetched by half when the hub went away for good; what it holds."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    data = bytes(range(256)) * 4096
    hub.repos["m/m"] = {"m-Q8_0.gguf": data}
    hub.break_after, hub.vanishes = 100_000, True
    assert "cannot be reached" in refused("m/m")
    hub.vanishes = False
    hub.ranges.clear()
    return data


def partial(folder):
    (found,) = (folder / "cache/models--m--m/blobs").iterdir()
    return found


def test_what_was_fetched_is_taken_up_by_the_next_process(hub, cut, tmp_path):
    size = partial(tmp_path).stat().st_size
    assert 0 < size <= 100_000
    lines: list[str] = []
    found = locate("hf:m/m", notice=lines.append)
    assert found.text.read_bytes() == cut
    assert hub.ranges == [f"bytes={size}-"]
    assert lines[0] == f"fetching m-Q8_0.gguf: {100 * size // len(cut)} % of 1 MB"
    assert partial(tmp_path).name == found.digests[found.text]
    found.verify()


def test_what_was_whole_but_for_its_name_is_not_fetched_again(hub, cut, tmp_path):
    partial(tmp_path).write_bytes(cut)
    hub.asked.clear()
    assert locate("hf:m/m").text.read_bytes() == cut
    assert hub.fetched() == []


@pytest.mark.parametrize("wrong", [b"x" * 5_000, b"x" * (1 << 20)])
def test_what_is_taken_up_and_damaged_is_told_and_begun_anew(hub, cut, tmp_path, wrong):
    partial(tmp_path).write_bytes(wrong)
    assert "was taken up, and is damaged" in refused("m/m")
    assert list((tmp_path / "cache/models--m--m/blobs").iterdir()) == []
    assert locate("hf:m/m").text.read_bytes() == cut


def test_more_than_the_file_has_is_begun_anew(hub, cut, tmp_path):
    partial(tmp_path).write_bytes(cut * 2)
    assert locate("hf:m/m").text.read_bytes() == cut
    assert hub.ranges == []


def test_where_the_hub_has_no_digest_the_library_fetches(hub, monkeypatch):
    hub.repos["m/m"] = {"m-Q8_0.gguf": b"1" * 1000}
    monkeypatch.setattr("opsin.hub.blobs._DIGEST", re.compile("none"))
    assert locate("hf:m/m").text.read_bytes() == b"1" * 1000


def test_a_token_opens_what_is_private_and_gated(hub, monkeypatch):
    hub.repos["m/m"] = {"m-Q8_0.gguf": b"1"}
    hub.token, hub.private, hub.gated = "hf_right", {"m/m"}, {"m/m"}
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert locate("hf:m/m").text.read_bytes() == b"1"


def refused(name: str, kind: type[OpsinError] = FileError) -> str:
    with pytest.raises(kind) as caught:
        locate(f"hf:{name}")
    line = str(caught.value)
    assert "\n" not in line and len(line) < 500
    return line


def test_what_the_hub_refuses_is_told_in_our_words(hub, monkeypatch):
    hub.repos |= {"m/m": {"m-Q8_0.gguf": b"1"}, "m/secret": {"m-Q8_0.gguf": b"1"}, "m/none": {"a.bin": b"1"}}
    hub.gated, hub.private, hub.token = {"m/m"}, {"m/secret"}, "hf_right"
    assert "there is no m/absent" in (line := refused("m/absent")) and "HF_TOKEN" in line
    assert "or it is private" in refused("m/secret")
    assert "gated" in (line := refused("m/m")) and f"{hub.url}/m/m" in line and "no token was sent" in line
    assert "no GGUF file" in refused("m/none")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "401" in (line := refused("m/m")) and "the token" in line and "hf_wrong" not in line
    monkeypatch.delenv("HF_TOKEN")
    hub.status = 429
    assert "answers 429" in refused("m/m")
    hub.status = 503
    assert "answers 503" in refused("m/m")


def test_a_quant_or_file_that_is_not_there_is_told_with_those_that_are(hub):
    hub.repos["m/m"] = MANY
    assert "has no Q5_K_M (there are BF16, Q4_K_M, Q8_0, UD-Q4_K_XL)" in refused("m/m:Q5_K_M")
    assert "has no file 'absent.gguf' (there are m-Q4_K_M.gguf" in refused("m/m/absent.gguf")
    hub.repos["m/two"] = {"a-Q8_0.gguf": b"1", "b-Q8_0.gguf": b"2"}
    assert "several models: a-Q8_0.gguf, b-Q8_0.gguf (name one: hf:m/two/a-Q8_0.gguf)" in refused("m/two:Q8_0")


def test_a_hub_out_of_reach_is_told(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert "http://127.0.0.1:1 cannot be reached for m/m" in refused("m/m")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"<html>", b'{"siblings": 3}', b'{"siblings": [{}]}', b"null"])
def test_what_is_no_hub_is_told(hub, body):
    hub.body = body
    assert "m/m" in refused("m/m")


def test_names_that_lead_out_of_the_cache_are_refused(hub, tmp_path):
    hub.repos["m/m"] = {"../../../../escaped-Q8_0.gguf": b"1"}
    refused("m/m")
    assert not list(tmp_path.rglob("escaped*"))


def test_a_full_disk_is_told_before_and_while_it_fills(hub, monkeypatch):
    hub.repos["m/m"] = {"m-Q8_0.gguf": b"1" * 2_000_000}
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1_000_000))
        assert "takes 2 MB" in (line := refused("m/m", DeviceError)) and "1 MB free" in line and "HF_HOME" in line
    assert hub.fetched() == []

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    assert "disk is full" in refused("m/m", DeviceError)


@pytest.mark.parametrize("name", ["", "m", "m/", "/m", "../m", "m/..", "m/m:", "m/m:a b", "m/m/x.bin", "a/b/c", "m//m"])
def test_other_names_are_refused(hub, name):
    assert "no name on Hugging Face's hub" in refused(name, RequestError)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("name", "format"),
    [("m-Q4_K_M.gguf", "Q4_K_M"), ("m.q8_0.gguf", "Q8_0"), ("m-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"), ("m-fp16.gguf", "F16"),
     ("Q8_0/m-00001-of-00002.gguf", "Q8_0"), ("m-IQ2_XXS-00001-of-00002.gguf", "IQ2_XXS"), ("m.gguf", ""),
     ("mxfp4/m.gguf", "MXFP4"), ("qwen2-f16/m-q4_0.gguf", "Q4_0")],
)  # fmt: skip
def test_names_say_their_number_format(name, format):
    assert number_format(name) == format


def test_splits_are_those_of_one_model():
    names = ["a-00002-of-00002.gguf", "a-00001-of-00002.gguf", "b-00002-of-00002.gguf", "a-00001-of-00003.gguf"]
    assert splits("a-00001-of-00002.gguf", names) == ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"]
    assert splits("a.gguf", names) == ["a.gguf"]


def test_the_commit_is_kept_for_starts_without_the_hub(hub, tmp_path):
    hub.repos["m/m"] = {"m-Q8_0.gguf": b"1"}
    locate("hf:m/m")
    assert (tmp_path / "cache/models--m--m/refs/main").read_text() == COMMIT


def test_other_files_of_a_repository_are_no_models_whatever_a_model_is_called(hub):
    hub.repos["m/flora"] = dict.fromkeys(
        (
            "flora-Q8_0.gguf",
            "style-lora-Q8_0.gguf",
            "flora.imatrix.gguf",
            "flora-mmproj-Q8_0.gguf",
            "mtp-flora-Q8_0.gguf",
        ),
        b"1",
    )
    assert names_of(locate("hf:m/flora")) == ("flora-Q8_0.gguf", ["flora-mmproj-Q8_0.gguf"])
    hub.repos["m/ahead"] = {"flora-MTP-Q8_0.gguf": b"1"}  # a whole model with such heads
    assert names_of(locate("hf:m/ahead")) == ("flora-MTP-Q8_0.gguf", [])


def test_the_librarys_other_way_of_fetching_tells_the_same_lines():
    from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter

    report = namedtuple("report", "total_bytes total_bytes_completed total_transfer_bytes_completed "
                                  "total_bytes_completion_rate total_transfer_bytes_completion_rate")  # fmt: skip
    lines: list[str] = []
    options = {"reconstruction_desc": "a", "transfer_desc": "b", "total": 4_000_000, "log_level": 0}
    with XetDownloadProgressReporter(**options, tqdm_class=hugging_face._bar("m.gguf", lines.append)) as made:
        for done in (1, 2, 4):
            made.update_progress(report(4_000_000, done * 1_000_000, done * 500_000, 1.0, 1.0))
    assert lines == [f"fetching m.gguf: {percent} % of 4 MB" for percent in (0, 25, 50, 100)]
