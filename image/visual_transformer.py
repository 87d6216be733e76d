"""Visual Transformers (Wu et al. 2020, arXiv 2006.03677): a picture as a few semantic tokens.

A tokenizer gathers L tokens T from the feature map X (HW, C), a transformer relates them, a projector hands
what they found back to the map, and the next layer looks again. In the paper's notation:

    (1)  T     = softmax_HW(X W_A)' X                            filter tokenizer
    (2)  T     = softmax_HW(X W_R)' X,  W_R' = T_in W_{T->R}     recurrent tokenizer, led by the layer before
    (3)  T'    = T + softmax_L((T K)(T Q)') T
    (4)  T_out = T' + relu(T' F_1) F_2
    (5)  X_out = X + softmax_L((X W_Q)(T_out W_K)') T_out         projector

The scores have no temperature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.attention import attention
from ..zoo.config import check_range
from ..zoo.facts import Facts
from .visual_tokenizer import VisualConfig, VisualTokenizer


@dataclass(frozen=True, kw_only=True)
class VisualTransformerConfig(VisualConfig):
    """Layers of visual tokens.

    num_tokens  L
    layers      tokenizer and transformer, one after the other; the first has a filter tokenizer
    recurrent   the others have recurrent ones, as in the paper, else filters too
    dim         C: the vision encoder's map is projected to it
    """

    tokenizer_type: ClassVar[str] = "visual-transformer"

    num_tokens: int = 16
    layers: int = 2
    recurrent: bool = True
    dim: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("num_tokens", self.num_tokens, 1, 16384)
        check_range("layers", self.layers, 1, 64)
        if self.dim % 2:
            raise ValueError(f"dim={self.dim}: expected an even number, keys and queries have half of it")

    def facts(self) -> Facts:
        """All but identity."""
        return self._facts("visual-transformer", self.num_tokens)


class VisualTransformer(VisualTokenizer):
    """Images as L tokens that look where their content is, not at places of a grid."""

    config_type = VisualTransformerConfig
    config: VisualTransformerConfig

    def __init__(self, config: VisualTransformerConfig) -> None:
        super().__init__(config)
        self.project_in = nn.Linear(self.encoder.width, config.dim)
        self.tokenizers = nn.ModuleList(
            RecurrentTokenizer(config.dim)
            if config.recurrent and layer
            else FilterTokenizer(config.dim, config.num_tokens)
            for layer in range(config.layers)
        )
        self.transformers = nn.ModuleList(TokenTransformer(config.dim) for _ in range(config.layers))
        # The last layer's tokens are the result: nobody looks at the map again.
        self.projectors = nn.ModuleList(TokenProjector(config.dim) for _ in range(config.layers - 1))

    def tokens_of(self, features: Tensor) -> Tensor:
        places = self.project_in(features).flatten(1, 2)
        tokens = places.new_zeros(len(places), 0, self.config.dim)
        for layer, (tokenizer, transformer) in enumerate(
            zip(self.tokenizers, self.transformers, strict=True)
        ):
            if layer:
                places = self.projectors[layer - 1](places, tokens)
            tokens = transformer(tokenizer(places, tokens))
        return tokens


class FilterTokenizer(nn.Module):
    """Equation (1): each token is the mean of the places that its filter likes.

    places   (B, HW, C) float
    tokens   ignored, so that both tokenizers are called alike
    returns  (B, L, C)
    """

    def __init__(self, dim: int, num_tokens: int) -> None:
        super().__init__()
        self.filters = nn.Linear(dim, num_tokens, bias=False)

    def forward(self, places: Tensor, tokens: Tensor) -> Tensor:
        return self.filters(places).softmax(dim=1).mT @ places


class RecurrentTokenizer(nn.Module):
    """Equation (2): the filters are made of the tokens of the layer before; shapes as in FilterTokenizer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.filters = nn.Linear(dim, dim, bias=False)

    def forward(self, places: Tensor, tokens: Tensor) -> Tensor:
        return _gather(self.filters(tokens), places, places)


class TokenTransformer(nn.Module):
    """Equations (3) and (4): (B, L, C) float -> (B, L, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.key = nn.Linear(dim, dim // 2, bias=False)
        self.query = nn.Linear(dim, dim // 2, bias=False)
        self.hidden = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        # The paper's K stands on the left, where the token is that asks.
        tokens = tokens + _gather(self.key(tokens), self.query(tokens), tokens)
        return tokens + self.out(F.relu(self.hidden(tokens)))


class TokenProjector(nn.Module):
    """Equation (5): places (B, HW, C) and tokens (B, L, C) -> places (B, HW, C) that know of the tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)

    def forward(self, places: Tensor, tokens: Tensor) -> Tensor:
        return places + _gather(self.query(places), self.key(tokens), tokens)


def _gather(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key') value: (B, N, E), (B, M, E), (B, M, C) float -> (B, N, C)."""
    return attention(query[:, None], key[:, None], value[:, None], scale=1.0)[:, 0]
