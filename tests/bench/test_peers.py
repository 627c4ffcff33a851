"""Programs of peers are asked in their own words, and of several the fastest counts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "bench"))
from peer import Peer, PeerError
from text import Rounds, table

NEWER = "--version\n -p, --n-prompt <n>\n -d, --n-depth <n>\n --no-warmup"
OLDER = "-p, --n-prompt <n>\n -gp <pp,tg>\n -w, --warmup <0|1>"
BENCH = """#!{python}
import json, sys
if "--help" in sys.argv:
    print({help!r})
    sys.exit()
given = dict(zip(sys.argv[1:], sys.argv[2:]))
known = "--n-depth" in {help!r}
assert ("-d" not in given and "--no-warmup" not in sys.argv) or known, sys.argv
behind, count = map(int, given.get("-gp", "0,0").split(","))
depth = {{"n_depth": int(given["-d"])}} if "-d" in given else {{}}
tests = [(int(given["-p"]), 0), (0, int(given["-n"])), (behind, count)]
print(json.dumps([
    {{"n_prompt": p, "n_gen": n, "n_threads": int(given["-t"]), "avg_ts": 10.0 * p + n, **depth}}
    for p, n in tests if p or n
]))
"""
BATCHED = """#!{python}
import sys
sys.stdout = sys.{to}
print("|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |")
print("|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|")
print("|   128 |     64 |    8 |   1536 |    2.000 |   512.00 |    4.000 |   128.00 |    6.000 |   256.00 |")
"""


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    made = {}
    for name, told, to in (("newer", NEWER, "stdout"), ("older", OLDER, "stderr")):
        made[name] = tmp_path_factory.mktemp(name)
        program(made[name] / "llama-bench", BENCH.format(python=sys.executable, help=told))
        program(made[name] / "llama-batched-bench", BATCHED.format(python=sys.executable, to=to))
    return made


def test_a_peer_is_given_by_its_folder_and_perhaps_a_name(folders):
    named, plain = Peer.all([f"other={folders['older']}", str(folders["newer"])])
    assert (named.name, named.folder, plain.name) == ("other", folders["older"].resolve(), "llama.cpp")
    with pytest.raises(PeerError, match="two peers have one name"):
        Peer.all([str(folder) for folder in folders.values()])
    with pytest.raises(PeerError, match="no llama-bench was found in /nowhere"):
        Peer.find("x=/nowhere")


@pytest.mark.parametrize("name", ["newer", "older"])
@pytest.mark.parametrize("is_long", [False, True])
def test_each_program_is_asked_as_it_says(folders, name, is_long):
    peer, model = Peer.find(folders[name]), Path("a.gguf")
    rates = peer.single(model, prompt=512, decode=64, is_long=is_long)
    assert (rates.prompt, rates.decode) == (5120, 64)
    deep = peer.single(model, prompt=512, decode=64, depth=4096, is_long=is_long)
    assert (deep.prompt, deep.decode) == ((5120, 64) if name == "newer" else (None, 10 * 4096 + 64))
    together = peer.parallel(model, sequences=8, prompt=128, decode=64)
    assert (together.prompt, together.decode) == (512, 128)


def test_the_fastest_peer_counts_in_each_rate_and_round():
    slow, quick = [{"prompt": 10.0, "decode": 4.0}] * 2, [{"decode": 5.0}, {"decode": 2.0}]
    rounds = Rounds({"opsin": [{"prompt": 30.0, "decode": 10.0}] * 2, "a": slow, "b": quick})
    assert (rounds.ratio("prompt"), rounds.ratio("decode")) == (3, 2.5)
    assert (rounds.each("prompt"), rounds.each("decode")) == ([3, 3], [2, 2.5])
    head, _, prompt, decode = table({"q8_0": rounds}, None)
    assert head.startswith("| work | opsin, tokens/s | a, tokens/s | b, tokens/s | ratio")
    assert "| 30.0 | 10.0 | - | **3.00** | 3.00 (3.00 to 3.00) |" in prompt
    assert "| 10.0 | 4.0 | 3.5 | **2.50** |" in decode
    (only,) = table({"q8_0": Rounds({"opsin": rounds.sides["opsin"], "b": quick})}, None)[2:]
    assert "decode of 64 | 10.0 | 3.5 |" in only
