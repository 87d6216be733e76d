"""Keywords of a family's verbs on the command line."""

import pytest

from tokenzoo.text.bytes import ByteTokenizer
from tokenzoo.zoo.keywords import family_keywords, parse_keywords


class Flow(ByteTokenizer):
    """A decoder with keywords of its own."""

    def decode(self, tokens, *, generator=None, steps: int = 20, guidance: float | None = None, fast=False):
        return super().decode(tokens, generator=generator)


def test_only_what_the_family_adds_is_offered():
    assert list(family_keywords(Flow(), "decode")) == ["steps", "guidance", "fast"]
    assert family_keywords(Flow(), "encode") == {}


def test_values_have_the_type_of_the_annotation_or_the_default():
    assert parse_keywords(Flow(), "decode", ["steps=4", "guidance=2.5", "fast=yes"]) == {
        "steps": 4,
        "guidance": 2.5,
        "fast": True,
    }


@pytest.mark.parametrize(
    ("pair", "text"),
    [
        ("speed=1", "expected NAME=VALUE; bytes knows steps, guidance, fast for decode"),
        ("steps", "knows steps, guidance, fast"),
        ("steps=many", "--set steps=many: expected int"),
        ("fast=perhaps", "--set fast=perhaps: expected bool"),
    ],
)
def test_mistakes_say_what_is_expected(pair, text):
    with pytest.raises(ValueError, match=text):
        parse_keywords(Flow(), "decode", [pair])
