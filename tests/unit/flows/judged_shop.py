"""An invented furniture shop in the WANDS layout, judged by what its things are and not by any score.

Each product has a kind, a colour, a material, a size, a brand and a collection. A title names some of
them, the features others, in several spellings; descriptions mention other kinds that would go well.
A query asks for a kind and properties. Exact: all hold; Partial: the kind holds, or it is a sibling kind
with the properties; else Irrelevant.
"""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

# kind → (class, path, words of it that titles use)
KINDS = {
    "coffee table": (
        "Coffee & Cocktail Tables",
        "Furniture / Living Room / Tables",
        ("Coffee Table", "Cocktail Table"),
    ),
    "end table": ("End Tables", "Furniture / Living Room / Tables", ("End Table", "Side Table")),
    "bar stool": ("Bar Stools", "Furniture / Kitchen / Seating", ("Bar Stool", "Barstool", "Counter Stool")),
    "dining chair": ("Dining Chairs", "Furniture / Kitchen / Seating", ("Dining Chair", "Side Chair")),
    "accent chair": ("Accent Chairs", "Furniture / Living Room / Seating", ("Armchair", "Accent Chair")),
    "area rug": ("Area Rugs", "Rugs / Area Rugs", ("Area Rug", "Rug")),
    "table lamp": ("Table Lamps", "Lighting / Lamps", ("Table Lamp", "Lamp")),
    "nightstand": ("Nightstands", "Furniture / Bedroom", ("Nightstand", "Night Stand", "Bedside Table")),
    "bookcase": ("Bookcases", "Furniture / Office", ("Bookcase", "Bookshelf")),
    "platform bed": ("Beds", "Furniture / Bedroom", ("Platform Bed", "Bed")),
    "curtain panel": ("Curtains & Drapes", "Decor / Window", ("Curtain Panel", "Curtains", "Drape")),
    "wall mirror": ("Wall & Accent Mirrors", "Decor / Mirrors", ("Wall Mirror", "Mirror")),
}
SIBLINGS = [{"coffee table", "end table", "nightstand"}, {"bar stool", "dining chair", "accent chair"}]
COLOURS = ("Black", "White", "Navy Blue", "Walnut", "Gray", "Turquoise", "Gold", "Ivory")
MATERIALS = ("Velvet", "Solid Wood", "Metal", "Leather", "Glass", "Wicker", "Marble", "Cotton")
BRANDS = ("Kessler", "Brightmoor", "Ostrander", "Vantagio", "Millhaven", "Corvane")
COLLECTIONS = tuple(
    a + b for a in ("Al", "Bren", "Cal", "Dor", "El", "Far") for b in ("wick", "dale", "ington", "mere")
)
SIZES = (18, 24, 30, 36, 48)
RUG_SIZES = ((5, 7), (8, 10), (2, 3), (9, 12))


@dataclass(frozen=True)
class Product:
    """What a thing is, whatever its texts say of it."""

    key: int
    kind: str
    colour: str
    material: str
    size: str
    brand: str
    collection: str
    model: str


@dataclass(frozen=True)
class Query:
    """What is asked for: a kind ("" any) and properties by name; `text` as a shopper types it."""

    text: str
    kind: str
    wanted: tuple[tuple[str, str], ...]

    def grade(self, product: Product) -> str:
        """The judgement, by what the product is."""
        holds = all(getattr(product, name) == value for name, value in self.wanted)
        if self.kind in ("", product.kind) and holds:
            return "Exact"
        sibling = any({self.kind, product.kind} <= group for group in SIBLINGS)
        if (self.kind == product.kind and len(self.wanted) > 0) or (sibling and holds):
            return "Partial"
        return "Irrelevant"


def products(n: int, *, seed: int) -> list[Product]:
    """n products."""
    rng = random.Random(seed)
    made = []
    for key in range(1, n + 1):
        kind = rng.choice(list(KINDS))
        size = "x".join(map(str, rng.choice(RUG_SIZES))) if kind == "area rug" else str(rng.choice(SIZES))
        made.append(
            Product(
                key, kind, rng.choice(COLOURS), rng.choice(MATERIALS), size, rng.choice(BRANDS),
                rng.choice(COLLECTIONS), f"{rng.choice('KVTS')}{rng.choice('DRX')}-{rng.randint(100, 999)}",
            )
        )  # fmt: skip
    return made


def queries(made: list[Product], n: int, *, seed: int) -> list[Query]:
    """n queries for things that some product is."""
    rng = random.Random(seed)
    asked = []
    for _ in range(n):
        p = rng.choice(made)
        word = rng.choice((p.kind, *KINDS[p.kind][2])).lower()
        if word in ("lamp", "rug", "mirror", "bed", "side chair", "side table"):
            word = p.kind
        asked.append(rng.choice(_SHAPES)(rng, p, word))
    return list(dict.fromkeys(asked))


def _coloured(rng: random.Random, p: Product, word: str) -> Query:
    return Query(f"{p.colour.lower()} {word}", p.kind, (("colour", p.colour),))


def _made_of(rng: random.Random, p: Product, word: str) -> Query:
    text = rng.choice((f"{p.material.lower()} {word}", f"{word} in {p.material.lower()}"))
    return Query(text, p.kind, (("material", p.material),))


