"""transformers' own processors of videos, which import torchvision: torch alone gives the two functions that they need.

Their classes are made without torchvision's checks: what they compute is theirs but for `resize` and `normalize`,
which torchvision hands on to torch as is done here.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from transformers import image_processing_backends as backends
from transformers.video_utils import VideoMetadata

from opsin.media.film import Film

FUNCTIONS = "torchvision.transforms.v2.functional"
MODES = {mode: mode.name.lower() for mode in Image.Resampling}


def resize(videos: torch.Tensor, size: Sequence[int], interpolation: str, antialias: bool = True) -> torch.Tensor:
    """Frames of uint8 [..., channels, height, width]; torch rounds them as Pillow does."""
    flat = videos.reshape(-1, *videos.shape[-3:])
    if interpolation == "lanczos":
        images = [Image.fromarray(frame.permute(1, 2, 0).numpy()).resize((size[1], size[0]), 1) for frame in flat]
        made = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    else:
        made = torch.nn.functional.interpolate(flat, size=tuple(size), mode=interpolation, antialias=antialias)
    return made.reshape(*videos.shape[:-2], *size)


def normalize(videos: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    return (videos - mean.reshape(-1, 1, 1)) / std.reshape(-1, 1, 1)


@contextmanager
def _torchvision() -> Iterator[ModuleType]:
    functions = ModuleType(FUNCTIONS)
    functions.resize, functions.normalize = resize, normalize
    functions.InterpolationMode = type("InterpolationMode", (), {"BILINEAR": "bilinear", "LANCZOS": None})
    names = FUNCTIONS.split(".")
    folders = {".".join(names[:i]): ModuleType(".".join(names[:i])) for i in range(1, len(names))}
    folders["torchvision.transforms.v2"].functional = functions
    with patch.dict(sys.modules, {**folders, FUNCTIONS: functions}):
        yield functions


class Processor:
    """A class `NAMEVideoProcessor` of transformers with these attributes in place of its own."""

    def __init__(self, module: str, name: str, **attributes: object) -> None:
        with _torchvision() as self._functions:
            made = getattr(importlib.import_module(f"transformers.models.{module}.video_processing_{module}"), name)
        self._made = object.__new__(made)
        for attribute, value in attributes.items():
            setattr(self._made, attribute, value)

    def sample(self, film: Film, **asked: object) -> list[int]:
        """The frames of a film that it chooses."""
        rate = asked.pop("rate", film.rate)
        data = VideoMetadata(len(film), rate, film.size[0], film.size[1], len(film) / rate)
        return [int(number) for number in self._made.sample_frames(data, **asked)]

    def __call__(self, film: Film, numbers: Sequence[int], **options: Any) -> Mapping[str, torch.Tensor]:
        """What it makes of these frames."""
        frames = torch.from_numpy(np.stack([np.asarray(film.decode(n)) for n in numbers])).permute(0, 3, 1, 2)
        told = ("size", "resample", "image_mean", "image_std", "patch_size", "temporal_patch_size", "merge_size")
        known = {name: getattr(self._made, name) for name in told if hasattr(self._made, name)}
        given = {**known, "do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
        given["size"] = backends.SizeDict(**given["size"])
        with (
            patch.object(backends, "tvF", self._functions, create=True),
            patch.object(backends, "pil_torch_interpolation_mapping", MODES),
            patch.object(backends, "is_torchvision_greater_or_equal", lambda version: True),
        ):
            return self._made._preprocess([frames], return_tensors="pt", **{**given, **options})
