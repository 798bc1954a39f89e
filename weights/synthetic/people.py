"""The cast of a story: who they are, how they are named, their pronouns, and what goes with them."""

from __future__ import annotations

from minigen.weights.synthetic.grammar import ROLES, Draw, Scope, pick, with_article
from minigen.weights.synthetic.lexicon import animals, classes

HE = ("he", "him", "his", "himself")
SHE = ("she", "her", "her", "herself")


def _weighted(text: str) -> tuple[str, ...]:
    return tuple(name for each in text.split() for name in [each.partition("*")[0]] * int(each.partition("*")[2] or 1))


BOYS = _weighted(
    "Tim*85 Tom*42 Ben*24 Max*12 Sam*22 Bob*9 Timmy*6 Jack*6 Joe*3 Billy*3 John*3 Tommy*3 Leo*2 Benny*2 Andy*2 "
    "Bobby*2 "
    "Jimmy*2 Jake*2 Jerry Fred Peter*2 Danny Pete Jim Toby Alex Bill James Harry Frank Tony Finn Charlie Mike Johnny "
    "Mark David Oliver Noah Henry Luke Roy Nick Dan Ted Josh Will Adam Jay Kevin"
)
GIRLS = _weighted(
    "Lily*75 Sue*34 Mia*22 Lucy*17 Anna*15 Amy*12 Sara*15 Sally*4 Jane*3 Sarah*3 Molly*2 Lila*2 Mimi Emma*2 Jen*2 "
    "Jill*2 "
    "Bella*2 Ella*2 Mary*2 Jenny*2 Elly*2 Lisa*2 Ann*2 Emily*2 Millie Betty*2 Penny Poppy Claire Susie Tilly Tina "
    "Zara "
    "Mandy Grace Kate Liz Alice Julia Annie Rosie Sophie Daisy*3 Luna Polly Ruby Zoe Eva Nina Jess Maya Lola Nora "
    "Becky"
)
HE_PETS = _weighted(
    "Max*26 Spot*18 Tim*6 Buddy*4 Bobo*3 Sam*3 Tom*2 Benny*2 Rex*2 Leo*2 Fred Toby Ollie Pip Bob Charlie Tiny Joe"
)
SHE_PETS = _weighted(
    "Kitty*3 Fluffy*6 Lily*4 Daisy*5 Mimi*3 Bella*3 Lulu*2 Luna*2 Coco*2 Momo*2 Lucy*3 Molly*2 Poppy*2 Penny Tilly "
    "Lily*2"
)
SPECIES_NAMES = {
    "dog": "Spot Max Rex Buddy Doggy", "cat": "Kitty Fluffy Whiskers Mittens Tom",
    "bird": "Chirpy Birdy Tweet Blue Sky Polly",
    "fish": "Fin Finny Bubbles Goldie Splash", "bunny": "Bunny Hop Fluffy Thumper Cotton",
    "rabbit": "Hoppy Remy Fluffy Ruby",
    "duck": "Ducky Quacky Daffy Puddle", "frog": "Froggy Fred Hoppy Freddy", "bee": "Buzz Bumble Honey Buzzy",
    "mouse": "Mimi Squeak Milo Jerry Pip", "bear": "Benny Bruno Teddy Honey", "lion": "Leo Larry Simba Roary",
    "turtle": "Tilly Shelly Tommy Slow", "elephant": "Elly Ellie Ella Trunk", "monkey": "Momo Milo Coco Bobo",
    "squirrel": "Nutty Sammy Chip Remy", "pig": "Pinky Piggy Penny Wilbur", "horse": "Star Lightning Brownie Silver",
    "owl": "Oliver Hoot Ollie Olivia", "fox": "Foxy Red Rusty Felix", "crab": "Clawy Snappy Sandy Pinchy",
}  # fmt: skip
SPECIES = _weighted(
    "dog*16 cat*16 bird*15 bunny*4 rabbit*4 bear*6 fox*3 mouse*4 frog*4 duck*4 squirrel*3 owl lion*3 elephant*3 "
    "monkey*3 pig*2 cow*2 horse*2 sheep goat hen turtle*3 bee*2 butterfly*2 ant*2 wolf tiger deer penguin "
    "snail hedgehog "
    "kitten*2 puppy*2 giraffe zebra kangaroo crab donkey parrot goose dragon"
)
SEA = _weighted("fish*6 whale dolphin octopus crab*2 turtle*2")
COATS = (
    "brown",
    "white",
    "black",
    "gray",
    "orange",
    "red",
    "blue",
    "yellow",
    "fluffy",
    "furry",
    "fat",
    "soft",
    "spotted",
)
PARENTS = (("mom",) * 14) + (("dad",) * 4) + ("mommy",) * 2 + ("daddy", "grandma", "mum")
STRANGERS = (
    ("old man", "he"), ("kind man", "he"), ("nice lady", "she"), ("old lady", "she"), ("farmer", "he"), ("kind woman",
    "she"),
    ("tall man", "he"), ("police officer", "he"), ("friendly neighbor", "she"), ("old woman", "she"), ("big boy",
    "he"),
    ("little girl", "she"), ("fireman", "he"), ("wise man", "he"), ("gardener", "he"), ("doctor", "she"), ("baker",
    "he"),
    ("mailman", "he"), ("teacher", "she"), ("fisherman", "he"), ("nurse", "she"), ("lady in a red coat", "she"),
)  # fmt: skip
SAGES = (
    ("wise old owl", "he"), ("old turtle", "he"), ("wise bear", "she"), ("big gray elephant", "she"), ("clever fox",
    "he"),
    ("kind fairy", "she"), ("friendly giant", "he"), ("old owl", "she"), ("tiny mouse", "she"), ("old wizard", "he"),
    ("little bird", "she"), ("friendly squirrel", "he"), ("gentle deer", "she"), ("big frog", "he"), ("small bee",
    "she"),
)  # fmt: skip


