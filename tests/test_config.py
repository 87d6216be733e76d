"""Configurations go to plain values and come back; hostile ones raise ValueError and nothing else."""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzoo.zoo import catalogue, loading
from tokenzoo.zoo.config import Config, check_range
from tokenzoo.zoo.facts import Facts


@dataclass(frozen=True)
class Part:
    width: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_range("width", self.width, 1, 1024)


@dataclass(frozen=True)
class Sample(Config):
    """A configuration with a field of every kind."""

    tokenizer_type: ClassVar[str] = "sample"

    part: Part
    name: str = "x"
    kind: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = ()
    pair: tuple[int, str] = (1, "one")
    spare: Part | None = None
    parts: tuple[Part, ...] = ()
    limit: int | None = None
    share: float = 0.5
    flag: bool = False

    def facts(self) -> Facts:
        return Facts(name=self.name, modality="image")


FULL = Sample(
    Part(3, 0.5), "y", "b", (4, 5), (2, "two"), spare=Part(7), parts=(Part(1), Part(2)), limit=9, flag=True
)


@pytest.mark.parametrize("config", [Sample(Part(1)), FULL])
def test_configurations_survive_json(config: Sample) -> None:
    plain = json.loads(json.dumps(config.to_dict()))
    assert Sample.from_dict(plain) == config
    assert Sample.from_dict(config.to_dict()).to_dict() == config.to_dict()


def test_what_is_left_out_stands_at_its_default() -> None:
    assert Sample.from_dict({"part": {"width": 1}}) == Sample(Part(1))
    converted = Sample.from_dict({"part": {"width": 1, "scale": 2}, "share": 1})
    assert type(converted.part.scale) is float and type(converted.share) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "Sample has no field colour; known: part, name"),
        ({3: 1}, "Sample has no field 3"),
        ({"part": {}}, r"Sample\.part lacks width"),
        (
            {"part": {"width": 1, "_target_": "os.system"}},
            r"Sample\.part has no field _target_; known: width, scale",
        ),
        ({"part": 3}, r"Sample\.part is 3: expected a mapping of fields"),
        ({"part": None}, r"Sample\.part is None: expected a mapping"),
        ({"part": {"width": "3"}}, r"Sample\.part\.width is '3': expected int"),
        ({"part": {"width": 3.0}}, r"Sample\.part\.width is 3\.0: expected int"),
        ({"part": {"width": True}}, r"Sample\.part\.width is True: expected int"),
        ({"part": {"width": 10**12}}, r"width=1000000000000: expected 1 \.\.\. 1024"),
        ({"part": {"width": 10**4000}}, r"width=1000.*000: expected 1 \.\.\. 1024"),
        ({"part": {"width": 1, "scale": 10**400}}, r"Sample\.part\.scale is 1000.*: expected float"),
        ({"part": {"width": 1, "scale": True}}, "scale is True: expected float"),
        ({"kind": "c"}, r"Sample\.kind is 'c': expected one of 'a', 'b'"),
        ({"kind": ["a"]}, r"Sample\.kind is \['a'\]"),
        ({"sizes": 4}, r"Sample\.sizes is 4: expected a list"),
        ({"sizes": "45"}, r"Sample\.sizes is '45': expected a list"),
        ({"sizes": [4, None]}, r"Sample\.sizes is None: expected int"),
        ({"pair": [1]}, r"Sample\.pair has 1 entries: expected 2"),
        ({"pair": ["one", 1]}, r"Sample\.pair is 'one': expected int"),
        ({"spare": []}, r"Sample\.spare is \[\]: expected a mapping"),
        ({"parts": [{"width": 0}]}, r"width=0: expected 1 \.\.\. 1024"),
        ({"limit": "none"}, r"Sample\.limit is 'none': expected int"),
        ({"flag": 1}, r"Sample\.flag is 1: expected bool"),
        ({"name": None}, r"Sample\.name is None: expected str"),
    ],
)
def test_hostile_entries_are_named(change: dict[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Sample.from_dict({"part": {"width": 1}} | change)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("values", [None, 3, "part", [["part", 1]], {}])
def test_what_is_no_configuration(values: Any) -> None:
    with pytest.raises(ValueError, match=r"Sample (is .*: expected a mapping|lacks part)"):
        Sample.from_dict(values)


def test_a_huge_entry_is_not_repeated_in_the_message() -> None:
    with pytest.raises(ValueError, match="expected a mapping") as caught:
        Sample.from_dict({"part": ["x" * 100_000] * 10})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 11])
def test_check_range(value: float) -> None:
    with pytest.raises(ValueError, match=r"x=.*: expected 0 \.\.\. 10"):
        check_range("x", value, 0, 10)
    check_range("x", 10, 0, 10)


FAMILIES = {row.family: row.config for row in catalogue.rows() if row.config}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_families_of_the_catalogue_survive_json(family: str) -> None:
    kind, values = loading.read_yaml(FAMILIES[family] or "")
    config_type = catalogue.family(kind).config_type  # pyright: ignore[reportAttributeAccessIssue]
    config = config_type.from_dict(values)
    assert config_type.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert hash(config) == hash(config_type.from_dict(values))


# Free text, which is looked up and asks for nothing; and lists that may be empty.
FREE = {
    "x": ("repo", "weights", "revision", "encoder_repo"),
    "[]": ("attention", "encoder_attention", "decoder_attention"),
}
HUGE = (-1, 10**15, 10**400, float("nan"), float("inf"), 1e300, [], {}, "x", [10**9] * 3)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("hostile", HUGE, ids=[f"{value!r:.12}" for value in HUGE])
def test_no_entry_of_a_family_asks_for_a_terabyte(family: str, hostile: Any) -> None:
    kind, values = loading.read_yaml(FAMILIES[family] or "")
    config_type: Any = catalogue.family(kind).config_type  # pyright: ignore[reportAttributeAccessIssue]

    def spoil(entries: dict[str, Any], build: Callable[[dict[str, Any]], Any]) -> None:
        for name in entries:
            if isinstance(entries[name], dict):
                spoil(entries[name], lambda inner, name=name: build({**entries, name: inner}))
            # An empty mapping may stand for a part that is all defaults.
            is_part = hostile == {} and isinstance(entries[name], dict)
            if not is_part and name not in FREE.get(str(hostile), ()):
                with pytest.raises(ValueError, match=r".+"):
                    build({**entries, name: hostile})

    spoil(config_type.from_dict(values).to_dict(), config_type.from_dict)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["width", "scale", "x"]), inner)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([field.name for field in fields(Sample)]), _json))
def test_from_dict_raises_value_errors_only(values: dict[str, Any]) -> None:
    try:
        config = Sample.from_dict(values)
    except ValueError:
        return
    plain = json.loads(json.dumps(config.to_dict()))
    assert json.dumps(Sample.from_dict(plain).to_dict()) == json.dumps(plain)
