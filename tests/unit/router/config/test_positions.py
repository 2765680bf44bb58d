import pytest

from lexora_router.config.positions import MAX_DEPTH, Tree, read_map, read_value
from lexora_router.config.problems import Where


def problems(text: str) -> list[str]:
    return [str(problem) for problem in read_map(text, "f.yaml").problems]


def test_every_key_and_item_knows_its_line() -> None:
    tree = read_map("a:\n  b: 1\n  c:\n    - x\n    - y\n", "f.yaml")
    assert tree.data == {"a": {"b": 1, "c": ["x", "y"]}}
    assert tree.where(("a", "b")) == Where("f.yaml", 2)
    assert tree.where(("a", "c", 1)) == Where("f.yaml", 5)
    assert tree.where(("a", "nothing")) == Where("f.yaml", 1)
    assert Tree().where(("a",)) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-10-21", "2024-10-21"),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("33_554_432", 33554432),
        ("-3", -3),
        ("010", "010"),
        ("1:30", "1:30"),
        ("yes", True),
        ("Off", False),
        ("'yes'", "yes"),
        ("~", None),
        ("", None),
        ("!!str 12", "12"),
        ("${HOME}", "${HOME}"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    tree = read_map(f"a: {text}\n", "f.yaml")
    assert tree.problems == []
    assert tree.data == {"a": value}
    assert type(tree.data["a"]) is type(value)


def test_a_duplicate_key_names_both_lines() -> None:
    assert problems("a: 1\nb: 2\na: 3\n") == ["f.yaml:3: a: duplicate key, it is already on line 1"]


def test_a_duplicate_key_deep_inside_is_found() -> None:
    assert problems("a:\n  - {b: 1, b: 2}\n") == ["f.yaml:2: a[0].b: duplicate key, it is already on line 2"]


@pytest.mark.parametrize("value", ["!!python/object/apply:os.system [ls]", "!vault secret", "!!binary aGk=", "!!int secret"])
def test_tags_are_refused_without_repeating_them(value: str) -> None:
    (problem,) = problems(f"a: {value}\n")
    assert problem == "f.yaml:1: a: YAML tags ('!...') are not allowed"


def test_syntax_errors_have_line_and_column() -> None:
    (problem,) = problems("a: 1\nb: [1, 2\nc: 3\n")
    assert problem.startswith("f.yaml:3:2: not valid YAML: ")


@pytest.mark.parametrize("text", ["a: *secret\n", "a: &x &secret 1\n", "a: !s!secret 1\n"])
def test_syntax_errors_repeat_no_values(text: str) -> None:
    (problem,) = problems(text)
    assert "secret" not in problem
    assert "quotes" in problem


@pytest.mark.parametrize("text", ["[1, 2]", "just text", "3"])
def test_the_top_must_be_a_map(text: str) -> None:
    assert problems(text) == ["f.yaml: must be a map of sections at the top"]


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file_is_fine(text: str) -> None:
    assert read_map(text, "f.yaml") == Tree(origins={(): Where("f.yaml")})


def test_two_documents_are_refused() -> None:
    assert "not valid YAML" in problems("a: 1\n---\nb: 2\n")[0]


def test_anchors_and_merges_work() -> None:
    text = "base: &base {a: 1, b: 2}\nmine: {<<: *base, b: 3}\nboth: {<<: [{a: 5}, *base]}\n"
    tree = read_map(text, "f.yaml")
    assert tree.data == {"base": {"a": 1, "b": 2}, "mine": {"a": 1, "b": 3}, "both": {"a": 5, "b": 2}}


def test_a_merge_of_something_else_is_a_problem() -> None:
    assert problems("a: {<<: 3}\n") == ["f.yaml:1: a: << must name a map"]


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    tree = read_map("\n".join(lines), "f.yaml")
    assert tree.broken
    assert "aliases included" in str(tree.problems[0])


@pytest.mark.parametrize("text", ["a: " + "[" * 5000 + "]" * 5000, "a: &a [*a]", "a: " + "[" * 40 + "]" * 40])
def test_depth_is_bounded(text: str) -> None:
    tree = read_map(text, "f.yaml")
    assert tree.broken
    assert f"deeper than {MAX_DEPTH} levels" in str(tree.problems[0])


def test_keys_must_be_text() -> None:
    assert problems("? [a, b]\n: 1\n") == ["f.yaml:1: a key must be plain text"]


def test_control_characters_are_refused_with_their_line() -> None:
    assert problems("a: 1\nb: \x00\n") == ["f.yaml:2: not valid YAML: a control character"]


def test_half_a_surrogate_pair_is_refused() -> None:
    assert problems('a: "\\ud800"\n') == ["f.yaml:1: a: is not valid Unicode"]
    assert problems('a:\n  "\\ud800": 1\n') == ["f.yaml:2: a: a key is not valid Unicode"]


def test_a_value_of_the_environment_is_placed_at_its_variable() -> None:
    assert read_value("[a, {b: 1}]", "LEXORA_X") == (["a", {"b": 1}], [])
    _, (problem,) = read_value("[a", "LEXORA_X")
    assert str(problem).startswith("LEXORA_X: not valid YAML")
