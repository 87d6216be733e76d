"""The suffixes of Turkish as they are spelled, each in all the shapes that its neighbours give it.

A textbook's list, not a paper's. In a rule A is a or e, I is ı, i, u or ü, D is d or t, C is c or ç, G is g,
k or ğ, K is k or ğ; other letters stay as they are.
"""

from __future__ import annotations

from itertools import product

_SHAPES = {"A": "ae", "I": "ıiuü", "D": "dt", "C": "cç", "G": "gkğ", "K": "kğ"}

# Of nouns: number, whose it is, case, and what makes nouns, adjectives and predicates of them.
_NOUNS = (
    "lAr Im m In n I sI ImIz mIz InIz nIz lArI A yA nA I yI nI DA nDA DAn nDAn In nIn lA ylA CA ncA ki "
    "DIr yDI ymIş ysA yIm sIn yIz sInIz yken lIK lI sIz CI DAş lA lAn lAş sAl ImsI CIK CAğIz IncI ncI Ar şAr"
)
# Of verbs: voice, ability, negation, tense, person, and what makes nouns and adverbs of them.
_VERBS = (
    "mAK mA mAz mAm Ar Ir r Iyor yor AcAK yAcAK DI mIş mAlI AlIm yAlIm sInlAr AyIm yAyIm A yA sA k Iz "
    "Il n In DIr t It Ir Ar Iş ş Abil yAbil AmA yAmA An yAn DIK Ip yIp ArAk yArAk IncA yIncA ken DIkçA mAdAn "
    "AlI yAlI yIş GI GAn GIn Im"
)


def affixes() -> frozenset[str]:
    """Every shape of every suffix, in small letters."""
    found = set()
    for rule in f"{_NOUNS} {_VERBS}".split():
        # Within one suffix vowels agree: the front ones or the back ones.
        for shape in map("".join, product(*(_SHAPES.get(letter, letter) for letter in rule))):
            vowels = [letter for letter, of in zip(shape, rule, strict=True) if of in "AI"]
            if not ({*vowels} & {*"aıu"} and {*vowels} & {*"eiü"}):
                found.add(shape)
    return frozenset(found)
