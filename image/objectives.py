"""Terms of the loss that belong to a family: what a recipe says under `terms`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..zoo.objective import Objective
from ..zoo.recipe import as_settings
from .alignment import Alignment, AlignmentSettings
from .code_distillation import CodeDistillation, CodeSettings
from .embedding import Embedding, EmbeddingSettings
from .halting import Halting, HaltingSettings
from .image_tokenizer import ImageTokenizer
from .rounds import Rounds, RoundsSettings
from .semantics import Semantics, SemanticSettings

_TERMS: dict[str, Any] = {
    term.name: term for term in (Alignment, CodeDistillation, Embedding, Halting, Rounds, Semantics)
}


@dataclass(frozen=True)
class FamilyTerms:
    """Settings of each term; None leaves it out. They may be given as mappings of their fields.

    alignment  FlexTok's decoder sees what a vision model sees
    codes      TiTok's first stage predicts the ids of another tokenizer
    embedding  SEED hits the CLIP embedding of the picture
    halting    KARL learns which latents to leave out
    rounds     ALIT learns at every length
    semantic   few tokens of ReTok mean what the image means
    """

    alignment: AlignmentSettings | None = None
    codes: CodeSettings | None = None
    embedding: EmbeddingSettings | None = None
    halting: HaltingSettings | None = None
    rounds: RoundsSettings | None = None
    semantic: SemanticSettings | None = None

    def __post_init__(self) -> None:
        for name, term in _TERMS.items():
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, as_settings(term.settings_type, values))


def settled_terms(terms: FamilyTerms | Mapping[str, Any] | None, tokenizer: ImageTokenizer) -> FamilyTerms:
    """These terms; where nothing is said, those that the family needs. ValueError for an unknown one."""
    if terms is None:
        terms = {name: {} for name in tokenizer.term_defaults}
    return as_settings(FamilyTerms, terms)


def family_objectives(terms: FamilyTerms, tokenizer: ImageTokenizer) -> list[Objective]:
    """These terms for this tokenizer. TypeError when one is for another family."""
    told = {name: getattr(terms, name) for name in _TERMS}
    return [_TERMS[name](each, tokenizer) for name, each in told.items() if each is not None]
