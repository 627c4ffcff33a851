"""Videos that tests make: small, of colours that tell a frame's number."""

from __future__ import annotations

import io

import numpy as np


def made_frames(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """Frames [height, width, 3]: a bar that grows, on a ground that becomes red."""
    frames = []
    for number in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[..., 0] = number * 7 % 256
        frame[:, : width * number // count, 1] = 200
        frames.append(frame)
    return frames


def made_video(
    count: int = 35, rate: int = 10, size: tuple[int, int] = (64, 48), *, kind: str = "mp4", codec: str = "libx264",
    gop: int = 12, sound: bool = False,
) -> bytes:  # fmt: skip
    """A file of so many frames; PyAV's encoders are GPL, opsin has none."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = gop
        heard = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for frame in made_frames(count, *size):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
        if heard is not None:
            container.mux(heard.encode(_tone(count / rate)))
            container.mux(heard.encode(None))
    return buffer.getvalue()


def _tone(seconds: float):
    import av

    wave = np.sin(np.arange(int(16000 * seconds)) * 2 * np.pi * 440 / 16000).astype(np.float32) * 0.5
    frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
    frame.sample_rate = 16000
    return frame


def decoded(data: bytes) -> list[np.ndarray]:
    """All frames, one after another, by PyAV alone."""
    import av

    with av.open(io.BytesIO(data)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
