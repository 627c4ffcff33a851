"""What a family's code takes for granted, held against what a checkpoint says.

Pictures that are prepared otherwise are a note; a text model that computes otherwise is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from opsin.convert.checkpoint import Checkpoint
from opsin.errors import ModelError
from opsin.gguf.rules import Rules, Settings
from opsin.gguf.text_rules import context

_PICTURES = {
    "do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True, "rescale_factor": 1 / 255,
}  # fmt: skip


def check_assumptions(checkpoint: Checkpoint, rules: Rules) -> list[str]:
    """Notes about pictures. Raises ModelError where a text model computes what nobody here computes."""
    settings = checkpoint.settings(rules)
    if rules.part == "vision":
        wanted = {f"preprocessor.{key}": value for key, value in _PICTURES.items()} | dict(rules.assumed)
        return [
            f"{path} is {told!r:.40}, pictures are prepared with {ours!r:.40}"
            for path, told, ours in _differences(settings, wanted)
        ]
    for path, told, ours in _differences(settings, rules.assumed):
        raise ModelError(f"{settings.where}: {path} is {told!r:.40}", hint=f"models with {ours!r:.40} are converted")
    if rules.part == "audio":
        return []
    told = [key.path for key in rules.keys if key.name == "{arch}.context_length"]
    return [*(_window(settings) if told[-1:] == [context] else ()), *_head(checkpoint, rules)]


def _differences(settings: Settings, wanted: Mapping[str, object]) -> Iterator[tuple[str, object, object]]:
    for path, value in wanted.items():
        told, ours = settings.find(path), value(settings) if callable(value) else value
        alike = abs(told - ours) < 1e-6 if isinstance(told, float) and isinstance(ours, float) else told == ours
        if told is not None and ours is not None and not alike:
            yield path, told, ours


def _window(settings: Settings) -> Iterator[str]:
    """Where a window over all layers ends the context, see `text_rules.context`."""
    window, positions = settings.find("sliding_window"), settings.find("max_position_embeddings")
    if settings.find("use_sliding_window") is False or settings.find("layer_types") or not isinstance(window, int):
        return
    if isinstance(positions, int) and window < positions:
        yield f"sliding_window is {window}: the file ends at it, not at {positions}: GGUF has no key for a window"


def _head(checkpoint: Checkpoint, rules: Rules) -> Iterator[str]:
    told = [place.get("tie_word_embeddings") for place in (checkpoint.config, checkpoint.text_config)]
    heads = [rule.source for rule in rules.tensors if rule.target == "output.weight"]
    if False in told and True not in told and not set(heads) & set(checkpoint.names):
        yield f"tie_word_embeddings is false, and there is no {heads[0]}: the embeddings are taken for it"
