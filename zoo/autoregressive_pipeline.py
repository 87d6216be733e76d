"""Autoregressive generation over the ids of any discrete tokenizer, as a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor

from .chance import Chance, check_generators
from .generator_parts import (
    Generated,
    TokenizerComponent,
    TokenPipeline,
    TokenRow,
    check_discrete,
    check_finite,
    integer,
    one_each,
)
from .optional import require
from .sampling import GumbelChoice, LegalTurns
from .tokenizer import Tokenizer
from .tokens import Tokens
from .vocabulary import JointMedium, JointVocabulary

_transformers = require("transformers", "transformers")

# A class, the ids of a text, or a text for the text tokenizer; None for no condition.
Condition = int | str | Sequence[int] | None


class AutoregressiveTokenPipeline(TokenPipeline):
    """A causal language model writes the row of ids after its condition, one by one, with a KV cache.

    tokenizer       any discrete tokenizer of ours
    transformer     a causal model of transformers, e.g. LlamaForCausalLM
    text_tokenizer  of conditions given as strings; its ids are condition ids
    num_conditions  condition ids: classes, or the ids of a text tokenizer; the next id means no condition
    num_tokens      most tokens of an item, default `max_tokens`
    depth           only the first codebooks of a tokenizer nested in codebooks

    The model's ids are those of a joint vocabulary (`vocabulary`): the condition ids and that of no condition
    where text would be, then one medium. A row is a condition, the medium's begin marker, and the ids of the
    tokens, those of a token side by side. `save_pretrained` and `AutoregressiveTokenPipeline.from_pretrained`
    are each other's inverse. ValueError for a continuous tokenizer, and for a model with too few ids or
    positions.
    """

    _optional_components: ClassVar[list[str]] = ["text_tokenizer"]

    def __init__(
        self,
        tokenizer: Tokenizer | TokenizerComponent,
        transformer: Any,
        text_tokenizer: Tokenizer | TokenizerComponent | None = None,
        num_conditions: int = 0,
        num_tokens: int | None = None,
        depth: int | None = None,
    ) -> None:
        super().__init__()
        component = TokenizerComponent.wrap(tokenizer)
        check_discrete(component.facts)
        if not callable(getattr(transformer, "generate", None)):
            raise TypeError(
                f"the transformer is a {type(transformer).__name__}: expected a causal model of transformers"
                "; a MaskedTransformer belongs to MaskedTokenPipeline"
            )
        if num_conditions < 0:
            raise ValueError(f"num_conditions={num_conditions}: expected 0 or more")
        self.row = TokenRow.of(component.facts, num_tokens, depth)
        self.vocabulary = _vocabulary(component, num_conditions, depth)
        _check_model(transformer.config, self.vocabulary, self.row)
        self.register_modules(
            tokenizer=component,
            transformer=transformer.eval(),
            text_tokenizer=None if text_tokenizer is None else TokenizerComponent.wrap(text_tokenizer),
        )
        self.register_to_config(num_conditions=num_conditions, num_tokens=num_tokens, depth=depth)

    @classmethod
    def untrained(
        cls,
        tokenizer: Tokenizer,
        *,
        num_conditions: int = 0,
        text_tokenizer: Tokenizer | None = None,
        longest_condition: int = 1,
        num_tokens: int | None = None,
        depth: int | None = None,
        width: int = 384,
        layers: int = 8,
        heads: int = 6,
    ) -> Self:
        """With a new Llama of this size. longest_condition: ids of the longest text."""
        if text_tokenizer is not None:
            num_conditions = text_tokenizer.facts.vocab_size
        row = TokenRow.of(tokenizer.facts, num_tokens, depth)
        config = _transformers.LlamaConfig(
            vocab_size=_vocabulary(tokenizer, num_conditions, depth).size,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=longest_condition + 1 + row.length,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
        model = _transformers.LlamaForCausalLM(config)
        return cls(tokenizer, model, text_tokenizer, num_conditions, num_tokens, depth)

    @property
    def nobody(self) -> int:
        """The id that stands for no condition."""
        return self.config.num_conditions

    def rows(
        self,
        tokens: Tokens,
        conditions: Sequence[Condition],
        *,
        drop: float = 0.0,
        generator: Generator | None = None,
    ) -> list[list[int]]:
        """Rows to train on, a list of ids for each item: its condition, the begin marker, its tokens.

        tokens     of codebooks that nest the first `depth` are taken; any lengths up to `num_tokens`
        drop       chance that an item loses its condition, so that guidance has something to compare with
        generator  draws the drops

        `pack` and `pad` of zoo/prepacking.py make batches of them.
        """
        if len(conditions) != len(tokens):
            raise ValueError(f"{len(conditions)} conditions for {len(tokens)} items: expected one each")
        if not 0 <= drop <= 1:
            raise ValueError(f"drop={drop!r}: expected a chance from 0 to 1")
        is_dropped = (torch.rand(len(tokens), generator=generator) < drop).tolist()
        if len(tokens.codebook_sizes) > self.row.depth:
            tokens = tokens.keep(self.row.depth)
        if len(tokens) and int(tokens.lengths.max()) > self.row.tokens:
            raise ValueError(f"{int(tokens.lengths.max())} tokens: this generator takes {self.row.tokens}")
        spans = self.vocabulary.flatten(tokens)
        heads = [self._condition(None if d else c) for c, d in zip(conditions, is_dropped, strict=True)]
        return [head + span for head, span in zip(heads, spans, strict=True)]

    @torch.no_grad()
    def __call__(
        self,
        conditions: Sequence[Condition] | Tensor,
        *,
        guidance_scale: float = 1.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        num_tokens: int | None = None,
        captions: Sequence[str] | None = None,
        generator: Chance = None,
        output_type: str | None = None,
    ) -> Generated:
        """One item for each condition: a class, the ids of a text, a string, or None.

        guidance_scale log-probabilities are none + scale * (condition - none); 1 saves a forward
        temperature    0 takes the likeliest id each time
        num_tokens     fewer, where the tokenizer is nested
        captions       for the decoder of a tokenizer that takes them
        generator      one draws for the batch at once, so an item depends on its neighbours; with a list of
                       one an item, each comes out as it would alone, up to the last bit of the logits.
                       Without any, torch's own
        output_type    "pil" (default for images), "pt" (tensors), or "tokens": not decoded
        """
        chosen = self._check_output(output_type)
        check_finite("guidance_scale", guidance_scale)
        check_finite("temperature", temperature, least=0)
        listed = one_each("conditions", conditions)
        check_generators(generator, len(listed))
        count = self.row.count(num_tokens, self.tokenizer.facts)
        prompts, there = self._prompts([self._condition(each) for each in listed])
        written = prompts.shape[1] + count * self.row.depth
        if written > self.transformer.config.max_position_embeddings:
            limit = self.transformer.config.max_position_embeddings
            raise ValueError(f"condition and tokens are {written} ids: the transformer has {limit} positions")
        steps = self._steps(prompts, guidance_scale, temperature, top_k, top_p, generator)
        config = _transformers.GenerationConfig(max_new_tokens=count * self.row.depth, do_sample=False)
        ids = self.transformer.generate(
            prompts, attention_mask=there, generation_config=config, logits_processor=steps
        )
        ids = ids[:, prompts.shape[1] :]
        starts = [turn.start for turn in self._turns()]
        ids = ids - torch.tensor(starts, device=ids.device).repeat(count)
        return self._finish(self.row.shape(ids, self.tokenizer.facts), chosen, captions)

    def _turns(self) -> tuple[range, ...]:
        return self.vocabulary.ranges(self.tokenizer.facts)

    def _condition(self, condition: Condition) -> list[int]:
        """The ids that a row starts with; ValueError for one outside the condition ids."""
        begin = self.vocabulary.blocks[0].begin
        if condition is None:
            return [self.nobody, begin]
        if isinstance(condition, str):
            if self.text_tokenizer is None:
                raise ValueError(
                    "a condition is a string: make the pipeline with a text_tokenizer, or give ids"
                )
            ids = self.text_tokenizer.tokenizer.encode([condition]).ids[0].tolist()
        else:
            ids = [integer(each) for each in (condition if isinstance(condition, Iterable) else [condition])]
        known = [each for each in ids if each is not None and 0 <= each < self.nobody]
        if not ids or len(known) < len(ids):
            raise ValueError(
                f"condition {condition!r}: expected ids in 0 ... {self.nobody - 1}, or None for none"
            )
        return [*known, begin]

    def _prompts(self, conditions: list[list[int]]) -> tuple[Tensor, Tensor]:
        """(B, P) ids, shorter ones padded on the left, and where they are."""
        width = max(map(len, conditions))
        padded = [[self.nobody] * (width - len(ids)) + ids for ids in conditions]
        there = [[0] * (width - len(ids)) + [1] * len(ids) for ids in conditions]
        device = self.transformer.device
        return torch.tensor(padded, device=device), torch.tensor(there, device=device)

    def _steps(
        self,
        prompts: Tensor,
        guidance_scale: float,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        generator: Chance,
    ) -> Any:
        """What happens to the logits of each id, in this order; the last step makes argmax a draw."""
        steps = _transformers.LogitsProcessorList()
        if guidance_scale != 1:
            nobody = prompts.new_tensor(self._condition(None)).expand(len(prompts), -1)
            steps.append(
                _transformers.UnbatchedClassifierFreeGuidanceLogitsProcessor(
                    guidance_scale, self.transformer, unconditional_ids=nobody
                )
            )
        steps.append(LegalTurns(self._turns(), prompts.shape[1]))
        if temperature == 0:
            return steps
        if temperature != 1:
            steps.append(_transformers.TemperatureLogitsWarper(float(temperature)))
        if top_k is not None:
            steps.append(_transformers.TopKLogitsWarper(top_k))
        if top_p is not None:
            steps.append(_transformers.TopPLogitsWarper(top_p))
        steps.append(GumbelChoice(generator))
        return steps


def _vocabulary(tokenizer: Any, num_conditions: int, depth: int | None) -> JointVocabulary:
    medium = JointMedium("tokens", tokenizer.facts, depth=depth)
    return JointVocabulary(num_conditions + 1, (medium,))


def _check_model(config: Any, vocabulary: JointVocabulary, row: TokenRow) -> None:
    """ValueError unless the model has an id and a position for everything."""
    if config.vocab_size < vocabulary.size:
        raise ValueError(
            f"the transformer has {config.vocab_size} ids: condition ids, none and codebooks need "
            f"{vocabulary.size}; resize_token_embeddings, or make a new one with `untrained`"
        )
    if config.max_position_embeddings < 2 + row.length:
        raise ValueError(
            f"the transformer has {config.max_position_embeddings} positions: a condition id, the begin "
            f"marker and {row.tokens} tokens need {2 + row.length}"
        )
