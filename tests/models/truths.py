"""The truth of each family: `NAME_truth.py` beside this file for each `opsin.models.NAME` that has towers."""

from __future__ import annotations

import importlib

from foreign import Foreign
from vision_truth import Truth

from opsin.models import families

TOWERS: dict[str, Truth] = {}  # each model
LAYOUTS: dict[str, Truth] = {}  # each way to write a tower's file: models, but for like ones, and other options
FOREIGN: dict[str, Foreign] = {}  # each way of others to write a file, by its architecture
for _family in families():
    if hasattr(_family, "ENCODERS"):
        _truth = importlib.import_module(f"{_family.__name__.rsplit('.', 1)[1]}_truth")
        TOWERS |= _truth.TOWERS
        LAYOUTS |= {name: model for name, model in _truth.TOWERS.items() if not model.like}
        LAYOUTS |= getattr(_truth, "OTHERS", {})
        _told = getattr(_truth, "FOREIGN", ())
        FOREIGN |= {_one.architecture: _one for _one in ((_told,) if isinstance(_told, Foreign) else _told)}