def _both(rng: random.Random, p: Product, word: str) -> Query:
    wanted = (("colour", p.colour), ("material", p.material))
    return Query(f"{p.colour.lower()} {p.material.lower()} {word}s", p.kind, wanted)


def _sized(rng: random.Random, p: Product, word: str) -> Query:
    if p.kind == "area rug":
        a, b = p.size.split("x")
        text = rng.choice((f"{a}x{b} {word}", f"{a} x {b} ft {word}", f"{word} {a}' x {b}'"))
    else:
        text = rng.choice((f"{p.size} inch {word}", f'{p.size}" {word}', f"{word} {p.size}in"))
    return Query(text, p.kind, (("size", p.size),))


def _named(rng: random.Random, p: Product, word: str) -> Query:
    return Query(f"{p.collection.lower()} {word}", p.kind, (("collection", p.collection),))


def _branded(rng: random.Random, p: Product, word: str) -> Query:
    return Query(f"{p.brand.lower()} {word}", p.kind, (("brand", p.brand),))


def _model(rng: random.Random, p: Product, word: str) -> Query:
    text = rng.choice((p.model.lower(), p.model.replace("-", ""), p.model.replace("-", " ")))
    return Query(text, "", (("model", p.model),))


def _plain(rng: random.Random, p: Product, word: str) -> Query:
    return Query(word, p.kind, ())


_SHAPES = (_coloured, _made_of, _both, _sized, _named, _branded, _model, _plain)


def write_shop(folder: Path, *, n: int = 600, asked: int = 80, pool: int = 60, seed: int = 1) -> Path:
    """Write the three files. Of each query all Exact and Partial products are judged, and `pool` others."""
    rng = random.Random(seed)
    made = products(n, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "product.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(
            ("product_id", "product_name", "product_class", "category hierarchy", "product_description",
             "product_features", "rating_count", "average_rating", "review_count")
        )  # fmt: skip
        writer.writerows(_row(rng, p) for p in made)
    asks = queries(made, asked, seed=seed + 1)
    with (folder / "query.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(("query_id", "query", "query_class"))
        writer.writerows((i, q.text, KINDS[q.kind][0] if q.kind else "") for i, q in enumerate(asks))
    with (folder / "label.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(("id", "query_id", "product_id", "label"))
        number = 0
        for i, query in enumerate(asks):
            graded = {p.key: query.grade(p) for p in made}
            others = [k for k, g in graded.items() if g == "Irrelevant"]
            shown = {k for k, g in graded.items() if g != "Irrelevant"} | set(
                rng.sample(others, min(pool, len(others)))
            )
            for key in sorted(shown):
                writer.writerow((number, i, key, graded[key]))
                number += 1
    return folder


def _row(rng: random.Random, p: Product) -> tuple[object, ...]:
    """One product's texts: what the title leaves out, the features say, mostly."""
    words = rng.choice(KINDS[p.kind][2])
    in_title = {name: rng.random() < 0.45 for name in ("colour", "material", "size", "brand", "model")}
    parts = [p.collection]
    if in_title["brand"]:
        parts.insert(0, p.brand)
    if in_title["colour"]:
        parts.append(p.colour)
    if in_title["size"]:
        parts.append(_size(rng, p))
    if in_title["material"]:
        parts.append(p.material)
    parts.append(words)
    if in_title["model"]:
        parts.append(p.model)
    features = []
    if not in_title["colour"] or rng.random() < 0.5:
        features.append(f"color : {p.colour.lower()}")
    if not in_title["material"] or rng.random() < 0.5:
        features.append(f"material : {p.material.lower()}")
    if not in_title["size"] or rng.random() < 0.5:
        features.append(f"overall size : {_size(rng, p)}")
    if not in_title["model"]:
        features.append(f"model number : {rng.choice((p.model, p.model.replace('-', '').lower()))}")
    if not in_title["brand"]:
        features.append(f"brand : {p.brand}")
    features += rng.sample(
        ("assembly required : yes", "warranty length : 1 year", "outdoor use : no", "number of pieces : 1",
         "country of origin : vietnam", "swivel : no", "storage included : no"), 3
    )  # fmt: skip
    rng.shuffle(features)
    others = rng.sample([k for k in KINDS if k != p.kind], 3)
    colour, material = rng.choice(COLOURS).lower(), rng.choice(MATERIALS).lower()
    description = (
        f"Bring style home with this piece from the {p.collection} collection. Place it beside a {others[0]} "
        f"or pair it with any {colour} {others[1]}. It also suits a {material} {others[2]}, and rooms of "
        "every size. " + "Built to last for years. " * rng.randint(0, 4)
    )
    classy, path, _ = KINDS[p.kind]
    rated = rng.random() < 0.5
    return (
        p.key, " ".join(parts), classy, path, description, "|".join(features),
        f"{rng.randint(1, 900)}.0" if rated else "", "4.5" if rated else "", "12.0" if rated else "",
    )  # fmt: skip


def _size(rng: random.Random, p: Product) -> str:
    if p.kind == "area rug":
        a, b = p.size.split("x")
        return rng.choice((f"{a}' x {b}'", f"{a} ft. x {b} ft.", f"{a}x{b}"))
    return rng.choice((f"{p.size}''", f"{p.size} in.", f"{p.size}-inch"))