def cast_role(scope: Scope, role: str, name: str, pronouns: tuple[str, ...], kind: str) -> None:
    scope.update(zip(ROLES[role], (name, *pronouns, kind), strict=False))


def child(draw: Draw, scope: Scope, role: str, taken: set[str], sex: str = "") -> str:
    """A child in `role`; the sex chosen."""
    sex = sex or ("boy" if draw() < 0.52 else "girl")
    name = pick(draw, BOYS if sex == "boy" else GIRLS)
    while name in taken:
        name = pick(draw, BOYS if sex == "boy" else GIRLS)
    taken.add(name)
    cast_role(scope, role, name, HE if sex == "boy" else SHE, sex)
    scope[role + "intro"] = f"little {sex} named {name}" if draw() < 0.6 else f"{sex} named {name}"
    return sex


def animal(draw: Draw, scope: Scope, role: str, taken: set[str], species: str = "", sea: bool = False) -> None:
    """An animal in `role`, with a name or as "the cat"."""
    species = species or pick(draw, SEA if sea else SPECIES)
    while species in taken:
        species = pick(draw, SEA if sea else SPECIES)
    male = draw() < 0.6 and species not in ("cow", "hen")
    adjective = pick(draw, classes()["sized"] if draw() < 0.6 else COATS if draw() < 0.5 else classes()["good"])
    name = ""
    if draw() < 0.62:
        names = SPECIES_NAMES.get(species, "").split() if draw() < 0.6 else []
        name = pick(draw, names or (HE_PETS if male else SHE_PETS))
    if name in taken:
        name = ""
    male = name in BOYS or (male and name not in GIRLS)
    taken.update((species, name or species))
    cast_role(scope, role, name or f"the {species}", HE if male else SHE, species)
    scope[role + "intro"] = f"{adjective} {species}" + (f" named {name}" if name else "")
    facts = animals()[species]
    scope.update({role + "moved": facts["moved"], role + "move": facts["move"], role + "cried": facts["cried"]})
    scope.update({role + "home": facts["home"], role + "food": facts["food"], role + "young": facts["young"]})


def parent(draw: Draw, scope: Scope, animal_hero: bool) -> None:
    kind = (
        pick(draw, ("mom", "mom", "mother", "mama", "dad", "father", "grandma", "papa"))
        if animal_hero
        else pick(draw, PARENTS)
    )
    man = kind in ("dad", "daddy", "grandpa", "uncle", "father", "papa")
    cast_role(scope, "g", f"{scope['his']} {kind}", HE if man else SHE, kind)
    scope["call"] = kind.capitalize()


def stranger(draw: Draw, scope: Scope, taken: set[str], sage: bool) -> None:
    options = SAGES if sage else STRANGERS
    while True:
        kind, pronoun = options[int(draw() * len(options))]
        noun = kind.split(" in ")[0]
        if noun.split()[-1] not in taken:
            break
    taken.add(noun.split()[-1])
    cast_role(scope, "w", f"the {noun}", HE if pronoun == "he" else SHE, noun)
    scope["wx"] = with_article(kind)
