"""Which of the families' rules a checkpoint goes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opsin.convert.checkpoint import Description
from opsin.errors import ModelError
from opsin.gguf.rules import Rules
from opsin.models import rules as all_rules


def find_rules(checkpoint: Description, *, vision: bool = True) -> tuple[Rules, ...]:
    """The rules of a checkpoint's text, then those of its pictures and of its sound, where it has them.

    Raises ModelError where nobody knows it.
    """
    known, text = all_rules(), checkpoint.text_config
    inner = text.get("architectures")
    classes = [*checkpoint.classes, *(inner if isinstance(inner, list) else [])]
    model_type = text.get("model_type", checkpoint.config.get("model_type"))

    def fits(rule: Rules, part: str) -> bool:
        return rule.part == part and any(name in rule.classes for name in classes) and rule.when(checkpoint.config)

    found = [rule for rule in known if fits(rule, "text")]
    found += [rule for rule in known if rule.part == "text" and model_type in rule.types]
    if not found:
        names = ", ".join(sorted({name for rule in known for name in rule.classes}))
        what = ", ".join(checkpoint.classes) or "no class"
        raise ModelError(f"{checkpoint.path}: {what:.80} cannot be converted", hint=f"known: {names}")
    if not vision:
        return (found[0],)
    tower = _tower(checkpoint, [rule for rule in known if fits(rule, "vision")])
    return (found[0], *([tower] if tower else []), *[rule for rule in known if fits(rule, "audio")][:1])


def _tower(checkpoint: Description, towers: Sequence[Rules]) -> Rules | None:
    """Of the rules of a class the one for its kind of tower. Raises ModelError where no rule knows that."""
    config = checkpoint.config.get("vision_config")
    kind = config.get("model_type") if isinstance(config, Mapping) else None
    fitting = [rule for rule in towers if kind is None or not rule.types or kind in rule.types]
    if towers and not fitting:
        known = ", ".join(sorted({name for rule in towers for name in rule.types}))
        raise ModelError(
            f"{checkpoint.path}: a tower of the kind {kind!r:.40} cannot be converted",
            hint=f"known in this class: {known}; vision=False (--no-vision) leaves it out",
        )
    return fitting[0] if fitting else None
