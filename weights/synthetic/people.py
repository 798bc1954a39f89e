"""The cast of a story: who they are, their names and pronouns, and the words that go with them."""

from __future__ import annotations

from minigen.weights.synthetic.grammar import ROLES, Draw, Scope, pick, with_article
from minigen.weights.synthetic.lexicon import animals, classes, read_blocks, split_items

HE = ("he", "him", "his", "himself")
SHE = ("she", "her", "her", "herself")
MEN = ("dad", "daddy", "grandpa", "uncle", "father", "papa")
_BLOCKS = read_blocks("people.txt")


def _weighted(name: str) -> tuple[str, ...]:
    """The items of a block, each as often as it counts."""
    items: list[str] = []
    for entry in split_items(_BLOCKS[name]):
        item, _, times = entry.partition("*")
        items += [item] * int(times or 1)
    return tuple(items)


def _pairs(name: str) -> tuple[tuple[str, str], ...]:
    """The `key = value` items of a block."""
    pairs = []
    for entry in split_items(_BLOCKS[name]):
        key, _, value = entry.partition(" = ")
        pairs.append((key, value))
    return tuple(pairs)


def _species_names() -> dict[str, tuple[str, ...]]:
    """Species -> the names that suit it."""
    names = {}
    for line in _BLOCKS["species names"]:
        species, _, rest = line.partition(" = ")
        names[species] = tuple(split_items([rest]))
    return names


BOYS = _weighted("boys")
GIRLS = _weighted("girls")
MALE_PETS = _weighted("male pets")
FEMALE_PETS = _weighted("female pets")
SPECIES_NAMES = _species_names()
SPECIES = _weighted("species")
SEA_SPECIES = _weighted("sea species")
COATS = _weighted("coats")
PARENTS = _weighted("parents")
ANIMAL_PARENTS = _weighted("animal parents")
STRANGERS = _pairs("strangers")
SAGES = _pairs("sages")


def pronouns(male: bool) -> tuple[str, ...]:
    return HE if male else SHE


def child_name(draw: Draw) -> str:
    """The name of a boy or a girl, either equally likely."""
    if draw() < 0.5:
        return pick(draw, BOYS)
    return pick(draw, GIRLS)


def pet_name(draw: Draw) -> str:
    """The name of a pet, male and female equally likely."""
    if draw() < 0.5:
        return pick(draw, MALE_PETS)
    return pick(draw, FEMALE_PETS)


def cast_role(scope: Scope, role: str, name: str, male: bool, kind: str) -> None:
    """Write the words of a role, but for how others call it and how it cried out."""
    scope.update(zip(ROLES[role], (name, *pronouns(male), kind), strict=False))


def child(draw: Draw, scope: Scope, role: str, taken: set[str]) -> None:
    """Cast a child whose name is not yet `taken`."""
    boy = draw() < 0.52
    kind, names = ("boy", BOYS) if boy else ("girl", GIRLS)
    name = pick(draw, names)
    while name in taken:
        name = pick(draw, names)
    taken.add(name)
    cast_role(scope, role, name, boy, kind)
    introduction = f"{kind} named {name}"
    if draw() < 0.6:
        introduction = "little " + introduction
    scope[role + "intro"] = introduction


def animal(
    draw: Draw, scope: Scope, role: str, taken: set[str], species: str = "", sea: bool = False
) -> None:
    """Cast an animal, with a name or as "the cat".

    Its species is `species` if given, else one that is not yet `taken`.
    """
    options = SEA_SPECIES if sea else SPECIES
    species = species or pick(draw, options)
    while species in taken:
        species = pick(draw, options)
    male = draw() < 0.6 and species not in ("cow", "hen")
    adjective = _animal_adjective(draw)
    name = ""
    if draw() < 0.62:
        name = _animal_name(draw, species, male)
    if name in taken:
        name = ""
    male = name in BOYS or (male and name not in GIRLS)
    taken.update((species, name or species))
    introduction = f"{adjective} {species}"
    if name:
        introduction += f" named {name}"
    cast_role(scope, role, name or f"the {species}", male, species)
    scope[role + "intro"] = introduction
    for key in ("moved", "move", "cried", "home", "food", "young"):
        scope[role + key] = animals()[species][key]


def _animal_adjective(draw: Draw) -> str:
    if draw() < 0.6:
        return pick(draw, classes()["sized"])
    if draw() < 0.5:
        return pick(draw, COATS)
    return pick(draw, classes()["good"])


def _animal_name(draw: Draw, species: str, male: bool) -> str:
    """A name that suits the species, or one for any pet."""
    if draw() < 0.6 and species in SPECIES_NAMES:
        return pick(draw, SPECIES_NAMES[species])
    if male:
        return pick(draw, MALE_PETS)
    return pick(draw, FEMALE_PETS)


def parent(draw: Draw, scope: Scope, animal_hero: bool) -> None:
    """Cast the hero's parent or grandparent."""
    kind = pick(draw, ANIMAL_PARENTS if animal_hero else PARENTS)
    cast_role(scope, "g", f"{scope['his']} {kind}", kind in MEN, kind)
    scope["call"] = kind.capitalize()


def stranger(draw: Draw, scope: Scope, taken: set[str], sage: bool) -> None:
    """Cast somebody whom the hero meets; a wise one if `sage`."""
    options = SAGES if sage else STRANGERS
    while True:
        description, pronoun = options[int(draw() * len(options))]
        noun = description.split(" in ")[0]
        person = noun.split()[-1]
        if person not in taken:
            break
    taken.add(person)
    cast_role(scope, "w", f"the {noun}", pronoun == "he", noun)
    scope["wx"] = with_article(description)
