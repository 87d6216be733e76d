"""Tensor names that SpeechTokenizer and WavTokenizer share with EnCodec; ours are those of SEANet here."""

from __future__ import annotations

from .renames import Renames

# Official name, weight norm folded | ours. Convolutions lie two wrappers deep.
SEANET: Renames = (
    # Where four changes of rate put the transposed convolutions: only their wrappers tell them apart.
    *((f"decoder.model.{place}.convtr.convtr.*", f"decoder.layers.{place}.*") for place in (3, 6, 9, 12)),
    ("*.model.*.block.*.alpha", "*.layers.*.block.*.alpha"),
    ("*.model.*.block.*.conv.conv.*", "*.layers.*.block.*.*"),
    ("*.model.*.shortcut.conv.conv.*", "*.layers.*.shortcut.*"),
    ("*.model.*.lstm.*", "*.layers.*.lstm.*"),
    ("*.model.*.alpha", "*.layers.*.alpha"),
    ("*.model.*.conv.conv.*", "*.layers.*.*"),
    ("*.model.*.convtr.convtr.*", "*.layers.*.*"),
)


def codebook(official: str, ours: str) -> Renames:
    """The buffers of a codebook of moving averages; stars of both sides correspond."""
    pairs = (("embed", "codebook"), ("embed_avg", "sums"), ("cluster_size", "counts"), ("inited", "started"))
    return tuple((f"{official}.{theirs}", f"{ours}.{mine}") for theirs, mine in pairs)
