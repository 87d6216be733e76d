"""The catalogue is data: lazy, without torch, and helpful about names."""

import subprocess
import sys

import pytest

import tokenzoo
from tokenzoo import NeuralTokenizer
from tokenzoo.zoo import catalogue, loading
from tokenzoo.zoo.tokenizer import Tokenizer

from .cases import check_parts

OFFICIAL = {
    "titok-l32": "yucornetto/tokenizer_titok_l32_imagenet",
    "titok-b64": "yucornetto/tokenizer_titok_b64_imagenet",
    "titok-s128": "yucornetto/tokenizer_titok_s128_imagenet",
    "titok-bl64-vq8k": "yucornetto/tokenizer_titok_bl64_vq8k_imagenet",
    "titok-bl128-vq8k": "yucornetto/tokenizer_titok_bl128_vq8k_imagenet",
    "titok-sl256-vq8k": "yucornetto/tokenizer_titok_sl256_vq8k_imagenet",
    "titok-ll32-vae": "yucornetto/tokenizer_titok_ll32_vae_c16_imagenet",
    "titok-bl64-vae": "yucornetto/tokenizer_titok_bl64_vae_c16_imagenet",
    "titok-bl128-vae": "yucornetto/tokenizer_titok_bl128_vae_c16_imagenet",
    "one-d-piece-s-256": "turing-motors/One-D-Piece-S-256",
    "one-d-piece-b-256": "turing-motors/One-D-Piece-B-256",
    "one-d-piece-l-256": "turing-motors/One-D-Piece-L-256",
}


def test_importing_it_imports_neither_torch_nor_a_family() -> None:
    code = (
        "import sys; from tokenzoo.zoo import catalogue; "
        "facts = [row.facts for row in catalogue.rows()]; catalogue.names('image'); "
        "catalogue.find('bytes'); "
        "heavy = {'torch', 'numpy', 'yaml', 'PIL', 'lightning', 'huggingface_hub', 'safetensors'}; "
        "ours = [n for n in sys.modules if n.split('.')[1:2] in (['image'], ['text'], ['audio'])]; "
        "print(len(facts) > 12, sorted(heavy & set(sys.modules)), ours)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "True [] []"


def test_names() -> None:
    assert tokenzoo.names() == catalogue.names() == [row.name for row in catalogue.rows()]
    assert "bytes" in catalogue.names("text") and set(OFFICIAL) <= set(catalogue.names("image"))
    assert catalogue.names("audio") == [row.name for row in catalogue.rows() if row.facts.modality == "audio"]


def test_no_two_rows_share_a_name_or_a_file() -> None:
    names = [row.name.lower() for row in catalogue.rows()]
    files = [(row.repo.lower(), row.file) for row in catalogue.rows() if row.repo]
    assert len(set(names)) == len(names) and len(set(files)) == len(files)
    assert not any("/" in name or "@" in name for name in names)


@pytest.mark.parametrize(("name", "repo"), OFFICIAL.items())
def test_official_models_have_a_short_name_and_their_own_id(name: str, repo: str) -> None:
    row = catalogue.find(name)
    assert row is not None and row.repo == repo
    assert catalogue.find(repo) is row


def test_unknown_names_get_the_list() -> None:
    assert catalogue.find("titok-l33") is None
    with pytest.raises(
        ValueError, match=r"unknown tokenizer 'titok-l33'; did you mean titok-l32 .*; or give a Hub id"
    ):
        tokenzoo.load("titok-l33")
    with pytest.raises(ValueError, match=r"unknown tokenizer_type 'gan'; known: .*bytes, "):
        catalogue.family("gan")
    with pytest.raises(ValueError, match="bytes is built in and has no revision; leave revision out"):
        tokenzoo.load("bytes", revision="main")
    with pytest.raises(ValueError, match="bytes is built in and has no revision"):
        tokenzoo.load("bytes@main")


@pytest.mark.parametrize("kind", sorted({row.family for row in catalogue.rows()}))
def test_families_are_tokenizers_with_a_configuration(kind: str) -> None:
    family = catalogue.family(kind)
    assert issubclass(family, Tokenizer)
    assert family.config_type.tokenizer_type == kind  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("key", sorted(catalogue.CONVERTERS))
def test_converters_recognise_and_convert(key: str) -> None:
    module = catalogue.converter(key)
    assert callable(module.recognise) and callable(module.convert_config) and callable(module.convert_names)
    assert module.TOKENIZER_TYPE in catalogue.FAMILIES
    assert not module.recognise({}, {})


def test_the_bundled_default_is_in_the_catalogue() -> None:
    for modality, name in catalogue.DEFAULT.items():
        row = catalogue.find(name)
        assert row is not None, f"{name} has no row"
        assert row.facts.modality == modality and row.bundled is not None


@pytest.mark.parametrize("name", catalogue.names())
def test_the_row_states_the_facts_of_its_configuration(name: str) -> None:
    row = catalogue.find(name)
    assert row is not None and row.name == name
    stated = loading.without_identity(row.facts)
    if row.config is None:
        loaded = tokenzoo.load(name)
        assert stated == loading.without_identity(loaded.facts)
        return
    kind, fields = loading.read_yaml(row.config)
    assert kind == row.family
    built = loading.build(kind, fields)
    assert stated == loading.without_identity(built.facts)
    if stated.modality == "image":
        assert built.preprocess.size is not None  # pyright: ignore[reportFunctionMemberAccess]
    if isinstance(built, NeuralTokenizer):
        assert {parameter.device.type for parameter in built.parameters()} == {"meta"}
        assert not list(set(dict(built.named_buffers())) - set(built.state_dict()))
        assert not built.training
        check_parts(built)


@pytest.mark.parametrize("name", catalogue.names())
def test_the_row_says_what_loads_and_on_what_terms(name: str) -> None:
    row = catalogue.find(name)
    assert row is not None and row.facts.licence
    assert row.family in catalogue.FAMILIES
    assert row.converter is None or row.converter in catalogue.CONVERTERS
    assert row.facts.revision is None and row.facts.fingerprint is None
    if row.repo is not None:
        first = next(other for other in catalogue.rows() if other.repo == row.repo)
        assert catalogue.find(row.repo) is catalogue.find(row.repo.upper()) is first
