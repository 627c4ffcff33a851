"""Videos on the command line: which to ask about, and which of their frames are looked at."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from opsin.cli import options
from opsin.config import expanded

if TYPE_CHECKING:
    from opsin.api.videos import LaidOut, Video


def add_videos(parser: argparse.ArgumentParser) -> None:
    """Options for all of them."""
    group = parser.add_argument_group("videos", "need PyAV: pip install 'opsin[video]'")
    group.add_argument(
        "--video", action="append", default=[], type=expanded, metavar="FILE", help="one to ask about; again for more"
    )
    group.add_argument("--video-fps", type=float, metavar="N", help="look at so many frames of each second")
    group.add_argument("--video-frames", type=options.positive, metavar="N", help="look at so many frames at most")
    group.add_argument(
        "--max-video-tokens", type=options.positive, metavar="N", help="of all frames, which are made to fit"
    )
    group.add_argument("--no-video-sound", action="store_true", help="leave out sound that the model would hear")


def videos(args: argparse.Namespace) -> Iterator[Video]:
    """Those that were given. Nothing is read yet."""
    for path in args.video:
        from opsin.api.videos import Video

        yield Video(path, args.video_fps, args.video_frames, args.max_video_tokens, sound=not args.no_video_sound)


def told(laid: LaidOut) -> str:
    """What a person should know of a video: its size, how much of it is looked at, and what that takes."""
    from opsin.spans import Patches

    first = next(part for part in laid.parts if isinstance(part, Patches))
    (width, height), seen = laid.film.size, first.size
    at = f", seen at {seen[0]} x {seen[1]}" if seen else ""
    return "; ".join([f"{width} x {height} pixels{at}, {laid.tokens} tokens", *first.notes])
