"""The catalogue: every tokenizer that loads by name, as data. Importing it imports no torch.

To add one: its file, its class in FAMILIES and a row here, one yaml in configs/. CONTRIBUTING.md has the
steps, and tests/test_catalogue.py finds it by itself.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .facts import Facts

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

# tokenizer_type of a config.json -> where its class lives. A class path in a config is never followed.
FAMILIES = {
    "alit": "image.alit:Alit",
    "bigcodec": "audio.bigcodec:BigCodec",
    "bytes": "text.bytes:ByteTokenizer",
    "dac": "audio.dac:Dac",
    "flextok": "image.flextok:FlexTok",
    "elm-bae": "image.elm_bae:ElmBae",
    "encodec": "audio.encodec:Encodec",
    "ibq": "image.ibq:Ibq",
    "karl": "image.karl:Karl",
    "ldm-vae": "image.ldm_vae:LdmVae",
    "llamagen": "image.llamagen:LlamaGenVq",
    "matryoshka": "image.matryoshka:Matryoshka",
    "mimi": "audio.mimi:Mimi",
    "open-magvit2": "image.open_magvit2:OpenMagvit2",
    "pyramid": "image.pyramid:PyramidTokenizer",
    "retok": "image.retok:ReTok",
    "segmented": "text.segmented:SegmentedTokenizer",
    "s3tokenizer": "audio.s3:S3Tokenizer",
    "seed": "image.seed:Seed",
    "snac": "audio.snac:Snac",
    "speechtokenizer": "audio.speechtokenizer:SpeechTokenizer",
    "ta-titok": "image.ta_titok:TaTiTok",
    "text": "text.plain:PlainTokenizer",
    "textok": "image.textok:TexTok",
    "titok": "image.titok:TiTok",
    "token-shuffle": "image.token_shuffle:TokenShuffle",
    "tokenbridge": "image.tokenbridge:TokenBridge",
    "tokenflex": "image.tokenflex:TokenFlex",
    "units": "audio.units:Units",
    "visual-transformer": "image.visual_transformer:VisualTransformer",
    "wavtokenizer": "audio.wavtokenizer:WavTokenizer",
    "xcodec2": "audio.xcodec2:XCodec2",
}

# Converters of official layouts: modules of `checkpoints` with recognise() and convert().
CONVERTERS = {
    "alit": "convert_alit",
    "bigcodec": "convert_bigcodec",
    "dac": "convert_dac",
    "flextok": "convert_flextok",
    "elm-bae": "convert_elm_bae",
    "encodec": "convert_encodec",
    "ibq": "convert_ibq",
    "karl": "convert_karl",
    "ldm-vae": "convert_ldm_vae",
    "llamagen": "convert_llamagen",
    "mimi": "convert_mimi",
    "open-magvit2": "convert_open_magvit2",
    "retok": "convert_retok",
    "s3tokenizer": "convert_s3",
    "seed": "convert_seed",
    "snac": "convert_snac",
    "speechtokenizer": "convert_speechtokenizer",
    "ta-titok": "convert_ta_titok",
    "titok": "convert_titok",
    "wavtokenizer": "convert_wavtokenizer",
    "xcodec2": "convert_xcodec2",
}

DEFAULT = {"image": "pyramid-128", "text": "bpe-40k"}


@dataclass(frozen=True)
class Row:
    """One tokenizer of the catalogue.

    facts      all but identity; tests/test_catalogue.py compares them with the model's own
    family     key of FAMILIES
    config     file in configs/ that holds the model's configuration, or None when it needs none
    repo       Hub id of the official weights
    download   where they are published, when not on the Hub; `tokenzoo convert FILE --like NAME` reads them
    file       weights file there; a `.bin` is a pickle, read once with weights_only and cached as safetensors,
               an `.onnx` is read once, without the onnx package, likewise
    part       dotted keys that lead to the weights in a pickle that holds more; "" if all it holds are weights
    allowed    names of the classes that a pickle holds beside the weights; none is imported
    converter  key of CONVERTERS when the layout is not ours
    bundled    folder in checkpoints/bundled/ when the weights ship with the package
    notice     what a user must know of the licence, shown on load
    paper      arXiv number
    """

    facts: Facts
    family: str
    config: str | None = None
    repo: str | None = None
    download: str | None = None
    file: str = "model.safetensors"
    part: str | None = None
    allowed: tuple[str, ...] = ()
    converter: str | None = None
    bundled: str | None = None
    notice: str | None = None
    paper: str | None = None

    @property
    def name(self) -> str:
        return self.facts.name


def _bundled_text(name: str, paper: str) -> Row:
    return Row(
        facts=Facts(
            name=name,
            modality="text",
            licence="Apache-2.0",
            codebook_sizes=(40960,),
            is_adaptive=True,
            is_lossless=True,
        ),
        family="text",
        bundled=name,
        paper=paper,
    )


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


def _encodec(khz: int, channels: int, codebooks: int) -> Row:
    name = f"encodec-{khz}khz"
    return Row(
        facts=Facts(
            name=name,
            modality="audio",
            licence="MIT",
            sample_rate_hz=1000 * khz,
            channels=channels,
            token_rate_hz=1000 * khz / 320,
            codebook_sizes=(1024,) * codebooks,
            latent_dim=128,
            nested="codebooks",
            is_causal=channels == 1,
        ),
        family="encodec",
        config=f"{name.replace('-', '_')}.yaml",
        repo=f"facebook/encodec_{khz}khz",
        converter="encodec",
        notice="the code is MIT; whether the weights are, the authors left open: facebookresearch/encodec#69",
        paper="2210.13438",
    )


def _dac(kind: str, rate_hz: int, hop_samples: int, codebooks: int) -> Row:
    name = f"dac-{kind}"
    return Row(
        facts=Facts(
            name=name,
            modality="audio",
            licence="MIT",
            sample_rate_hz=rate_hz,
            channels=1,
            token_rate_hz=rate_hz / hop_samples,
            codebook_sizes=(1024,) * codebooks,
            latent_dim=8,
            nested="codebooks",
        ),
        family="dac",
        config=f"{name.replace('-', '_')}.yaml",
        repo=f"descript/dac_{kind}",
        converter="dac",
        paper="2306.06546",
    )


def _snac(khz: int, rate_hz: int, hop_samples: int, keeps: tuple[int, ...]) -> Row:
    return Row(
        facts=Facts(
            name=f"snac-{khz}khz",
            modality="audio",
            licence="MIT",
            sample_rate_hz=rate_hz,
            channels=1,
            token_rate_hz=rate_hz / hop_samples,
            codebook_sizes=(4096,) * keeps[-1],
            latent_dim=8,
            nested="codebooks",
            keeps=keeps,
            draws_noise=True,
        ),
        family="snac",
        config=f"snac_{khz}khz.yaml",
        repo=f"hubertsiuzdak/snac_{khz}khz",
        file="pytorch_model.bin",
        converter="snac",
        paper="2410.14411",
    )


def _speechtokenizer(kind: str, repo: str, file: str) -> Row:
    name = f"speechtokenizer-{kind}"
    return Row(
        facts=Facts(
            name=name,
            modality="audio",
            licence="Apache-2.0",
            sample_rate_hz=16_000,
            channels=1,
            token_rate_hz=50.0,
            codebook_sizes=(1024,) * 8,
            latent_dim=1024,
            roles=("semantic",) + ("acoustic",) * 7,
            nested="codebooks",
        ),
        family="speechtokenizer",
        config=f"{name.replace('-', '_')}.yaml",
        repo=repo,
        file=file,
        converter="speechtokenizer",
        paper="2308.16692",
    )


def _wavtokenizer(kind: str, repo: str, file: str) -> Row:
    name = f"wavtokenizer-{kind}"
    return Row(
        facts=Facts(
            name=name,
            modality="audio",
            licence="MIT",
            sample_rate_hz=24_000,
            channels=1,
            token_rate_hz=24_000 / int(kind.rpartition("-")[2]),
            codebook_sizes=(4096,),
            latent_dim=512,
        ),
        family="wavtokenizer",
        config=f"{name.replace('-', '_')}.yaml",
        repo=f"novateur/WavTokenizer{repo}",
        file=file,
        part="state_dict",
        converter="wavtokenizer",
        paper="2408.16532",
    )


def _s3tokenizer(version: str, token_rate_hz: int, where: dict[str, str], paper: str) -> Row:
    name = f"s3tokenizer-{version}-{token_rate_hz}hz"
    return Row(
        facts=Facts(
            name=name,
            modality="audio",
            licence="Apache-2.0",
            sample_rate_hz=16_000,
            channels=1,
            token_rate_hz=float(token_rate_hz),
            codebook_sizes=(4096 if version == "v1" else 3**8,),
            latent_dim=1280 if version == "v1" else 8,
            roles=("semantic",),
            has_decoder=False,
        ),
        family="s3tokenizer",
        config=f"{name.replace('-', '_')}.yaml",
        file=f"speech_tokenizer_{version}.onnx",
        converter="s3tokenizer",
        notice="v3 is unverified: see audio/s3.py" if version == "v3" else None,
        paper=paper,
        **where,
    )


def _units(encoder: str, layer: int, codes: int, centres: str, licence: str, paper: str) -> Row:
    name = f"{encoder}-l{layer}-km{codes}"
    return Row(
        facts=Facts(
            name=name,
            modality="audio",
            licence=licence,
            sample_rate_hz=16_000,
            channels=1,
            token_rate_hz=50.0,
            codebook_sizes=(codes,),
            latent_dim=768,
            roles=("semantic",),
            has_decoder=False,
        ),
        family="units",
        config=f"{name.replace('-', '_')}.yaml",
        download=f"https://dl.fbaipublicfiles.com/{centres} (a joblib pickle, which is not read: export its "
        "centres to FILE.npy as the docstring of tokenzoo.audio.units shows)",
        notice="the centres are fairseq's, whose code is MIT",
        paper=paper,
    )


_ROWS = (
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
    Row(
        facts=Facts(
            name="bytes",
            modality="text",
            licence="Apache-2.0",
            codebook_sizes=(256,),
            is_causal=True,
            is_lossless=True,
        ),
        family="bytes",
    ),
    _bundled_text("bpe-40k", "1508.07909"),
    _bundled_text("superbpe-40k", "2503.13423"),
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
    _encodec(24, channels=1, codebooks=32),
    _encodec(48, channels=2, codebooks=16),
    Row(
        facts=Facts(
            name="mimi",
            modality="audio",
            licence="CC-BY-4.0",
            sample_rate_hz=24_000,
            channels=1,
            token_rate_hz=12.5,
            codebook_sizes=(2048,) * 32,
            latent_dim=512,
            roles=("semantic",) + ("acoustic",) * 31,
            nested="codebooks",
            is_causal=True,
        ),
        family="mimi",
        config="mimi.yaml",
        repo="kyutai/mimi",
        converter="mimi",
        paper="2410.00037",
    ),
    _dac("16khz", 16_000, 320, codebooks=12),
    _dac("24khz", 24_000, 320, codebooks=32),
    _dac("44khz", 44_100, 512, codebooks=9),
    replace(
        _dac("44khz-16kbps", 44_100, 512, codebooks=18),
        repo=None,
        download="https://github.com/descriptinc/descript-audio-codec/releases/tag/1.0.0",
        file="weights_44khz_16kbps.pth",
    ),
    _snac(24, 24_000, 2048, keeps=(1, 3, 7)),
    _snac(32, 32_000, 3072, keeps=(1, 3, 7, 15)),
    _snac(44, 44_100, 3072, keeps=(1, 3, 7, 15)),
    _speechtokenizer("hubert-avg", "fnlp/SpeechTokenizer", "speechtokenizer_hubert_avg/SpeechTokenizer.pt"),
    _speechtokenizer("snake", "fnlp/AnyGPT-speech-modules", "speechtokenizer/ckpt.dev"),
    _wavtokenizer("small-600", "", "WavTokenizer_small_600_24k_4096.ckpt"),
    _wavtokenizer("small-320", "", "WavTokenizer_small_320_24k_4096.ckpt"),
    _wavtokenizer("medium-320", "-medium-speech-75token", "wavtokenizer_medium_speech_320_24k_v2.ckpt"),
    _wavtokenizer("large-600", "-large-unify-40token", "wavtokenizer_large_unify_600_24k.ckpt"),
    _wavtokenizer("large-320", "-large-speech-75token", "wavtokenizer_large_speech_320_v2.ckpt"),
    Row(
        facts=Facts(
            name="bigcodec",
            modality="audio",
            licence="MIT",
            sample_rate_hz=16_000,
            channels=1,
            token_rate_hz=80.0,
            codebook_sizes=(8192,),
            latent_dim=8,
        ),
        family="bigcodec",
        config="bigcodec.yaml",
        repo="Alethia/BigCodec",
        file="bigcodec.pt",
        part="",
        converter="bigcodec",
        paper="2409.05377",
    ),
    Row(
        facts=Facts(
            name="xcodec2",
            modality="audio",
            licence="CC-BY-NC-4.0",
            sample_rate_hz=16_000,
            channels=1,
            token_rate_hz=50.0,
            codebook_sizes=(65536,),
            latent_dim=8,
        ),
        family="xcodec2",
        config="xcodec2.yaml",
        repo="HKUSTAudio/xcodec2",
        converter="xcodec2",
        notice="for non-commercial use only; the w2v-BERT inside is facebook/w2v-bert-2.0, MIT",
        paper="2502.04128",
    ),
    _s3tokenizer("v1", 50, {"repo": "FunAudioLLM/CosyVoice-300M"}, "2407.05407"),
    _s3tokenizer(
        "v1",
        25,
        {"download": "https://www.modelscope.cn/models/iic/CosyVoice-300M-25Hz (speech_tokenizer_v1.onnx)"},
        "2407.05407",
    ),
    _s3tokenizer("v2", 25, {"repo": "FunAudioLLM/CosyVoice2-0.5B"}, "2412.10117"),
    _s3tokenizer("v3", 25, {"repo": "FunAudioLLM/Fun-CosyVoice3-0.5B-2512"}, "2505.17589"),
    *(
        _units(
            "hubert-base", 6, codes, f"textless_nlp/gslm/hubert/km{codes}/km.bin", "Apache-2.0", "2102.01192"
        )
        for codes in (50, 100, 200)
    ),
    _units("hubert-base", 9, 500, "hubert/hubert_base_ls960_L9_km500.bin", "Apache-2.0", "2106.07447"),
    _units(
        "mhubert-base",
        11,
        1000,
        "hubert/mhubert_base_vp_en_es_fr_it3_L11_km1000.bin",
        "not stated",
        "2112.08352",
    ),
)
_BY_NAME = {row.name: row for row in _ROWS}
# Of several files in one repository the first row counts.
_BY_REPO = {row.repo.lower(): row for row in reversed(_ROWS) if row.repo}


def names(modality: str | None = None) -> list[str]:
    """Names that `tokenzoo.load` takes, in the order of the catalogue."""
    return [row.name for row in _ROWS if modality in (None, row.facts.modality)]


def rows() -> tuple[Row, ...]:
    """The catalogue."""
    return _ROWS


def find(name: str) -> Row | None:
    """The row of a short name or of an official Hub id; None when there is none."""
    return _BY_NAME.get(name) or _BY_REPO.get(name.lower())


def family(tokenizer_type: str) -> type[Tokenizer]:
    """The class of a family; imports its module. ValueError for an unknown type."""
    if tokenizer_type not in FAMILIES:
        raise ValueError(f"unknown tokenizer_type {tokenizer_type!r}; known: {', '.join(FAMILIES)}")
    module, name = FAMILIES[tokenizer_type].split(":")
    return getattr(importlib.import_module(f"..{module}", __package__), name)


def converter(key: str):
    """The converter module of an official layout."""
    return importlib.import_module(f"..checkpoints.{CONVERTERS[key]}", __package__)
