"""Pictures that stand in the URL itself: in all spellings that clients write, and wrong ones are told what is wrong."""

from __future__ import annotations

import base64

import pytest
from drawn import draw, encode
from hypothesis import given
from hypothesis import strategies as st

from opsin.errors import RequestError
from opsin.media.fetch import FetchRules, fetch

KINDS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")
FILES = {kind: encode(draw((24, 18)), kind) for kind in KINDS}
PICTURE = FILES["PNG"]
PLAIN = base64.b64encode(PICTURE).decode()
assert "+" in PLAIN


def refusal(url: str, rules: FetchRules | None = None) -> RequestError:
    """What is said."""
    with pytest.raises(RequestError) as refused:
        fetch(url, rules, name="picture 7")
    assert refused.value.message.startswith("picture 7: ") and refused.value.message.isprintable()
    assert len(refused.value.message) < 200 and refused.value.hint
    return refused.value


@pytest.mark.parametrize("kind", KINDS)
def test_plain_base64_is_taken_where_it_holds_a_picture(kind: str) -> None:
    plain = base64.b64encode(FILES[kind]).decode()
    assert fetch(plain, FetchRules()) == FILES[kind]
    assert fetch(f" {plain[:50]}\r\n{plain[50:].rstrip('=')}\n", FetchRules()) == FILES[kind]
    assert fetch(base64.urlsafe_b64encode(FILES[kind]).decode(), FetchRules()) == FILES[kind]


def test_plain_base64_is_measured_too() -> None:
    assert "bytes, at most 100" in refusal(PLAIN, FetchRules(bytes=100)).message


@pytest.mark.parametrize(
    "url",
    [
        f"DATA:IMAGE/PNG;BASE64,{PLAIN}",
        f"data:text/plain;base64,{PLAIN}",
        f"data:;base64,{PLAIN.rstrip('=')}",
        f"data:image/png;charset=utf-8;base64,{PLAIN}",
        f"data:image/png;name=a%20b.png;base64,\n{PLAIN[:70]}\n\t{PLAIN[70:]}",
        f"data:image/png;base64,{PLAIN.replace('+', '%2B').replace('/', '%2f').replace('=', '%3D')}",
        f"data:image/png;base64,{PLAIN[:80]}%0D%0A{PLAIN[80:]}",
        f" data:image/png; base64 ,{PLAIN} ",
    ],
)
def test_base64_in_a_data_url_is_read_in_all_spellings(url: str) -> None:
    assert fetch(url, FetchRules()) == PICTURE


@pytest.mark.parametrize(
    ("url", "words", "way"),
    [
        ("", "the URL is empty", "data:image/png;base64,"),
        (" \n", "the URL is empty", "data:image/png;base64,"),
        ("data:", "it has no comma", "data:image/png;base64,"),
        ("data:" + ";base64 " * 1000 + ",x", "8000 characters stand before its comma", "data:image/png;base64,"),
        ("data:,", "nothing stands behind its comma", "the picture's bytes"),
        ("data:image/png;base64,", "nothing stands behind its comma", "the picture's bytes"),
        ("data:image/png;base64,  ", "nothing stands behind its comma", "the picture's bytes"),
        ("data:image/png;base64,====", "nothing stands behind its comma", "the picture's bytes"),
        (f"data:image/png;base64;charset=utf-8,{PLAIN}", "base64 must stand last before the comma", "data:"),
        (f"data:base64,{PLAIN}", "base64 must stand behind a semicolon", "data:image/png;base64,"),
        (f"data:image/png base64,{PLAIN}", "base64 must stand behind a semicolon", "data:image/png;base64,"),
        (f"data:image/png,{PLAIN}", "it is base64, but does not say so", "data:image/png;base64,"),
        (f"data:,{PLAIN}", "it is base64, but does not say so", "data:image/png;base64,"),
        (f"data:image/png;base64,b'{PLAIN}'", "Python's b'...' stands around its base64", ".decode()"),
        (f"data:image/png;base64,data:image/png;base64,{PLAIN}", "it begins twice", "once"),
        (f"data:image/png;base64,{PLAIN[:40]}...{PLAIN[-9:]}", "its base64 is damaged", "again"),
        (f"data:image/png;base64,{PLAIN.replace('+', ' ')}", "its base64 has spaces, as if each + had become one", "%"),
        (f"data:image/png,base64,{PLAIN}", "base64 must stand behind a semicolon", "data:image/png;base64,"),
        (f'"data:image/png;base64,{PLAIN}"', "something stands before data:", "alone"),
        (f"url(data:image/png;base64,{PLAIN})", "something stands before data:", "alone"),
        (f"\ufeffdata:image/png;base64,{PLAIN}", "something stands before data:", "alone"),
        (f"b'{PLAIN}'", "Python's b'...' stands around its base64", ".decode()"),
        (f"image/png;base64,{PLAIN}", "it lacks data: at its beginning", "data:image/png;base64,"),
        (f"base64,{PLAIN}", "it lacks data: at its beginning", "data:image/png;base64,"),
        ("A" * 200, "base64 without data:image/png;base64, before it, and of no known picture", "the picture's bytes"),
        ("cat.png", "a file's name, not a URL", "data:image/png;base64,"),
        ("pictures/my cat.png", "a file's name, not a URL", "data:image/png;base64,"),
        ("./cat.png", "a file's name, not a URL", "data:image/png;base64,"),
        ("~/cat.png", "a file's name, not a URL", "data:image/png;base64,"),
        ("C:\\pictures\\cat.png", "a file's name, not a URL", "data:image/png;base64,"),
        ("c:/pictures/cat.png", "a file's name, not a URL", "data:image/png;base64,"),
        ("\\\\host\\share\\cat.png", "a file's name, not a URL", "data:image/png;base64,"),
        ("example.org/cat.png", "a file's name, not a URL", "https://"),
        ("//example.org/cat.png", "it lacks https: at its beginning", "https://example.org/cat.png"),
        ("a cat", "not a URL", "data:image/png;base64,"),
        ("/etc/passwd", "local files may not be read", "data: URL"),
        ("file:///etc/passwd", "local files may not be read", "data: URL"),
        ("/9j/cat.png", "local files may not be read", "data: URL"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_url_is_said(url: str, words: str, way: str) -> None:
    said = refusal(url)
    assert said.message == f"picture 7: {words}" or said.message.startswith(f"picture 7: {words}: "), said
    assert way in (said.hint or ""), said


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=60), st.integers(0, 90), st.integers(0, 30))
def test_any_damage_to_a_data_url_is_read_or_refused(noise: str, at: int, cut: int) -> None:
    whole = f"data:image/png;base64,{PLAIN}"
    try:
        assert isinstance(fetch(whole[:at] + noise + whole[at + cut :], FetchRules(remote=False), name="it"), bytes)
    except RequestError as error:
        assert error.message.startswith("it: ") and error.message.isprintable() and error.hint
