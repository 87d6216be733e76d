"""The letters that byte-level files write for bytes: printable bytes as themselves, the rest from 'Ā' on."""

from __future__ import annotations

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = (byte for byte in range(256) if byte not in _PRINTABLE)

# byte -> letter, in the order of the bytes (GPT-2's encoder.json started it).
LETTERS = tuple(
    letter
    for _, letter in sorted(
        [(byte, chr(byte)) for byte in _PRINTABLE]
        + [(byte, chr(0x100 + place)) for place, byte in enumerate(_OTHERS)]
    )
)
# Latin-1 has one character for each byte, so both ways are one str.translate.
_TO_LETTERS = dict(enumerate(LETTERS))
_TO_BYTES = {ord(letter): chr(byte) for byte, letter in enumerate(LETTERS)}


def letters_of(piece: bytes) -> str:
    """One letter a byte."""
    return piece.decode("latin-1").translate(_TO_LETTERS)


def bytes_of(letters: str) -> bytes | None:
    """The inverse; None when a character is no such letter."""
    if not all(ord(letter) in _TO_BYTES for letter in letters):
        return None
    return letters.translate(_TO_BYTES).encode("latin-1")
