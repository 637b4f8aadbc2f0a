# ruff: noqa: SIM905
"""Word lists of the shipped model: what it can know, in one place for the documents and for the instructions."""

from __future__ import annotations

NAMES = "Ann Tom Ben Eva Max Lily Sam Nora Jack Mia Paul Rosa Leo Ida Carl Zoe".split()
PLACES = "kitchen garden barn school library station market forest office bedroom cellar park".split()
OBJECTS = "ball key book lamp cup hat map coin rope box pen bag drum kite doll brush".split()

CATEGORIES: dict[str, list[str]] = {
    "animal": "dog cat horse cow sheep goat lion tiger wolf fox bear mouse rabbit monkey camel donkey".split(),
    "bird": "eagle owl duck goose swan crow parrot pigeon robin hawk stork finch".split(),
    "fruit": "apple pear plum banana cherry lemon orange peach grape melon mango fig".split(),
    "vegetable": "carrot onion potato cabbage bean pea turnip spinach celery radish leek pumpkin".split(),
    "tool": "hammer saw drill spade axe wrench chisel rake screwdriver shovel plane file".split(),
    "vehicle": "car bus truck train boat ship bicycle tram plane van ferry tractor".split(),
    "furniture": "chair table bed sofa desk shelf bench stool cupboard wardrobe drawer couch".split(),
    "clothing": "shirt coat glove scarf sock skirt dress jacket boot belt sweater apron".split(),
    "metal": "iron gold silver copper tin zinc lead nickel steel bronze".split(),
    "instrument": "piano violin flute guitar trumpet harp cello organ banjo tuba".split(),
    "drink": "water milk tea coffee juice wine beer cocoa cider lemonade".split(),
    "job": "doctor teacher farmer baker pilot nurse painter judge sailor miner".split(),
}
CATEGORIES["vehicle"].remove("plane")

COLOURS: dict[str, list[str]] = {
    "red": "tomato blood strawberry ruby brick rose cherry".split(),
    "yellow": "banana lemon sun butter corn mustard canary".split(),
    "green": "grass frog leaf pea cucumber emerald spinach".split(),
    "blue": "sky sea sapphire jeans whale lagoon".split(),
    "white": "snow milk salt swan chalk sugar cloud".split(),
    "black": "coal crow tar night ink raven soot".split(),
    "brown": "wood chocolate coffee bear mud potato acorn".split(),
    "orange": "carrot pumpkin apricot tiger tangerine".split(),
    "pink": "pig flamingo salmon piglet".split(),
    "grey": "ash elephant mouse donkey stone lead".split(),
}

OPPOSITES: list[tuple[str, str]] = [
    tuple(p.split("-"))
    for p in (
        "hot-cold big-small tall-short fast-slow old-young hard-soft light-dark early-late full-empty rich-poor "
        "happy-sad good-bad strong-weak wet-dry clean-dirty open-closed near-far high-low thick-thin wide-narrow "
        "loud-quiet sharp-blunt smooth-rough heavy-weightless deep-shallow safe-dangerous right-wrong true-false "
        "first-last up-down in-out leftward-rightward day-night love-hate war-peace friend-enemy start-finish buy-sell "
        "push-pull win-lose give-take come-go laugh-cry rise-fall sweet-sour brave-cowardly clever-stupid "
        "cheap-expensive kind-cruel lazy-busy north-south east-west summer-winter king-queen boy-girl man-woman "
        "father-mother brother-sister uncle-aunt son-daughter question-answer always-never everything-nothing "
        "above-below inside-outside before-after alive-dead easy-difficult tight-loose ancient-modern "
        "polite-rude calm-stormy float-sink build-destroy remember-forget arrive-leave attack-defend"
    ).split()
]

IRREGULAR_PLURALS: dict[str, str] = {
    "man": "men", "woman": "women", "child": "children", "foot": "feet", "tooth": "teeth", "goose": "geese",
    "mouse": "mice", "ox": "oxen", "wolf": "wolves", "leaf": "leaves", "knife": "knives", "wife": "wives",
    "life": "lives", "shelf": "shelves", "loaf": "loaves", "thief": "thieves", "half": "halves", "calf": "calves",
    "potato": "potatoes", "tomato": "tomatoes", "hero": "heroes", "mango": "mangoes", "baby": "babies",
    "city": "cities", "story": "stories", "lady": "ladies", "party": "parties", "cherry": "cherries",
    "ferry": "ferries", "fox": "foxes", "box": "boxes", "bus": "buses", "bench": "benches", "brush": "brushes",
    "peach": "peaches", "finch": "finches", "wrench": "wrenches", "dress": "dresses", "radish": "radishes",
    "couch": "couches", "canary": "canaries", "ruby": "rubies", "strawberry": "strawberries", "pony": "ponies",
}  # fmt: skip

