"""The rows of the catalogue that are image tokenizers."""

from __future__ import annotations

from dataclasses import replace

from .facts import Facts
from .row import Row


def _titok(name: str, tokens: int, codebook: int | None, dim: int, repo: str) -> Row:
    return Row(
        facts=Facts(
            name=name,
            modality="image",
            licence="Apache-2.0",
            channels=3,
            max_tokens=tokens,
            codebook_sizes=() if codebook is None else (codebook,),
            latent_dim=dim,
            draws_noise=codebook is None,
        ),
        family="titok",
        config=f"{name.replace('-', '_')}.yaml",
        repo=f"yucornetto/tokenizer_titok_{repo}_imagenet",
        converter="titok",
        notice="the authors ask for research use only: bytedance/1d-tokenizer",
        paper="2406.07550",
    )


def _ta_titok(size: str, tokens: int, codebook: int | None) -> Row:
    kind = "vae" if codebook is None else "vq"
    row = _titok(f"ta-titok-{size}-{kind}", tokens, codebook, dim=16 if codebook is None else 64, repo="")
    return replace(
        row,
        facts=replace(row.facts, takes_captions=True),
        family="ta-titok",
        repo=f"turkeyju/tokenizer_tatitok_{size}_{kind}",
        converter="ta-titok",
        paper="2501.07730",
    )


def _one_d_piece(size: str) -> Row:
    name = f"one-d-piece-{size}-256"
    return Row(
        facts=Facts(
            name=name,
            modality="image",
            licence="Apache-2.0",
            channels=3,
            max_tokens=256,
            codebook_sizes=(4096,),
            latent_dim=12,
            nested="tokens",
        ),
        family="titok",
        config=f"{name.replace('-', '_')}.yaml",
        repo=f"turing-motors/One-D-Piece-{size.upper()}-256",
        file="pytorch_model.bin",
        converter="titok",
        paper="2501.10064",
    )


def _kl16(name: str, family: str, paper: str, codebook_sizes: tuple[int, ...] = ()) -> Row:
    return Row(
        facts=Facts(
            name=name,
            modality="image",
            licence="MIT",
            channels=3,
            codebook_sizes=codebook_sizes,
            latent_dim=16,
            draws_noise=True,
        ),
        family=family,
        config=f"{name.replace('-', '_')}.yaml",
        download="https://github.com/LTH14/mar (kl16.ckpt)",
        file="kl16.ckpt",
        converter="ldm-vae",
        paper=paper,
    )


def _grid(name: str, family: str, codebook: int, dim: int, repo: str, file: str, paper: str) -> Row:
    return Row(
        facts=Facts(
            name=name,
            modality="image",
            licence="MIT" if family == "llamagen" else "Apache-2.0",
            channels=3,
            codebook_sizes=(codebook,),
            latent_dim=dim,
        ),
        family=family,
        config=f"{name.replace('-', '_')}.yaml",
        repo=repo,
        file=file,
        converter=family,
        paper=paper,
    )


def _llamagen(size: str, repo: str, file: str) -> Row:
    return _grid(f"llamagen-vq-{size}", "llamagen", 16384, 8, repo, file, "2406.06525")


def _elm_bae(bits: int) -> Row:
    file = f"bae/bae_{bits}/binaryae_ema.th"
    row = _grid(f"elm-bae-{bits}", "elm-bae", 2**bits, bits, "xuantonglll/ELM", file, "2410.16257")
    return replace(
        row,
        facts=replace(row.facts, licence="not stated", draws_noise=True),
        notice="the repository has no licence file: ask the authors",
    )


def _ibq(codebook: int, file: str, suffix: str = "") -> Row:
    name = f"ibq-{codebook}{suffix}"
    repo = f"TencentARC/{name.replace('ibq', 'IBQ-Tokenizer').replace('pretrain', 'Pretrain')}"
    return _grid(name, "ibq", codebook, 256, repo, file, "2412.02692")


def _distilled(family: str, kind: str, keeps: tuple[int, ...], repository: str, paper: str) -> Row:
    continuous = kind.endswith("-continuous")
    base = kind.removesuffix("-continuous")
    return Row(
        facts=Facts(
            name=f"{family}-{kind}",
            modality="image",
            licence="not stated",
            channels=3,
            max_tokens=keeps[-1],
            codebook_sizes=() if continuous else (4096,),
            latent_dim=12,
            keeps=keeps,
            is_adaptive=True,
            draws_noise=(family, base) != ("karl", "small-vqgan"),
        ),
        family=family,
        config=f"{family}_{kind.replace('-', '_')}.yaml",
        download=f"the README of https://github.com/ShivamDuggal4/{repository}",
        file=f"{family}_{base.replace('-', '_')}_{'continuous' if continuous else 'quantized'}_latents.pth",
        part="ema",
        allowed=("argparse.Namespace",),
        converter=family,
        notice="the repository has no licence file: ask the authors",
        paper=paper,
    )


def _karl(kind: str) -> Row:
    return _distilled("karl", kind, tuple(range(16, 513, 16)), "karl", "2507.07995")


def _alit(kind: str) -> Row:
    keeps = tuple(range(32, 257, 32))
    return _distilled("alit", kind, keeps, "adaptive-length-tokenizer", "2411.02393")


