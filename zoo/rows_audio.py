"""The rows of the catalogue that are tokenizers of sound."""

from __future__ import annotations

from dataclasses import replace

from .facts import Facts
from .row import Row


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


def _s3tokenizer(version: str, token_rate_hz: int, repo: str | None, paper: str) -> Row:
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
        repo=repo,
        download=None
        if repo
        else "https://www.modelscope.cn/models/iic/CosyVoice-300M-25Hz (speech_tokenizer_v1.onnx)",
        file=f"speech_tokenizer_{version}.onnx",
        converter="s3tokenizer",
        notice="v3 is unverified: see audio/s3.py" if version == "v3" else None,
        paper=paper,
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


ROWS = (
    Row(
        facts=Facts(
            name="harmonic-16khz",
            modality="audio",
            licence="Apache-2.0",
            sample_rate_hz=16_000,
            channels=1,
            token_rate_hz=50.0,
            codebook_sizes=(1024,) * 4,
            latent_dim=64,
            nested="codebooks",
        ),
        family="harmonic",
        bundled="harmonic-16khz",
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
    Row(
        facts=Facts(
            name="lm-spt-12hz",
            modality="audio",
            licence="CC-BY-NC-4.0",
            sample_rate_hz=24_000,
            channels=1,
            token_rate_hz=12.5,
            codebook_sizes=(16384,) + (4096,) * 7,
            latent_dim=8,
            roles=("semantic",) + ("acoustic",) * 7,
            nested="codebooks",
        ),
        family="lm-spt",
        config="lm_spt_12hz.yaml",
        repo="kakaocorp/lmspt",
        file="lmspt_12d5hz_16384_4096.safetensors",
        converter="lm-spt",
        notice="for non-commercial use only; unproved: no official tensor was ever seen here, compare first",
        paper="2506.16738",
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
    _s3tokenizer("v1", 50, "FunAudioLLM/CosyVoice-300M", "2407.05407"),
    _s3tokenizer("v1", 25, None, "2407.05407"),
    _s3tokenizer("v2", 25, "FunAudioLLM/CosyVoice2-0.5B", "2412.10117"),
    _s3tokenizer("v3", 25, "FunAudioLLM/Fun-CosyVoice3-0.5B-2512", "2505.17589"),
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
