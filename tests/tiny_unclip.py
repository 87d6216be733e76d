"""A Stable unCLIP pipeline of random weights that paints 32 x 32 pixels, as a folder."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from .tiny_clip import WORDS

DIM = 32


def write_tiny_unclip(folder: Path) -> None:
    """Weights of seed 0. Needs diffusers and transformers."""
    import diffusers
    import transformers

    words = folder / "words"
    words.mkdir(parents=True)
    (words / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(WORDS)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    sizes = {
        "hidden_size": DIM,
        "intermediate_size": 37,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": DIM,
    }
    text = transformers.CLIPTextConfig(
        vocab_size=len(WORDS),
        max_position_embeddings=16,
        bos_token_id=len(WORDS) - 2,
        eos_token_id=len(WORDS) - 1,
        **sizes,
    )
    picture = transformers.CLIPVisionConfig(image_size=32, patch_size=16, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = diffusers.UNet2DConditionModel(
            sample_size=32,
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            attention_head_dim=(2, 4),
            cross_attention_dim=DIM,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=2 * DIM,
            use_linear_projection=True,
        )
        pipeline = diffusers.StableUnCLIPImg2ImgPipeline(
            feature_extractor=transformers.CLIPImageProcessor(crop_size=32, size=32),
            image_encoder=transformers.CLIPVisionModelWithProjection(picture),
            image_normalizer=diffusers.pipelines.stable_diffusion.StableUnCLIPImageNormalizer(DIM),
            image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
            tokenizer=transformers.CLIPTokenizer.from_pretrained(words, model_max_length=16),
            text_encoder=transformers.CLIPTextModel(text),
            unet=unet,
            scheduler=diffusers.DDIMScheduler(prediction_type="v_prediction", set_alpha_to_one=False),
            vae=diffusers.AutoencoderKL(block_out_channels=(32,), norm_num_groups=8),
        )
    pipeline.save_pretrained(folder)