PAST: dict[str, str] = dict(
    p.split("-")
    for p in (
        "go-went see-saw take-took give-gave come-came run-ran eat-ate drink-drank sing-sang swim-swam write-wrote "
        "speak-spoke break-broke choose-chose drive-drove ride-rode rise-rose fall-fell feel-felt keep-kept "
        "sleep-slept leave-left meet-met feed-fed find-found hold-held stand-stood think-thought buy-bought "
        "bring-brought catch-caught teach-taught fight-fought tell-told sell-sold send-sent build-built spend-spent "
        "lose-lost win-won sit-sat begin-began grow-grew know-knew throw-threw fly-flew draw-drew wear-wore "
        "tear-tore freeze-froze steal-stole hide-hid bite-bit shake-shook forget-forgot hear-heard make-made pay-paid "
        "say-said shine-shone dig-dug hang-hung sink-sank ring-rang walk-walked talk-talked jump-jumped play-played "
        "look-looked help-helped work-worked open-opened clean-cleaned paint-painted cook-cooked wait-waited "
        "ask-asked call-called pull-pulled push-pushed rain-rained turn-turned wash-washed watch-watched "
        "live-lived love-loved move-moved dance-danced smile-smiled close-closed bake-baked hope-hoped use-used "
        "stop-stopped plan-planned carry-carried cry-cried try-tried study-studied marry-married hurry-hurried"
    ).split()
)

CAPITALS: dict[str, str] = dict(
    p.split("-")
    for p in (
        "France-Paris Italy-Rome Spain-Madrid Germany-Berlin England-London Ireland-Dublin Portugal-Lisbon "
        "Greece-Athens Austria-Vienna Poland-Warsaw Hungary-Budapest Norway-Oslo Sweden-Stockholm Finland-Helsinki "
        "Denmark-Copenhagen Russia-Moscow Japan-Tokyo China-Beijing Egypt-Cairo Kenya-Nairobi Peru-Lima Cuba-Havana "
        "Canada-Ottawa Turkey-Ankara Iran-Tehran Iraq-Baghdad Chile-Santiago Scotland-Edinburgh Wales-Cardiff "
        "Belgium-Brussels Bulgaria-Sofia Romania-Bucharest Croatia-Zagreb Serbia-Belgrade Ukraine-Kyiv "
        "Thailand-Bangkok Vietnam-Hanoi Nepal-Kathmandu Iceland-Reykjavik Syria-Damascus"
    ).split()
)

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def all_nouns() -> list[str]:
    """Every concrete noun of the lists, sorted, without repeats."""
    words = {w for group in CATEGORIES.values() for w in group} | {w for group in COLOURS.values() for w in group}
    return sorted(words | set(OBJECTS) | set(PLACES))


def countable_nouns() -> list[str]:
    """Nouns that have an ordinary plural."""
    mass = set(CATEGORIES["metal"] + CATEGORIES["drink"])
    mass |= set("blood butter corn mustard grass spinach celery cabbage sky sea jeans snow salt chalk sugar coal tar "
                "night ink soot wood chocolate mud salmon ash".split())  # fmt: skip
    return sorted((set(all_nouns()) - mass - {"sheep"}) | set(IRREGULAR_PLURALS))


def plural(noun: str) -> str:
    """The plural of a noun of the lists."""
    return IRREGULAR_PLURALS.get(noun, noun + "s")


def article(word: str) -> str:
    """The word with "a" or "an" in front."""
    return ("an " if word[0] in "aeiou" else "a ") + word


def all_words() -> list[str]:
    """Every word that can be an answer, sorted, so that the tokenizer can hold each at a line's start."""
    words = set(all_nouns()) | set(CATEGORIES) | set(COLOURS) | {w for pair in OPPOSITES for w in pair}
    words |= set(NAMES) | set(CAPITALS) | set(CAPITALS.values()) | set(DAYS) | set(MONTHS)
    return sorted(words | set(PAST.values()) | set(IRREGULAR_PLURALS.values()))
