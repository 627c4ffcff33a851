"""The closed lists that pictures and questions are made of: colours, shapes, drawings, characters.

Knows nothing of drawing or of language beyond the words themselves.
"""

from __future__ import annotations

# Each colour has shades for training and shades that only tests use. Every shade is varied a little when drawn.
COLOURS: dict[str, dict[str, list[tuple[int, int, int]]]] = {
    "red": {"train": [(220, 20, 30), (255, 0, 0), (200, 30, 40), (175, 10, 20), (235, 60, 55)],
            "test": [(210, 45, 45), (192, 0, 30)]},
    "orange": {"train": [(255, 140, 0), (245, 125, 20), (255, 155, 50), (230, 115, 10)],
               "test": [(250, 132, 35), (240, 145, 15)]},
    "yellow": {"train": [(255, 235, 0), (250, 220, 40), (255, 245, 80), (240, 210, 10)],
               "test": [(248, 228, 25), (255, 225, 60)]},
    "green": {"train": [(0, 150, 50), (30, 180, 60), (0, 110, 30), (70, 200, 80), (20, 135, 75)],
              "test": [(15, 165, 70), (45, 140, 45)]},
    "blue": {"train": [(0, 70, 220), (30, 100, 255), (20, 40, 160), (60, 130, 230), (0, 0, 230)],
             "test": [(25, 80, 190), (40, 110, 225)]},
    "purple": {"train": [(130, 30, 170), (110, 0, 140), (150, 60, 200), (95, 35, 150)],
               "test": [(125, 45, 160), (140, 20, 185)]},
    "pink": {"train": [(255, 130, 180), (250, 110, 170), (255, 160, 200), (245, 90, 160)],
             "test": [(255, 120, 165), (248, 145, 190)]},
    "brown": {"train": [(120, 70, 30), (140, 85, 45), (100, 55, 20), (130, 75, 50)],
              "test": [(125, 80, 40), (110, 62, 35)]},
    "black": {"train": [(0, 0, 0), (20, 20, 20), (15, 15, 25)], "test": [(10, 10, 10)]},
    "white": {"train": [(255, 255, 255), (248, 248, 248), (250, 250, 245)], "test": [(252, 252, 252)]},
    "grey": {"train": [(128, 128, 128), (150, 150, 150), (110, 110, 110), (135, 138, 142)],
             "test": [(140, 140, 140), (120, 120, 122)]},
}
COLOUR_NAMES: tuple[str, ...] = tuple(COLOURS)

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring", "moon", "arrow")

# Drawings: English name -> code point (hexadecimal).
EMOJI: dict[str, str] = {
    "cat": "1f431", "dog": "1f436", "mouse": "1f42d", "rabbit": "1f430", "fox": "1f98a", "bear": "1f43b",
    "panda": "1f43c", "tiger": "1f42f", "lion": "1f981", "cow": "1f42e", "pig": "1f437", "frog": "1f438",
    "monkey": "1f435", "chicken": "1f414", "penguin": "1f427", "owl": "1f989", "horse": "1f434", "unicorn": "1f984",
    "bee": "1f41d", "butterfly": "1f98b", "snail": "1f40c", "turtle": "1f422", "snake": "1f40d", "octopus": "1f419",
    "crab": "1f980", "fish": "1f41f", "whale": "1f433", "elephant": "1f418", "spider": "1f577", "duck": "1f986",
    "apple": "1f34e", "banana": "1f34c", "grapes": "1f347", "watermelon": "1f349", "strawberry": "1f353",
    "cherries": "1f352", "pineapple": "1f34d", "lemon": "1f34b", "carrot": "1f955", "corn": "1f33d",
    "mushroom": "1f344", "bread": "1f35e", "cheese": "1f9c0", "egg": "1f95a", "pizza": "1f355", "burger": "1f354",
    "fries": "1f35f", "cake": "1f370", "cookie": "1f36a", "lollipop": "1f36d", "coffee": "2615", "tree": "1f333",
    "cactus": "1f335", "rose": "1f339", "sunflower": "1f33b", "tulip": "1f337", "sun": "2600", "cloud": "2601",
    "rainbow": "1f308", "snowflake": "2744", "fire": "1f525", "umbrella": "2614", "car": "1f697", "bus": "1f68c",
    "truck": "1f69a", "train": "1f682", "bicycle": "1f6b2", "plane": "2708", "rocket": "1f680", "boat": "26f5",
    "house": "1f3e0", "tent": "26fa", "key": "1f511", "lock": "1f512", "hammer": "1f528", "scissors": "2702",
    "pencil": "270f", "book": "1f4d6", "clock": "23f0", "phone": "1f4f1", "camera": "1f4f7", "bulb": "1f4a1",
    "bell": "1f514", "gift": "1f381", "balloon": "1f388", "ball": "26bd", "guitar": "1f3b8", "drum": "1f941",
    "trumpet": "1f3ba", "crown": "1f451", "hat": "1f3a9", "shirt": "1f455", "shoe": "1f45f", "glasses": "1f453",
    "bag": "1f392", "robot": "1f916", "ghost": "1f47b", "snowman": "26c4", "pumpkin": "1f383", "skull": "1f480",
}
EMOJI_NAMES: tuple[str, ...] = tuple(EMOJI)
PLURAL_AS_IS = {"grapes", "cherries", "fries", "scissors", "glasses"}

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PLACES: tuple[str, ...] = ("top left", "top", "top right", "left", "centre", "right",
                           "bottom left", "bottom", "bottom right")
ORDINALS = ("first", "second")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def plural(name: str) -> str:
    """The plural of a shape's or drawing's name."""
    irregular = {"mouse": "mice", "bus": "buses", "box": "boxes", "cross": "crosses", "fox": "foxes", "fish": "fish",
                 "strawberry": "strawberries", "butterfly": "butterflies", "octopus": "octopuses",
                 "snowman": "snowmen", "sunflower": "sunflowers", "house": "houses"}
    if name in PLURAL_AS_IS:
        return name
    return irregular.get(name, name + "s")


def article(name: str) -> str:
    """The name with its indefinite article."""
    if name in PLURAL_AS_IS:
        return name
    return f"an {name}" if name[0] in "aeio" or name == "umbrella" else f"a {name}"
