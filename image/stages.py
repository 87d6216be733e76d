"""From the first stage of TiTok to the second: the VQGAN whose codes it predicts now paints them.

    python -m tokenzoo.image.stages runs/titok/stage1 maskgit-vqgan --out runs/titok/stage2-start

The second stage then trains the decoder alone: `finetune(freeze="encoder,quantizer", ...)`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from ..zoo.loading import load
from .maskgit_vqgan import MaskgitVqgan
from .titok import TiTok


def with_pixels(stage1: TiTok, vqgan: MaskgitVqgan) -> TiTok:
    """A TiTok that paints: the weights of a first stage, with the codes and the decoder of its teacher.

    ValueError when the first stage paints already, or was taught by a VQGAN of other codes or patches.
    """
    config, network = stage1.config, vqgan.config.network
    if not config.legacy or config.pixel_decoder is not None:
        raise ValueError(f"{stage1.facts.name} paints already: expected a first stage of TiTok")
    if vqgan.config.num_codes != config.pixel_codes or vqgan.config.stride != config.decoder_patch_size:
        raise ValueError(
            f"{vqgan.facts.name} has {vqgan.config.num_codes} codes for patches of {vqgan.config.stride} "
            f"pixels: {stage1.facts.name} predicts {config.pixel_codes} for {config.decoder_patch_size}"
        )
    made = TiTok(replace(config, pixel_decoder=network))
    state = stage1.state_dict() | {"decoder.pixels.codebook": vqgan.quantizer.codebook.detach()}
    state |= {f"decoder.pixels.decoder.{name}": each for name, each in vqgan.decoder.state_dict().items()}
    made.load_state_dict(state)
    made.identify(name=stage1.facts.name, revision=None, fingerprint=None, licence=stage1.facts.licence)
    made.provenance = f"{stage1.provenance or stage1.facts.name}, painted by {vqgan.facts.name}"
    return made.eval().to(stage1.device)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the tokenizer that the second stage starts from."""
    parser = argparse.ArgumentParser(prog="python -m tokenzoo.image.stages", description=main.__doc__)
    parser.add_argument("stage1", help="folder, name or Hub id of the first stage")
    parser.add_argument("vqgan", help="the VQGAN that taught it, e.g. maskgit-vqgan")
    parser.add_argument("--out", required=True, help="folder to write")
    told = parser.parse_args(argv)
    stage1, vqgan = load(told.stage1), load(told.vqgan)
    if not isinstance(stage1, TiTok) or not isinstance(vqgan, MaskgitVqgan):
        parser.error(f"{told.stage1} and {told.vqgan}: expected a TiTok and a MaskGIT VQGAN")
    with_pixels(stage1, vqgan).save_pretrained(told.out)
    print(told.out)


if __name__ == "__main__":
    main()
