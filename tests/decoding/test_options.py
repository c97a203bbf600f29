import pytest

from kikitori.decoding.options import Decoding, load_decoding, with_overrides
from kikitori.errors import ConfigError


def test_names():
    assert load_decoding("greedy") == Decoding() == Decoding("greedy", None)
    assert load_decoding("ctc_greedy") == Decoding("ctc_greedy")
    assert load_decoding("sampling") == Decoding("sampling", temperature=1.0, top_k=0, top_p=1.0, seed=1234)


@pytest.mark.parametrize("name", ["beem", "", "Greedy", "greedy.yam"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(ConfigError) as caught:
        load_decoding(name)
    message = str(caught.value)
    assert "--decoding" in message
    assert "'greedy'" in message
    assert "'ctc_greedy'" in message
    assert f"'{name}'" in message


def test_yaml_and_overrides(tmp_path):
    file = tmp_path / "decoding.yaml"
    file.write_text("search: ctc_greedy\nmax_labels: 40\n")
    assert load_decoding(file) == load_decoding(str(file)) == Decoding("ctc_greedy", 40)
    assert load_decoding(file, ["decoding.max_labels=7"]) == Decoding("ctc_greedy", 7)
    assert load_decoding(file, ["decoding.max_labels=null", "decoding.search=greedy"]) == Decoding()
    assert load_decoding("greedy", ["decoding.max_labels=1", "decoding.max_labels=2"]) == Decoding("greedy", 2)
    file.write_text("")
    assert load_decoding(file) == Decoding()
    file.write_text("search: sampling\ntemperature: 0.7\nmin_labels: 2\n")
    options = ["decoding.top_k=50", "decoding.top_p=0.9", "decoding.seed=5", "decoding.temperature=2"]
    expected = Decoding("sampling", min_labels=2, temperature=2.0, top_k=50, top_p=0.9, seed=5)
    assert load_decoding(file, options) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("serch: greedy", "did you mean 'search'"),
        ("max_labels: 0", "max_labels"),
        ("max_labels: 2.5", "max_labels"),
        ("max_labels: '3'", "max_labels"),
        ("search: beem", "'beem'"),
        ("min_labels: -1", "min_labels"),
        ("temperature: 0", "temperature"),
        ("temperature: -0.5", "temperature"),
        ("temperature: .inf", "temperature"),
        ("temperature: .nan", "temperature"),
        ("top_k: -1", "top_k"),
        ("top_k: 1.5", "top_k"),
        ("top_p: 0", "top_p"),
        ("top_p: 1.1", "top_p"),
        ("seed: -1", "seed"),
        ("seed: abc", "seed"),
        ("- greedy", "mapping"),
        ("search: [", "YAML"),
    ],
)
def test_bad_yaml_names_file_and_key(tmp_path, text, expected):
    file = tmp_path / "mine.yml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_decoding(file)
    assert str(file) in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_yaml(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_decoding(tmp_path / "decoding.yaml")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("max_labels=3", "begin with decoding."),
        ("decoding.max_label=3", "did you mean 'max_labels'"),
        ("decoding.max_labels=many", "max_labels"),
        ("decoding.max_labels=-1", "max_labels"),
        ("decoding.max_labels", "key=value"),
        ("decoding.=3", "key=value"),
        ("decoding.search.name=greedy", "search"),
        ("decodingmax_labels=3", "begin with decoding."),
    ],
)
def test_bad_overrides(override, expected):
    with pytest.raises(ConfigError) as caught:
        with_overrides(Decoding(), [override])
    assert expected in str(caught.value)


def test_overrides_leave_the_original_alone():
    original = Decoding("ctc_greedy", 9)
    assert with_overrides(original, []) == original
    assert with_overrides(original, ["decoding.max_labels=3"]) == Decoding("ctc_greedy", 3)
    assert original == Decoding("ctc_greedy", 9)
