"""Puts a trained opsin-nano into the package: `python tools/bundle_nano.py MODEL.gguf MMPROJ.gguf`."""

from __future__ import annotations

import sys
from pathlib import Path

from opsin.convert.merge import merge
from opsin.hub.bundled import NAME

DATA = Path(__file__).parents[1] / "src" / "opsin" / "data"


def main(model: str, projector: str) -> None:
    DATA.mkdir(exist_ok=True)
    merge(Path(model), Path(projector), DATA / f"{NAME}.gguf")
    print(f"{(DATA / f'{NAME}.gguf').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
