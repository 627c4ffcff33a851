"""The rooms above ask a device for what `ops/device.py` and `Ops` say, and for nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_sight import tiny_pair

import opsin
from opsin.api import loading
from opsin.ops import Ops
from opsin.ops.device import Device, Recorded, Recording


class Narrow:
    """Another's methods, but those alone that a protocol names."""

    def __init__(self, wide, protocol):
        self._wide, self._protocol = wide, protocol

    def __getattr__(self, name):
        if name not in vars(self._protocol):
            raise AssertionError(f"{self._protocol.__name__} has no {name}")
        return getattr(self._wide, name)


class NarrowDevice(Narrow):
    def eager(self, turn=None):
        return Narrow(self._wide.eager(turn), Ops)

    def record(self):
        ops, recording = self._wide.record()
        return Narrow(ops, Ops), NarrowRecording(recording, Recording)


class NarrowRecording(Narrow):
    def finish(self, outputs):
        return Narrow(self._wide.finish(outputs), Recorded)


def results(folder: Path) -> list[object]:
    """What a small model gives at each door that leads to the device."""
    picture = np.zeros((32, 32, 3), np.uint8)
    with opsin.load(folder / "model.gguf", context=256, sequences=2) as model:
        messages = [{"role": "user", "content": [picture, "?"]}]
        answer = model.chat(messages, max_tokens=4, ignore_eos=True)
        text = "".join(answer)
        left = model.chat(messages, max_tokens=100, ignore_eos=True)
        next(iter(left))
        left.cancel()
        traced = model.trace([1, 2, 3], taps=["*"])
        encoded, logits = model.encode(picture).values, model.logits([1, 2, 3])
        values = {**traced, "encoded": encoded, "logits after": logits}
        return [
            text,
            answer.ids,
            model.device.threads,
            {name: value.tobytes() for name, value in values.items()},
        ]


def test_a_device_that_offers_no_more_than_the_protocols_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_pair(tmp_path)
    expected, opened = results(tmp_path), loading.open_device

    monkeypatch.setattr(loading, "open_device", lambda *args, **options: NarrowDevice(opened(*args, **options), Device))
    assert results(tmp_path) == expected


def test_what_a_protocol_does_not_name_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_pair(tmp_path)
    opened = loading.open_device

    class Slim:
        """A device without stopping."""

        def eager(self, turn=None): ...

    monkeypatch.setattr(loading, "open_device", lambda *args, **options: NarrowDevice(opened(*args, **options), Slim))
    with pytest.raises(AssertionError, match="Slim has no"):
        opsin.load(tmp_path / "model.gguf")
