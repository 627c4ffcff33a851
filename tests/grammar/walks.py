"""Following a text through a grammar, token by token as a model would write it."""

from __future__ import annotations

OPEN, MAY_END, ENDED = "open", "may end", "ended"


def allowed(mask, id):
    """Whether a mask lets an id through."""
    return mask is None or bool(mask[id >> 3] >> (id & 7) & 1)


def follow(matcher, ids, ends):
    """Where the ids lead: OPEN, MAY_END or ENDED; or the place of the first that may not follow."""
    for place, id in enumerate(ids):
        if matcher.ended or not allowed(matcher.mask(), id):
            return place
        matcher.accept(id)
    if matcher.ended:
        return ENDED
    mask = matcher.mask()
    return MAY_END if mask is not None and any(allowed(mask, end) for end in ends) else OPEN


def walk(grammars, grammar, text, special=True):
    """The same of a text; True where it is a whole answer, False where it is the beginning of one, None where none."""
    tokenizer = grammars.tokenizer
    ids = tokenizer.encode(text, special=special, first=False)
    found = follow(grammars.start(grammar), ids, tokenizer.end_ids)
    return {OPEN: False, MAY_END: True, ENDED: True}.get(found)
