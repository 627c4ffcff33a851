"""The first requests may come at once: msgspec, which reads their bodies, has met no kind of field by then."""

from __future__ import annotations

import subprocess
import sys

import pytest

ALL_AT_ONCE = """
import sys, threading
from contextlib import suppress
from opsin.errors import OpsinError
from opsin.serve.chat import ChatFields
from opsin.serve.completions import CompletionFields
from opsin.serve.conversation import Conversation
from opsin.serve.fields import read

BODY = {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "response_format": {"type": "text"}}
sys.setswitchinterval(1e-6)
go = threading.Barrier(8)


def ask(number):
    go.wait()
    for kind in (ChatFields, Conversation, CompletionFields)[:: 1 if number % 2 else -1]:
        with suppress(OpsinError):
            read(BODY, kind)


threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("all were read")
"""


@pytest.mark.parametrize("time", range(2))
def test_first_requests_at_once_are_read(time):
    done = subprocess.run([sys.executable, "-c", ALL_AT_ONCE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "all were read\n"), done.stderr
