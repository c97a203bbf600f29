import re
from typing import Annotated, Literal

import pytest
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from kikitori.errors import ConfigError
from kikitori.io.config import MAX_DEPTH, MAX_YAML_BYTES, did_you_mean, merge_yaml, validate

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, config=STRICT)
class Circle:
    kind: Literal["circle"]
    radius: float = 1.0

    def __post_init__(self) -> None:
        if self.radius < 0:
            raise ValueError("radius is negative")


@dataclass(frozen=True, config=STRICT)
class Square:
    kind: Literal["square"]
    side: float = 1.0


@dataclass(frozen=True, config=STRICT)
class Item:
    path: str
    repeat: int = 1


@dataclass(frozen=True, config=STRICT)
class Section:
    size: int = 3
    items: list[Item] = Field(default_factory=list)
    weights: dict[int, float] = Field(default_factory=dict)
    pair: tuple[float, float] = (1.0, 2.0)


@dataclass(frozen=True, config=STRICT)
class Schema:
    name: str = "x"
    rate: float = 0.5
    section: Section = Field(default_factory=Section)
    maybe: Item | None = None
    shape: Annotated[Circle | Square, Field(discriminator="kind")] = Field(
        default_factory=lambda: Circle(kind="circle")
    )


@pytest.fixture
def load(tmp_path):
    def load(text, *overrides):
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return validate(Schema, merge_yaml(path, overrides), str(path))

    return load


def test_values_and_defaults(load):
    config = load(
        "rate: 1e-3\nsection: {size: 4, items: [{path: a}], weights: {6: 1}, pair: [1, 2.5]}\nshape: {kind: square}"
    )
    assert config == Schema(
        rate=1e-3,
        section=Section(size=4, items=[Item(path="a")], weights={6: 1.0}, pair=(1.0, 2.5)),
        shape=Square(kind="square"),
    )
    assert load("") == load("# nothing\n") == load("{}") == validate(Schema, merge_yaml(None), "overrides") == Schema()


