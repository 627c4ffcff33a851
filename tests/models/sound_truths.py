"""The truth of each family that hears: `NAME_truth.py` beside this file for each `opsin.models.NAME` of them."""

from __future__ import annotations

import importlib

from sound_truth import SoundTruth

from opsin.models import families

SOUNDS: dict[str, SoundTruth] = {}
for _family in families():
    if hasattr(_family, "AUDIO_ENCODERS"):
        SOUNDS |= importlib.import_module(f"{_family.__name__.rsplit('.', 1)[1]}_truth").SOUNDS