def _retok(size: str) -> Row:
    return Row(
        facts=Facts(
            name=f"retok-{size}",
            modality="image",
            licence="not stated",
            channels=3,
            max_tokens=256,
            codebook_sizes=(16384,),
            latent_dim=8,
            nested="tokens",
        ),
        family="retok",
        config=f"retok_{size}.yaml",
        download="the README of https://github.com/zfu006/ReTok",
        file=f"VQ_{size.upper()}_e250.pt",
        part="ema",
        converter="retok",
        notice="the repository has no licence file: ask the authors",
        paper="2601.01535",
    )


def _open_magvit2(name: str, bits: int, repo: str, file: str) -> Row:
    repo = f"TencentARC/Open-MAGVIT2-Tokenizer-{repo}"
    return _grid(f"open-magvit2-{name}", "open-magvit2", 2**bits, bits, repo, file, "2409.04410")


def _flextok(name: str, repo: str) -> Row:
    return Row(
        facts=Facts(
            name=f"flextok-{name}",
            modality="image",
            licence="apple-amlr",
            channels=3,
            max_tokens=256,
            codebook_sizes=(64000,),
            latent_dim=6,
            nested="tokens",
            draws_noise=True,
        ),
        family="flextok",
        config=f"flextok_{name.replace('-', '_')}.yaml",
        repo=f"EPFL-VILAB/flextok_{repo}",
        converter="flextok",
        notice="for non-commercial research only: Apple Machine Learning Research Model License Agreement",
        paper="2502.13967",
    )


ROWS = (
    Row(
        facts=Facts(
            name="pyramid-128",
            modality="image",
            licence="Apache-2.0",
            channels=3,
            max_tokens=376,
            codebook_sizes=(65536,),
            nested="tokens",
        ),
        family="pyramid",
        bundled="pyramid-128",
    ),
    _titok("titok-l32", 32, 4096, 12, "l32"),
    _titok("titok-b64", 64, 4096, 12, "b64"),
    _titok("titok-s128", 128, 4096, 12, "s128"),
    _titok("titok-bl64-vq8k", 64, 8192, 64, "bl64_vq8k"),
    _titok("titok-bl128-vq8k", 128, 8192, 64, "bl128_vq8k"),
    _titok("titok-sl256-vq8k", 256, 8192, 64, "sl256_vq8k"),
    _titok("titok-ll32-vae", 32, None, 16, "ll32_vae_c16"),
    _titok("titok-bl64-vae", 64, None, 16, "bl64_vae_c16"),
    _titok("titok-bl128-vae", 128, None, 16, "bl128_vae_c16"),
    *(_ta_titok(f"bl{tokens}", tokens, 8192) for tokens in (32, 64, 128)),
    *(_ta_titok(f"bl{tokens}", tokens, None) for tokens in (32, 64)),
    _ta_titok("sl128", 128, None),
    *(_one_d_piece(size) for size in ("s", "b", "l")),
    _kl16("mar-kl16", family="ldm-vae", paper="2406.11838"),
    _kl16("tokenbridge", family="tokenbridge", paper="2503.16430", codebook_sizes=(64,) * 16),
    _grid(
        "maskgit-vqgan",
        "maskgit-vqgan",
        1024,
        256,
        "fun-research/TiTok",
        "maskgit-vqgan-imagenet-f16-256.bin",
        "2202.04200",
    ),
    _llamagen("ds16", "FoundationVision/LlamaGen", "vq_ds16_c2i.pt"),
    _llamagen("ds8", "FoundationVision/LlamaGen", "vq_ds8_c2i.pt"),
    _llamagen("ds16-t2i", "peizesun/llamagen_t2i", "vq_ds16_t2i.pt"),
    *(_ibq(size, f"imagenet256_{size}.ckpt") for size in (1024, 8192, 16384, 262144)),
    *(_ibq(size, f"IBQ_pretrain_{size}.ckpt", "-pretrain") for size in (16384, 262144)),
    *(_elm_bae(bits) for bits in (16, 20, 24)),
    _open_magvit2("256", 18, "256-resolution", "imagenet_256_L.ckpt"),
    _open_magvit2("128", 18, "128-resolution", "imagenet_128_L.ckpt"),
    _open_magvit2("262144-pretrain", 18, "262144-Pretrain", "pretrain256_262144.ckpt"),
    _open_magvit2("16384-pretrain", 14, "16384-Pretrain", "pretrain256_16384.ckpt"),
    *(_retok(size) for size in ("sb256", "ss256")),
    *(_karl(f"small-{base}") for base in ("vqgan", "vqgan-continuous", "vae", "vae-continuous")),
    *(_alit(f"small-{base}") for base in ("vqgan", "vqgan-continuous", "vae", "vae-continuous")),
    *(_alit(f"{size}-vqgan") for size in ("base", "semilarge")),
    _flextok("d12-d12", "d12_d12_in1k"),
    _flextok("d18-d18", "d18_d18_in1k"),
    _flextok("d18-d28", "d18_d28_in1k"),
    _flextok("d18-d28-dfn", "d18_d28_dfn"),
    Row(
        facts=Facts(
            name="seed-2",
            modality="image",
            licence="Apache-2.0",
            channels=3,
            max_tokens=32,
            codebook_sizes=(8192,),
            latent_dim=32,
            draws_noise=True,
        ),
        family="seed",
        config="seed_2.yaml",
        repo="AILab-CVC/seed-tokenizer-2",
        file="seed_quantizer.pt",
        converter="seed",
        notice="the pipeline that paints has a licence of its own: stabilityai/stable-diffusion-2-1-unclip",
        paper="2310.01218",
    ),
)