def test_a_base_gives_the_sections_that_are_not_there(load, tmp_path):
    (tmp_path / "bases").mkdir()
    base = tmp_path / "bases" / "base.yaml"
    base.write_text("name: base\nrate: 0.25\nsection: {size: 4, pair: [3, 4]}\nmaybe: {path: '${name}'}")
    config = load("base: bases/base.yaml\nname: row\nsection: {size: 5}", "rate=0.75")
    assert config == Schema(name="row", rate=0.75, section=Section(size=5), maybe=Item(path="row"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: nowhere.yaml", "nowhere.yaml: no such file"),
        ("base: 3", "recipe.yaml: base: the base must be the path of a file"),
        ("base: recipe.yaml", "recipe.yaml: a base cannot have a base; write its sections out"),
    ],
)
def test_bad_bases(load, text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load(text)


def test_overrides_and_interpolation(load):
    config = load(
        "name: ${section.size}!\nsection: {size: 4}", "section.size=5", "maybe.path=a=b", "section.pair=[3, 4]"
    )
    assert (config.name, config.section.size, config.section.pair) == ("5!", 5, (3.0, 4.0))
    assert config.maybe == Item(path="a=b")
    config = load(
        "section: {items: [{path: a, repeat: 3}, {path: b}]}", "section.items.0.path=c", "section.items[1].path=d"
    )
    assert config.section.items == [Item(path="c", repeat=3), Item(path="d")]
    assert merge_yaml(None, ["maybe={path: q}", "name=a=b="]) == {"maybe": {"path": "q"}, "name": "a=b="}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmae: y", "nmae: unexpected key; did you mean 'name'?"),
        ("zzzzz: y", "zzzzz: unexpected key; known keys: name, rate, section, maybe, shape"),
        ("section: {sise: 1}", "section.sise: unexpected key; did you mean 'size'?"),
        (
            "section: {items: [{path: a}, {path: b, repaet: 2}]}",
            "section.items.1.repaet: unexpected key; did you mean 'repeat'?",
        ),
        ("maybe: {path: a, repaet: 2}", "maybe.repaet: unexpected key; did you mean 'repeat'?"),
        ("maybe: {paht: a}", "maybe.paht: unexpected key (and 1 more); did you mean 'path'?"),
        ("shape: {kind: circle, raduis: 2}", "shape.raduis: unexpected key; did you mean 'radius'?"),
        ("shape: {kind: circle, circle: 2}", "shape.circle: unexpected key; known keys: kind, radius"),
        ("shape: {kind: square, radius: 2}", "shape.radius: unexpected key; known keys: kind, side"),
        ("shape: {kind: circle, radius: -2}", "shape: radius is negative"),
        ("shape: {kind: blob}", "shape: Input tag 'blob' found using 'kind' does not match any"),
        ("shape: {radius: 2}", "shape: Unable to extract tag using discriminator 'kind'"),
        ("maybe: {repeat: 2}", "maybe.path: required key is missing"),
        ("section: {size: many}", "section.size: Input should be a valid integer (got 'many')"),
        ("section: {size: 1.5}", "section.size: Input should be a valid integer"),
        ("section: {size: true}", "section.size: Input should be a valid integer"),
        ("section: {size: '3'}", "section.size: Input should be a valid integer"),
        ("section: 3", "section: Input should be an object (got 3)"),
        ("section: {weights: {a: 1}}", "section.weights.a: Input should be a valid integer"),
        ("section: {pair: [1]}", "section.pair.1: required key is missing"),
        ("name: 3", "name: Input should be a valid string (got 3)"),
        ("name: [a, b]", "name: Input should be a valid string"),
        ("rate: .nan", "rate: Input should be a finite number (got nan)"),
        ("rate: .inf", "rate: Input should be a finite number (got inf)"),
        ("nmae: y\nrtae: 1", "nmae: unexpected key (and 1 more); did you mean 'name'?"),
    ],
)
def test_misfits_name_the_key(load, text, message):
    with pytest.raises(ConfigError, match=re.escape(f"recipe.yaml: {message}")) as caught:
        load(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [a", "expected ',' or ']', line 2)"),
        ("name:\n\t- a", "cannot be read as YAML"),
        ("name: a\nname: b", "cannot be read as YAML (found duplicate key name, line 2)"),
        ("name: a\n---\nname: b", "cannot be read as YAML (found another document, line 2)"),
        ("name: \0", "cannot be read as YAML (unacceptable character"),
        ("name: ${nope}", "cannot be read as YAML (Interpolation key 'nope' not found)"),
        ("name: ${name}", "cannot be read as YAML"),
        ("name: ???", "cannot be read as YAML (Missing mandatory value: name)"),
        ("name: é".encode("latin-1"), "not a UTF-8 text file"),
        ("- a\n- b", "the top level must be a mapping"),
        ("[a, b]", "the top level must be a mapping"),
        ("hello", "the top level must be a mapping"),
        ("3", "the top level must be a mapping"),
        ("name: !!binary aGVsbG8=", "YAML tags are not supported"),
        ("name: !!python/object/apply:os.system ['true']", "YAML tags are not supported"),
        ("section: !!set {b}", "YAML tags are not supported"),
    ],
)
def test_what_is_not_a_plain_yaml_mapping(load, text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load(text)


def test_bombs_are_refused(load):
    aliases = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(ConfigError, match="anchors and aliases are not supported; write the value out"):
        load(aliases)
    chain = "a: xxxxxxxx\n" + "".join(f"k{i}: ${{k{i - 1}}}${{k{i - 1}}}\n" for i in range(1, 60))
    with pytest.raises(ConfigError, match="more than 16 interpolations"):
        load(chain)

    disguised = "a: xxxxxxxx\n" + "".join(f'k{i}: "\\x24{{k{i - 1}}}\\x24{{k{i - 1}}}"\n' for i in range(1, 60))
    with pytest.raises(ConfigError, match="more than 16 interpolations"):
        load(disguised)
    with pytest.raises(ConfigError, match="interpolations in so long a text"):
        load(f"name: {'x' * 100_000}\nrate: ${{name}}")


@pytest.mark.parametrize(
    "value",
    ["${oc.env:HOME}", '"\\x24{oc.env:HOME}"', "${oc.${rate}:HOME}", "${${name}}", "${oc.decode:'1'}", "${a b}"],
)
def test_an_interpolation_calls_nothing(load, value):
    with pytest.raises(ConfigError, match="an interpolation can only name another key"):
        load(f"name: {value}\nrate: env")
    with pytest.raises(ConfigError, match="an interpolation can only name another key"):
        load("", f"name={value}")


@pytest.mark.parametrize("text", ["name: " + "[" * 100_000, "name: " + "{a: " * 3000 + "}" * 3000, "- " * 3000])
def test_deep_nesting_does_not_overflow_the_parser(load, text):
    with pytest.raises(ConfigError, match="levels deep"):
        load(text)
    if text.startswith("name"):
        with pytest.raises(ConfigError, match="levels deep"):
            load("", text.replace(": ", "=", 1))


def test_depth_limit_is_generous(load):
    with pytest.raises(ConfigError, match="name: Input should be"):
        load("name: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1))


def test_missing_directory_and_huge_files(tmp_path):
    for path, what in ((tmp_path / "none.yaml", "no such file; check the path"), (tmp_path, "is a folder, where")):
        with pytest.raises(ConfigError, match=what):
            merge_yaml(path)
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as out:
        out.truncate(MAX_YAML_BYTES + 1)
    with pytest.raises(ConfigError, match=r"huge.yaml: larger than 1 MB"):
        merge_yaml(huge)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("section.size", "section.size: an override needs the form section.key=value"),
        ("=3", "=3: an override needs the form"),
        ("", "an override needs the form"),
        ("section.size=[1", "section.size=[1: cannot be read as YAML"),
        ("section.items.1.path=q", "section.items.1.path=q: the list has no such entry; count entries from 0"),
        ("section.items.path=q", "section.items.path=q: the list has no such entry"),
        ("section.items.x=q", "section.items.x=q: the list has no such entry"),
        ("section.size=!!python/none 1", "YAML tags are not supported"),
        ("section.sise=1", "recipe.yaml: section.sise: unexpected key; did you mean 'size'?"),
        ("section.size.x=1", "recipe.yaml: section.size: Input should be a valid integer"),
    ],
)
def test_bad_overrides_are_named(load, override, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load("section: {items: [{path: a}], size: 2}", override)


def test_errors_without_a_file_say_overrides():
    with pytest.raises(ConfigError, match="overrides: nmae: unexpected key"):
        validate(Schema, merge_yaml(None, ["nmae=1"]), "overrides")


def test_merge_yaml_does_not_validate(tmp_path):
    path = tmp_path / "any.yaml"
    path.write_text("a: {b: 1}\nc: ${a.b}\n")
    assert merge_yaml(path, ["a.d=[1, x]"]) == {"a": {"b": 1, "d": [1, "x"]}, "c": 1}
    assert merge_yaml(None) == {}


def test_validate_plain_values():
    assert validate(Schema, {"name": "y"}, "here") == Schema(name="y")
    with pytest.raises(ConfigError, match="here: rate: "):
        validate(Schema, {"rate": "fast"}, "here")


def test_did_you_mean():
    assert did_you_mean("greddy", ["greedy", "beam"]) == "greedy"
    assert did_you_mean("xyz", ["greedy", "beam"]) is None
