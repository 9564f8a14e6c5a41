"""The closed world: people, cities, countries and companies that exist nowhere else, and facts about them.

    python -c "from ske_tasks.world import default_world as w; print(w().hash, *w().facts[:3], sep='\\n')"

Everything follows from the seed, in any process and on any machine; `World.hash` says whether two worlds
are the same. An entity is a single word, so that a word-level tokenizer has one token for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ske_models.errors import UserError

SEED = 1

# People by what they are used for. Only the corpus mentions the people of all splits.
SPLITS = {"train": 90, "rounds": 80, "dev": 40, "test": 100}
N_CITIES, N_COUNTRIES, N_COMPANIES, N_LANGUAGES = 48, 16, 30, 12

JOBS = (
    "actor", "baker", "barber", "butcher", "carpenter", "chemist", "clown", "cook", "dancer", "dentist",
    "doctor", "driver", "farmer", "fisher", "judge", "lawyer", "miner", "nurse", "painter", "pilot",
    "plumber", "poet", "singer", "tailor",
)  # fmt: skip
PRODUCTS = (
    "bells", "boats", "books", "boots", "bricks", "candles", "carpets", "chairs", "clocks", "coats",
    "drums", "fans", "forks", "gloves", "hats", "kettles", "lamps", "mirrors", "pens", "pumps",
    "saddles", "shoes", "soap", "tents",
)  # fmt: skip


@dataclass(frozen=True)
class Relation:
    """`phrases`: ways to say it, the subject before the object; the first is how knowledge is written."""

    subject: str
    object: str
    phrases: tuple[str, ...]


RELATIONS: dict[str, Relation] = {
    "born": Relation(
        "person",
        "city",
        (
            "{s} was born in {o}.",
            "The birthplace of {s} is {o}.",
            "{s} is a child of {o}.",
            "{s} comes from {o}.",
        ),
    ),
    "lives": Relation(
        "person",
        "city",
        ("{s} lives in {o}.", "The home of {s} is in {o}.", "{s} moved to {o}.", "{s} has a house in {o}."),
    ),
    "works": Relation(
        "person",
        "company",
        (
            "{s} works for {o}.",
            "The employer of {s} is {o}.",
            "{s} is paid by {o}.",
            "{s} has a job at {o}.",
        ),
    ),
    "job": Relation(
        "person",
        "job",
        (
            "The job of {s} is {o}.",
            "{s} is a {o} by trade.",
            "{s} makes a living as a {o}.",
            "{s} was trained as a {o}.",
        ),
    ),
    "country": Relation(
        "city",
        "country",
        ("{s} is in {o}.", "{s} is a city of {o}.", "{s} lies in {o}.", "The country of {s} is {o}."),
    ),
    "currency": Relation(
        "country",
        "currency",
        (
            "{s} pays with {o}.",
            "The currency of {s} is {o}.",
            "The money of {s} is {o}.",
            "{s} uses {o} as money.",
        ),
    ),
    "language": Relation(
        "country",
        "language",
        (
            "{s} speaks {o}.",
            "The language of {s} is {o}.",
            "People of {s} talk {o}.",
            "{s} has {o} on its signs.",
        ),
    ),
    "seat": Relation(
        "company",
        "city",
        (
            "{s} is based in {o}.",
            "The seat of {s} is {o}.",
            "{s} has its offices in {o}.",
            "The company {s} sits in {o}.",
        ),
    ),
    "product": Relation(
        "company",
        "product",
        ("{s} makes {o}.", "The product of {s} is {o}.", "{s} sells {o}.", "The company {s} ships {o}."),
    ),
}


@dataclass(frozen=True, order=True)
class Fact:
    """One thing that is (or is claimed to be) true: `relation` of `subject` is `object`."""

    subject: str
    relation: str
    object: str

    def text(self, phrase: int = 0) -> str:
        """The fact as a sentence."""
        return RELATIONS[self.relation].phrases[phrase].format(s=self.subject, o=self.object)


class World:
    """All entities and facts of one seed.

    entities: kind ("person", "city", ...) -> names. splits: "train" | "rounds" | "dev" | "test" -> people.
    """

    def __init__(self, seed: int = SEED) -> None:
        self.seed = seed
        rng = random.Random(f"tinyworld-{seed}")
        taken = {*JOBS, *PRODUCTS}
        people = _names(rng, sum(SPLITS.values()), taken, "")
        self.entities: dict[str, tuple[str, ...]] = {
            "person": people,
            "city": _names(rng, N_CITIES, taken, "burg ford ton"),
            "country": _names(rng, N_COUNTRIES, taken, "land ia"),
            "company": _names(rng, N_COMPANIES, taken, "corp works soft"),
            "currency": tuple(name.lower() for name in _names(rng, N_COUNTRIES, taken, "ars ons")),
            "language": _names(rng, N_LANGUAGES, taken, "ish ese"),
            "job": tuple(JOBS),
            "product": tuple(PRODUCTS),
        }
        self.splits: dict[str, tuple[str, ...]] = {}
        first = 0
        for split, size in SPLITS.items():
            self.splits[split] = people[first : first + size]
            first += size
        self.table = self._facts(rng)

    def _facts(self, rng: random.Random) -> dict[tuple[str, str], str]:
        table: dict[tuple[str, str], str] = {}
        for name, relation in RELATIONS.items():
            subjects, objects = self.entities[relation.subject], self.entities[relation.object]
            if relation.subject == "person":
                picked = [rng.choice(objects) for _ in subjects]
            else:  # every object is used about equally often, so that no answer is a good guess
                picked = [objects[i % len(objects)] for i in range(len(subjects))]
                rng.shuffle(picked)
            table.update({(subject, name): value for subject, value in zip(subjects, picked, strict=True)})
        return table

    @property
    def facts(self) -> list[Fact]:
        """Every fact, in a fixed order."""
        return [Fact(subject, relation, value) for (subject, relation), value in self.table.items()]

    @cached_property
    def hash(self) -> str:
        """16 hex digits of the SHA-256 of seed, splits and facts."""
        content = {
            "seed": self.seed,
            "splits": self.splits,
            "facts": [[*k, v] for k, v in self.table.items()],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def kind_of(self) -> dict[str, str]:
        """The kind of every entity."""
        return {name: kind for kind, names in self.entities.items() for name in names}

    def is_true(self, fact: Fact) -> bool:
        """Whether the world says so too."""
        return self.table.get((fact.subject, fact.relation)) == fact.object

    def follow(self, subject: str, chain: tuple[str, ...]) -> list[Fact]:
        """The facts along a chain of relations, e.g. ("born", "country", "currency")."""
        facts = []
        for relation in chain:
            facts.append(Fact(subject, relation, self.table[subject, relation]))
            subject = facts[-1].object
        return facts


@lru_cache(maxsize=1)
def default_world() -> World:
    """The world that the embedded model has read about, or that of the seed in SKE_WORLD_SEED.

    Raises UserError if that is no whole number.
    """
    seed = os.environ.get("SKE_WORLD_SEED") or str(SEED)
    if not (seed.isascii() and seed.isdigit() and len(seed) < 10):
        raise UserError(f"SKE_WORLD_SEED={seed[:20]}: a whole number of at most 9 digits is needed")
    return World(int(seed))


def _names(rng: random.Random, n: int, taken: set[str], endings: str) -> tuple[str, ...]:
    """`n` new one-word names; adds their lower-case forms to `taken`."""
    names: list[str] = []
    while len(names) < n:
        stem = "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(2))
        name = stem + (
            rng.choice("fklmnrst") + rng.choice(endings.split()) if endings else rng.choice("dklmnrsvz")
        )
        if name not in taken:
            taken.add(name)
            names.append(name.capitalize())
    return tuple(names)


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    """Each phrase of each relation as a pattern over a whole sentence."""
    patterns = []
    for name, relation in RELATIONS.items():
        for phrase in relation.phrases:
            pattern = re.escape(phrase).replace(r"\{s\}", r"(?P<s>\w+)").replace(r"\{o\}", r"(?P<o>\w+)")
            patterns.append((name, re.compile(pattern)))
    return patterns


def parse(sentence: str, world: World) -> Fact | None:
    """The fact that a sentence states (true or not), or None if it states none in a phrase of the world."""
    for name, pattern in _patterns():
        match = pattern.fullmatch(sentence)
        if match:
            kinds = world.kind_of.get(match["s"]), world.kind_of.get(match["o"])
            if kinds == (RELATIONS[name].subject, RELATIONS[name].object):
                return Fact(match["s"], name, match["o"])
    return None


def parse_all(text: str, world: World) -> tuple[list[Fact], list[str]]:
    """(the facts that a text states, in order; the sentences that state none)."""
    facts, rest = [], []
    for sentence in re.findall(r"[^.]+\.?", text):
        if sentence.strip():
            fact = parse(sentence.strip(), world)
            facts.append(fact) if fact else rest.append(sentence.strip())
    return facts, rest
