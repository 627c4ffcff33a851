"""Files of sound that PyAV encodes: kinds that libsndfile does not write."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

RATE = 16_000


def made_track(
    samples: np.ndarray, kind: str = "ipod", codec: str = "aac", rate: int = RATE, *,
    late: Sequence[tuple[int, float]] = (),
) -> bytes:  # fmt: skip
    """A file of float32 [n] or [channels, n]. `late`: from this sample on all is shown so many seconds later."""
    import av

    samples = np.atleast_2d(samples).astype(np.float32)
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout, bit_rate=96_000 * len(samples))
        made = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        made.sample_rate, made.pts = rate, 0
        to = av.AudioResampler(stream.codec_context.format.name, layout, rate, stream.codec_context.frame_size or 1024)
        stream.codec_context.open()
        at = 0
        for frame in [*to.resample(made), *to.resample(None)]:
            frame.pts = at + sum(round(seconds * rate) for first, seconds in late if at >= first)
            at += frame.samples
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
