"""From fixed to flexible: a tokenizer of one length becomes one whose prefixes decode.

    tok = flexible(tokenzoo.load("titok-bl64-vq8k"))
    module = tok.finetune(freeze="encoder,quantizer", lengths={"full": 0.2})

The ids stay what they were: only the decoder learns to do without the tail. Until it has, a shortened row
decodes to a picture that is far off. Source: the tail-drop of One-D-Piece (Miwa et al. 2025, arXiv
2501.10064), which trains the encoder with it; here that is frozen, so that stored ids stay good.

    python -m tokenzoo.image.flexible titok-bl64-vq8k --out runs/flexible/start
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from ..zoo.loading import load
from ..zoo.tokenizer import Tokenizer
from .titok import TiTok


def flexible(tokenizer: Tokenizer) -> TiTok:
    """A copy with the same weights whose facts say that it is nested.

    ValueError or TypeError for a tokenizer that is nested already, or whose decoder reads no shorter row:
    TiTok's does; TA-TiTok and TexTok have one length by their configuration.
    """
    if type(tokenizer) is not TiTok:
        raise TypeError(
            f"{tokenizer.facts.name} is a {type(tokenizer).__name__}: flexible() takes a TiTok, whose "
            "decoder reads rows of any length"
        )
    if tokenizer.facts.nested:
        raise ValueError(f"{tokenizer.facts.name} is nested already: fine-tune it as it is")
    made = TiTok(replace(tokenizer.config, nested=True))
    made.load_state_dict(tokenizer.state_dict())
    facts = tokenizer.facts
    # Another configuration, so another fingerprint, which saving and loading gives it.
    made.identify(name=f"{facts.name}-flexible", revision=None, fingerprint=None, licence=facts.licence)
    made.provenance = f"{tokenizer.provenance or facts.name}, made flexible"
    return made.eval().to(tokenizer.device, tokenizer.dtype)


def main(argv: Sequence[str] | None = None) -> None:
    """Write a flexible copy, to be fine-tuned by configs/train_fixed_to_flexible.yaml."""
    parser = argparse.ArgumentParser(prog="python -m tokenzoo.image.flexible", description=main.__doc__)
    parser.add_argument("tokenizer", help="name, Hub id or folder")
    parser.add_argument("--out", required=True, help="folder to write")
    told = parser.parse_args(argv)
    flexible(load(told.tokenizer)).save_pretrained(told.out)
    print(told.out)


if __name__ == "__main__":
    main()
