"""The shop's vocabulary: departments, categories, brands, colours, materials, styles, new words.

Departments are the ten labels of Fashion-MNIST. Brands and new words are pronounceable made-up
words of the world's seed. It knows no item.
"""

from __future__ import annotations

from dataclasses import dataclass

from data.world.draws import stream

__all__ = [
    "BRANDS", "BRAND_GROUPS", "CATEGORIES", "COLOURS", "DEPARTMENTS", "GENDERS", "MATERIALS",
    "MAX_NEW_WORDS", "PATTERNS", "SEASONS", "STYLES", "Category", "Vocabulary", "vocabulary",
]  # fmt: skip


@dataclass(frozen=True)
class Category:
    """A category: its name and noun, its department, other words shoppers use, its usual price."""

    name: str
    noun: str
    department: int
    synonyms: tuple[str, ...]
    price: float


# name in the shop's title case, in the order of Fashion-MNIST's labels; the word is what a vague query says
DEPARTMENTS = (
    ("T-shirt/top", "top"),
    ("Trouser", "bottoms"),
    ("Pullover", "knitwear"),
    ("Dress", "gown"),
    ("Coat", "outerwear"),
    ("Sandal", "summer shoes"),
    ("Shirt", "button up"),
    ("Sneaker", "trainers"),
    ("Bag", "luggage"),
    ("Ankle boot", "boots"),
)

# The last of each department comes first to be closed when categories open later.
CATEGORIES = (
    Category("T-shirts", "t-shirt", 0, ("tee", "jersey top"), 18),
    Category("Polo shirts", "polo", 0, ("golf top", "pique"), 29),
    Category("Tank tops", "tank", 0, ("singlet", "vest top"), 15),
    Category("Jeans", "jeans", 1, ("denims", "dungarees"), 55),
    Category("Chinos", "chinos", 1, ("khakis", "slacks"), 45),
    Category("Leggings", "leggings", 1, ("tights", "jeggings"), 25),
    Category("Sweaters", "sweater", 2, ("jumper", "woolly"), 48),
    Category("Hoodies", "hoodie", 2, ("hooded top", "sweatshirt"), 42),
    Category("Turtlenecks", "turtleneck", 2, ("roll neck", "polo neck"), 52),
    Category("Day dresses", "dress", 3, ("frock", "sundress"), 60),
    Category("Evening dresses", "evening dress", 3, ("ballgown", "cocktail"), 140),
    Category("Jumpsuits", "jumpsuit", 3, ("playsuit", "romper"), 70),
    Category("Overcoats", "overcoat", 4, ("topcoat", "greatcoat"), 180),
    Category("Parkas", "parka", 4, ("anorak", "puffer"), 150),
    Category("Trench coats", "trench", 4, ("raincoat", "mac"), 130),
    Category("Sandals", "sandals", 5, ("strappies", "gladiators"), 40),
    Category("Flip-flops", "flip flops", 5, ("thongs", "beach slides"), 14),
    Category("Wedges", "wedges", 5, ("espadrilles", "platforms"), 58),
    Category("Blouses", "blouse", 6, ("tunic", "peasant top"), 38),
    Category("Formal shirts", "shirt", 6, ("dress shirt", "oxford"), 44),
    Category("Flannel shirts", "flannel", 6, ("lumberjack", "overshirt"), 36),
    Category("Running shoes", "running shoes", 7, ("runners", "joggers"), 90),
    Category("Canvas sneakers", "sneakers", 7, ("plimsolls", "pumps"), 50),
    Category("High-tops", "high tops", 7, ("basketball shoes", "hi tops"), 85),
    Category("Handbags", "handbag", 8, ("purse", "clutch"), 95),
    Category("Backpacks", "backpack", 8, ("rucksack", "daypack"), 65),
    Category("Totes", "tote", 8, ("shopper", "carryall"), 55),
    Category("Chelsea boots", "chelsea boots", 9, ("dealer boots", "pull ons"), 110),
    Category("Hiking boots", "hiking boots", 9, ("walking boots", "trekkers"), 120),
    Category("Heeled booties", "booties", 9, ("shooties", "heeled boots"), 100),
)

COLOURS = (
    "black", "white", "navy", "grey", "red", "blue", "beige", "green",
    "pink", "brown", "burgundy", "yellow", "purple", "orange", "teal", "gold",
)  # fmt: skip
MATERIALS = (
    "cotton", "leather", "polyester", "wool", "linen", "suede", "canvas",
    "silk", "viscose", "cashmere", "nylon", "velvet", "corduroy", "hemp",
)  # fmt: skip
STYLES = (
    "slim", "casual", "classic", "oversized", "vintage", "sporty", "elegant", "cropped",
    "printed", "striped", "floral", "minimal", "relaxed", "quilted", "ribbed", "waterproof",
    "padded", "embroidered", "pleated", "distressed", "preppy", "boho", "military", "retro",
)  # fmt: skip
PATTERNS = ("plain", "striped", "checked", "dotted", "floral", "animal", "melange", "graphic")
SEASONS = ("spring", "summer", "autumn", "winter")
GENDERS = ("women", "men", "unisex")
BRANDS = 60
BRAND_GROUPS = 6
MAX_NEW_WORDS = 400

_ONSETS = (
    "b",
    "br",
    "c",
    "d",
    "dr",
    "f",
    "g",
    "gl",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "v",
    "z",
)
_VOWELS = ("a", "e", "i", "o", "u", "ai", "eo", "ia")
_CODAS = ("n", "l", "r", "m", "x", "nd", "lt", "k", "th", "v")


@dataclass(frozen=True)
class Vocabulary:
    """Made-up words of a seed: brands [60], new words [400] (styles at even places, synonyms at odd)."""

    brands: tuple[str, ...]
    new_words: tuple[str, ...]

    def style(self, code: int) -> str:
        """The word of a style code: the first 24 are known from the start, the others are new words."""
        return STYLES[code] if code < len(STYLES) else self.new_words[2 * (code - len(STYLES))]

    def new_synonym(self, k: int) -> tuple[int, str]:
        """The category and word of the k-th new synonym."""
        return (k * 7) % len(CATEGORIES), self.new_words[2 * k + 1]


def vocabulary(seed: int) -> Vocabulary:
    """The made-up words of a world; all differ and none ends in s."""
    rng = stream(seed, "words")
    words: dict[str, None] = {}
    while len(words) < BRANDS + MAX_NEW_WORDS:
        parts = [
            choices[int(rng.integers(len(choices)))]
            for choices in (_ONSETS, _VOWELS, _ONSETS, _VOWELS, _CODAS)
        ]
        words["".join(parts)] = None
    made = tuple(words)
    return Vocabulary(made[:BRANDS], made[BRANDS:])
