"""Whisper by transformers, of CTranslate2's folder that `tools/fetch_whisper.py` makes: what is written, and when.

Needs torch and transformers (`pip install -e '.[test]'`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import transformers
from tokenizers import Tokenizer

from opsin.api.speech.segments import Word
from opsin.convert.speech import open_checkpoint
from opsin.media.mel import log_mel, window

BEGIN, END, FIRST = 50257, 50256, 50363  # of English models: ids of the beginning, the end and the first moment
Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Theirs:
    """An English model of 384 values and four layers (tiny.en), and its tokenizer."""

    model: transformers.WhisperForConditionalGeneration
    tokenizer: Tokenizer

    @classmethod
    def load(cls, folder: Path, threads: int) -> Theirs:
        torch.set_num_threads(threads)
        with open_checkpoint(folder) as checkpoint:
            states = {f"model.{name}": torch.from_numpy(checkpoint.read(name)) for name in checkpoint.names}
        sizes = {"layers": 4, "attention_heads": 6, "ffn_dim": 1536}
        config = transformers.WhisperConfig(
            vocab_size=51864, d_model=384, pad_token_id=END, bos_token_id=END, eos_token_id=END,
            decoder_start_token_id=BEGIN,
            **{f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in sizes.items()},
        )  # fmt: skip
        model = transformers.WhisperForConditionalGeneration(config).eval()
        model.load_state_dict(states, strict=False)
        model.tie_weights()
        model.set_attn_implementation("eager")  # which tells weights
        told = json.loads((folder / "config.json").read_text())
        settings = {
            "no_timestamps_token_id": FIRST - 1, "begin_suppress_tokens": [220, END], "is_multilingual": False,
            "max_initial_timestamp_index": 50, "prev_sot_token_id": BEGIN + 103, "max_length": 448,
            "alignment_heads": told["alignment_heads"], "suppress_tokens": told["suppress_ids"],
        }  # fmt: skip
        for name, value in settings.items():  # some are no attributes before
            setattr(model.generation_config, name, value)
        return cls(model, Tokenizer.from_file(str(folder / "tokenizer.json")))

    def text(self, samples: Samples) -> str:
        """All that is said."""
        return "".join(text for text, _, _ in self.segments(samples))

    def segments(self, samples: Samples) -> list[tuple[str, float, float]]:
        """Texts, and when each begins and ends, by their own rules and these of the paper's section 4.5."""
        logs = log_mel(samples, 80)
        with torch.inference_mode():
            made = self.model.generate(
                torch.from_numpy(np.ascontiguousarray(logs.T[None])),
                attention_mask=torch.ones(1, len(logs), dtype=torch.long), return_timestamps=True,
                temperature=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0), logprob_threshold=-1.0, compression_ratio_threshold=1.35,
                no_speech_threshold=0.6, condition_on_prev_tokens=False, return_segments=True,
            )  # fmt: skip
        found = [(one["tokens"].tolist(), float(one["start"]), float(one["end"])) for one in made["segments"][0]]
        return [(self.tokenizer.decode([id for id in ids if id < END]), start, end) for ids, start, end in found]

    def words(self, samples: Samples) -> list[Word]:
        """Words of at most 30 seconds with their signs, each of which begins where the one before it ends."""
        logs = window(log_mel(samples, 80), 0, 3000)
        with torch.inference_mode():
            made = self.model.generate(
                torch.from_numpy(np.ascontiguousarray(logs.T[None])), return_token_timestamps=True,
                return_dict_in_generate=True, num_frames=torch.tensor([len(samples) // 160]),
            )  # fmt: skip
        found: list[Word] = []
        for id, end in zip(made["sequences"][0].tolist(), made["token_timestamps"][0].tolist(), strict=True):
            piece = self.tokenizer.decode([id]) if id < END else ""
            if found and piece and not piece.startswith(" "):
                found[-1] = replace(found[-1], text=found[-1].text + piece, end=end)
            elif piece:
                found.append(Word(piece, found[-1].end if found else 0.0, end, 1.0))
        return found
