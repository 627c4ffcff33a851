"""Which words become tokens: all that questions and answers can hold."""

from __future__ import annotations

from training.lists import COLOUR_NAMES, EMOJI_NAMES, NUMBERS, PLACES, SHAPES, article, plural
from training.phrases import PHRASES
from training.text import pieces_of

ANSWERS = ("Yes. No. Zero. Nothing. There is no chart. There is no text. There is no red thing. The first. "
           "The second. Both the same. The number. A chart with two bars. and a An the user model system")
ASIDE = ("in the first picture in the second picture, please Please hello Hello Hi thanks what how is are do which "
         "tell where count name read describe can does now then and or of to me you I it they this that these those "
         "one not more less than other another with without picture pictures image")


def common_pieces() -> list[str]:
    """Pieces of every phrase and every filling, as they stand at a beginning and after a space."""
    found: set[str] = set()
    for phrases in PHRASES.values():
        for phrase in phrases:
            pieces = pieces_of(phrase.format(x="thing", y="thing", place="top"))
            found |= {*pieces, pieces[0].lower()}
    for word in f"{ANSWERS} {ASIDE}".replace(".", "").replace(",", "").split():
        found |= {word, f" {word}"}
    names = [*COLOUR_NAMES, *NUMBERS, *SHAPES, *EMOJI_NAMES, "things", "an"]
    names += [plural(name) for name in (*SHAPES, *EMOJI_NAMES)]
    found |= {f" {name}" for name in names}
    for word in (*COLOUR_NAMES, *NUMBERS, *" ".join(PLACES).split()):
        found |= {word.capitalize(), f" {word}"}
    for name in (*SHAPES, *EMOJI_NAMES):
        found.add(article(name).split()[0].capitalize())
    return sorted(found)
