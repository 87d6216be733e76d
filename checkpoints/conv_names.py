"""Tensor names of the convolutional autoencoder of taming-transformers and latent diffusion.

Several official layouts share them; ours are those of `image/conv_parts.py`.
"""

from .renames import Renames

# Official name | ours.
RENAMES: Renames = (
    ("quant_conv.*", "encoder.quant_conv.*"),
    ("post_quant_conv.*", "decoder.post_quant_conv.*"),
    ("*.mid.block_1.**", "*.mid.0.**"),
    ("*.mid.attn_1.**", "*.mid.1.**"),
    ("*.mid.block_2.**", "*.mid.2.**"),
)
# Discriminator and perceptual loss, of no use here.
LOSS_PREFIX = "loss."
