"""A tiny random MiniCPM-V 4.7: what 4.6's truth makes, in its own class."""

from __future__ import annotations

from functools import partial

from minicpmv4_6_truth import MARKER, make, processor, write_tower
from vision_truth import Truth

TOWERS = {
    "minicpmv4_7": Truth(
        "minicpmv4_7", partial(make, "16x", newer=True), write_tower, partial(processor, "16x", newer=True), MARKER
    ),
    "minicpmv4_7 4x": Truth(
        "minicpmv4_7", partial(make, "4x", newer=True), write_tower, partial(processor, "4x", newer=True), MARKER,
        like="minicpmv4_6 4x",
    ),
}  # fmt: skip
