"""A joint tokenizer of toys: bytes; pictures of one size, and nested ones; sound by token, and delayed."""

from __future__ import annotations

from tokenzoo.text.bytes import ByteTokenizer
from tokenzoo.zoo.interleave import JointTokenizer
from tokenzoo.zoo.vocabulary import JointMedium, JointVocabulary

from .toys import build_toy

WIDE, PHOTO, SPEECH, VOICE = (build_toy(name) for name in ("llamagen", "retok", "toy-sound", "toy-codec"))
BYTES = ByteTokenizer()


def joint_toys() -> JointTokenizer:
    """ "wide" has 2 x 3 tokens of 32 codes, "photo" 1 ... 16 of 50, "speech" any number of (6, 8, 3) codes,
    "voice" any number of (16, 16), delayed."""
    table = JointVocabulary(
        256,
        (
            JointMedium("wide", WIDE.facts, extent=(8, 12)),
            JointMedium("photo", PHOTO.facts),
            JointMedium("speech", SPEECH.facts),
            JointMedium("voice", VOICE.facts, order="delay", depth=2),
        ),
    )
    return JointTokenizer(BYTES, {"wide": WIDE, "photo": PHOTO, "speech": SPEECH, "voice": VOICE}, table)
