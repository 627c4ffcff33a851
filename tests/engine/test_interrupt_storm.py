"""Ctrl-C at any moment in any door of a model, hundreds of times: no lock stays taken, no page is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

from tiny_sight import tiny_pair

STORM = """
    import gc, json, os, random, signal, sys, threading, time
    import numpy as np
    import opsin

    KNOBS = {"temperature": 0.0, "max_tokens": 30, "ignore_eos": True}
    HI = [{"role": "user", "content": "Hi"}]
    pictures = [np.random.default_rng(i).integers(0, 256, (32, 40, 3), np.uint8) for i in range(50)]
    order, armed, over = random.Random(int(sys.argv[2])), threading.Event(), False
    model = opsin.load(sys.argv[1], threads=2, context=512)
    expected = model.chat(HI, **KNOBS).text
    doors = [
        lambda: model.chat(HI, **KNOBS).text,
        lambda: model.logits([1] * order.randrange(1, 500)),
        lambda: model.trace([1, 2, 3]),
        lambda: model.encode(order.choice(pictures)),
        lambda: model.chat([{"role": "user", "content": [order.choice(pictures), "?"]}], **KNOBS).text,
        lambda: model.prepare(order.choice(pictures)),
        lambda: model.count(HI),
    ]

    def press():
        while not over:
            time.sleep(random.random() * 0.01)
            if armed.wait(0.1):
                os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    hits, wrong = 0, []
    while hits < 400:
        try:
            try:
                armed.set()
                order.choice(doors)()
            finally:
                armed.clear()
        except KeyboardInterrupt:
            hits += 1
        except BaseException as error:
            wrong.append(repr(error))
    over = True
    for _ in range(20):  # the last ones come late
        try:
            presser.join()
            time.sleep(0.01)
        except KeyboardInterrupt:
            pass
    gc.collect()
    same = model.chat(HI, **KNOBS).text == expected
    whole = model.logits([1] * 511).shape[0] == 511  # all pages are back
    model.encode(np.zeros((32, 32, 3), np.uint8))
    model.close()
    print(json.dumps([wrong, same, whole]))
"""


def test_interrupts_at_any_moment_leave_the_model_as_it_was(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STORM), str(tiny_pair(tmp_path)[0]), "1"],
        capture_output=True, text=True, timeout=300, check=False, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == [[], True, True]
