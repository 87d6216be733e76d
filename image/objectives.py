"""Terms of the loss that belong to a family, by the name a recipe gives under `terms`.

alignment  FlexTok's decoder sees what a vision model sees
codes      TiTok's first stage predicts the ids of another tokenizer
embedding  SEED hits the CLIP embedding of the picture
halting    KARL learns which latents to leave out
rounds     ALIT learns at every length
semantic   few tokens of ReTok mean what the image means
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..zoo.objective import Objective
from ..zoo.recipe import as_settings, plain
from .alignment import Alignment
from .code_distillation import CodeDistillation
from .embedding import Embedding
from .halting import Halting
from .image_tokenizer import ImageTokenizer
from .rounds import Rounds
from .semantics import Semantics

Terms = Mapping[str, Mapping[str, Any]]

_TERMS: dict[str, Any] = {
    term.name: term for term in (Alignment, CodeDistillation, Embedding, Halting, Rounds, Semantics)
}


def plain_terms(terms: Terms | None, tokenizer: ImageTokenizer) -> dict[str, dict[str, Any]]:
    """Complete settings of these terms as plain values; the family's own ones when nothing is said.

    ValueError for a term or a setting that is not known.
    """
    told: Terms = {name: {} for name in tokenizer.term_defaults} if terms is None else terms
    if unknown := sorted(set(told) - set(_TERMS)):
        raise ValueError(f"unknown terms {', '.join(unknown)}; known: {', '.join(_TERMS)}")
    return {name: plain(as_settings(_TERMS[name].settings_type, values)) for name, values in told.items()}


def family_objectives(terms: Terms, tokenizer: ImageTokenizer) -> list[Objective]:
    """These terms for this tokenizer. TypeError when one is for another family."""
    return [
        _TERMS[name](as_settings(_TERMS[name].settings_type, values), tokenizer)
        for name, values in terms.items()
    ]
