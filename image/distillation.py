"""What KARL and ALIT learn first: to predict the grid of the autoencoder below them.

Source: ShivamDuggal4/karl and ShivamDuggal4/adaptive-length-tokenizer, `forward_loss`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..kernels.vq import nearest_code
from .distilled import VAE_SCALE, DistilledTokenizer


def grid_loss(
    tokenizer: DistilledTokenizer, prediction: Tensor, features: Tensor, smoothing: float = 0.1
) -> Tensor:
    """How far a prediction is from the autoencoder's own grid.

    prediction  (B, prediction_dim, h, w) of `decoder.predict`
    features    (B, feature_dim, h, w) of `grid_of`
    smoothing   share of the target that is spread over all codes
    returns     () float: over a VQGAN the cross-entropy to its codes, plus the squared error of the mean code
                that is painted; over a VAE the squared error of the latents
    """
    if tokenizer.decoder.vqgan is None:
        return (prediction.float() - features.float() / VAE_SCALE).square().mean()
    codebook: Tensor = tokenizer.decoder.vqgan.codebook.detach().float()
    truth = nearest_code(features.float().flatten(2).transpose(1, 2), codebook)
    logits = prediction.float().flatten(2)
    painted = logits.softmax(dim=1).transpose(1, 2) @ codebook
    error = (painted - codebook[truth]).square().mean()
    return F.cross_entropy(logits, truth, label_smoothing=smoothing) + error


@torch.no_grad()
def grid_of(tokenizer: DistilledTokenizer, signal: Tensor) -> Tensor:
    """The grid that the autoencoder sees in images (B, 3, H, W): (B, feature_dim, h, w)."""
    return tokenizer.encoder.features(signal)
