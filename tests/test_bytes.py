"""The null tokenizer: bytes in, the same bytes out."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenzoo.text.bytes import AsText, ByteTokenizer

BYTES = ByteTokenizer()
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.binary() | texts, max_size=5))
def test_every_text_comes_back(items: list[Any]) -> None:
    raw = [item.encode() if isinstance(item, str) else item for item in items]
    tokens = BYTES.encode(items)
    assert BYTES.decode(tokens) == raw
    assert tokens.lengths.tolist() == [len(item) for item in raw]
    assert tokens.extents.tolist() == [[len(item)] for item in raw]
    assert tokens.bits.tolist() == [8 * len(item) for item in raw]


def test_ids_are_the_bytes() -> None:
    tokens = BYTES.encode(["hé", b"\x00\xff\x80", ""])
    assert tokens.ids.tolist() == [[104, 195, 169], [0, 255, 128], [0, 0, 0]]
    assert tokens.lengths.tolist() == [3, 3, 0]
    assert BYTES.num_tokens((17,)) == 17


@given(st.binary(), st.binary())
def test_decode_bytes_is_a_homomorphism(left: bytes, right: bytes) -> None:
    a, b = BYTES.encode_ids(left), BYTES.encode_ids(right)
    assert BYTES.decode_bytes(a + b) == BYTES.decode_bytes(a) + BYTES.decode_bytes(b) == left + right


def test_there_is_nothing_to_finetune() -> None:
    with pytest.raises(NotImplementedError, match="bytes has no weights to finetune: `tokenzoo fit` trains"):
        BYTES.finetune()


def test_offsets_and_specials() -> None:
    assert BYTES.offsets("aé") == [(0, 1), (1, 2), (2, 3)]
    assert BYTES.offsets(b"") == [] and BYTES.specials == {}


def test_ids_beyond_a_byte_are_refused() -> None:
    for wrong in ([256], [-1]):
        with pytest.raises(ValueError, match=r"range\(0, 256\)"):
            BYTES.decode_bytes(wrong)
        with pytest.raises(ValueError, match=r"bytes takes 0 \.\.\. 255 there"):
            BYTES.stamp([wrong])


def test_ids_from_a_model_become_text() -> None:
    assert BYTES.decode(BYTES.stamp([[104, 105], [33]])) == [b"hi", b"!"]
    assert BYTES.decode(BYTES.stamp(torch.tensor([[104, 105]]))) == [b"hi"]


def test_wrong_texts_say_what_is_expected() -> None:
    for wrong in ("text", b"text"):
        with pytest.raises(TypeError, match="text is a single string: expected a list of them"):
            BYTES.encode(wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="text item is a int: expected str or bytes"):
        BYTES.encode([3])  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        ValueError, match="lone surrogate at character 2, which UTF-8 cannot hold; pass bytes"
    ):
        BYTES.encode(["ab\udc80"])
    with pytest.raises(ValueError, match="bytes has no nested axis"):
        BYTES.encode(["ab"], keep=1)


def test_extents_cut_texts() -> None:
    tokens = BYTES.encode(["abc", b"de"], extents=torch.tensor([[2], [0]]))
    assert BYTES.decode(tokens) == [b"ab", b""] and tokens.extents.tolist() == [[2], [0]]
    for wrong, message in (
        (torch.tensor([[4], [0]]), "extent 4 of a text of 3 bytes: expected it to lie inside"),
        (torch.tensor([[-1], [0]]), "extent -1 of a text of 3 bytes"),
        (torch.tensor([[1]]), r"extents have shape \(1, 1\): expected integers \(2, 1\)"),
        (torch.tensor([[1.0], [1.0]]), "expected integers"),
    ):
        with pytest.raises(ValueError, match=message):
            BYTES.encode(["abc", "de"], extents=wrong)


def test_preprocess_passes_texts() -> None:
    assert BYTES.preprocess("ä") == "ä" and BYTES.preprocess(b"\xff") == b"\xff"
    assert BYTES.preprocess == AsText()


def test_ids_need_no_torch() -> None:
    code = (
        "import sys, tokenzoo; bytes_ = tokenzoo.load('bytes'); "
        "print(bytes_.encode_ids('é'), bytes_.decode_bytes([104]), bytes_.facts.vocab_size); "
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n") == ["[195, 169] b'h' 256", "False", ""]


def test_bare_ids_are_sent_to_stamp() -> None:
    with pytest.raises(TypeError, match=r"a list: expected Tokens; tokenizer\.stamp"):
        BYTES.decode([[104, 105]])  # pyright: ignore[reportArgumentType]
