"""YAML within bounds is read; any other text is refused in one sentence."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.recipe import load_recipe
from pipeline.safe_yaml import read_yaml


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb: [1_000, -2, 0]\n", {"a": 1, "b": (1000, -2, 0)}),
        ("a: [0.1, 1e-4, 1E5, 2., .5, 1.5e+3]", {"a": (0.1, 1e-4, 1e5, 2.0, 0.5, 1500.0)}),
        ("a: [yes, Off, true]\nb: ~\nc:", {"a": (True, False, True), "b": None, "c": None}),
        ("a: 2026-11-30\nb: '3'\nc: SC6-1\nd: =", {"a": "2026-11-30", "b": "3", "c": "SC6-1", "d": "="}),
        ("a: &x {b: 1}\nc: {<<: *x, d: 2}\ne: {<<: *x, b: 3}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}, "e": {"b": 3}}),
        ("\ufeffa: é", {"a": "é"}),
        ("", None),
    ],
)
def test_values_are_read_as_written(tmp_path: Path, text: str, value: object) -> None:
    read = read_yaml("Recipe", write(tmp_path, text))
    assert read == value and repr(read) == repr(value)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("[" * 200_000, "line 1: .* 32 ", id="deep list"),
        pytest.param("a: " + "{b: " * 5000, "line 1: more than 32", id="deep mapping"),
        pytest.param("\n".join(" " * n + "a:" for n in range(500)), "line 33: more than 32", id="deep block"),
        pytest.param("a: " + "9" * 5000, "line 1: .* 4,096 ", id="endless integer"),
        pytest.param("a: " + "9" * 19, "line 1: .* 18 ", id="large integer"),
        pytest.param("a: " + "x" * 5000, "line 1: .* 4,096 ", id="endless text"),
        pytest.param("- a\n" * 110_000, "line 100000: more than 100,000 values", id="long list"),
        pytest.param("#" * 2_000_000, "is larger than 1 MiB", id="large file"),
        pytest.param(LAUGHS, "line [0-9]+: .* 100,000 ", id="billion laughs"),
        pytest.param("a: &a [*a]", "line 1: a value that refers to itself", id="recursive"),
        pytest.param("a: &a {b: {<<: *a}}", "line 1: a value that refers to itself", id="recursive merge"),
        pytest.param("a: *b", "line 1: ", id="undefined alias"),
        pytest.param("a: 1\nb: 2\na: 3", "line 3: the key 'a' .*twice", id="key twice"),
        pytest.param("a: {b: [{c: 1, d: 2,\n c: 3}]}", "line 2: the key 'c' .*twice", id="inner key twice"),
        pytest.param("a: 1\n'a': 2", "line 2: the key 'a' .*twice", id="quoted key twice"),
        pytest.param("a: {<<: {b: 1,\n b: 2}}", "line 2: the key 'b' .*twice", id="merged key twice"),
        pytest.param("a: {<<: [{b: 1}, {c: 1, c: 2}]}", "the key 'c' .*twice", id="listed key twice"),
        pytest.param("a: {<<: {[b]: 1}}", "line 1: a key ", id="list as merged key"),
        pytest.param("a: {<<: {1: 2}}", "line 1: a key ", id="number as merged key"),
        pytest.param("1: a", "line 1: a key ", id="number as key"),
        pytest.param("a: {yes: 1}", "line 1: a key ", id="yes as key"),
        pytest.param("? [a, b]\n: 1", "line 1: a key ", id="list as key"),
        pytest.param("? {a: b}\n: 1", "line 1: a key ", id="mapping as key"),
        pytest.param("~: 1", "line 1: a key ", id="nothing as key"),
        pytest.param("a: 010", "line 1: a whole number that is not decimal", id="octal"),
        pytest.param("a: 0x1F", "line 1: a whole number that is not decimal", id="hexadecimal"),
        pytest.param("a: 1:30", "line 1: a whole number that is not decimal", id="sexagesimal"),
        pytest.param("a: 1:30.5", "line 1: a number that is not decimal", id="sexagesimal fraction"),
        pytest.param("a: !!int x", "line 1: a whole number that is not decimal", id="int by tag"),
        pytest.param("a: !!float x", "line 1: a number that is not decimal", id="float by tag"),
        pytest.param("a: !!bool maybe", "line 1: neither true nor false", id="bool by tag"),
        pytest.param("a: !!map x", "line 1: .*mapping", id="mapping by tag"),
        pytest.param("a: !!seq x", "line 1: .*list", id="list by tag"),
        pytest.param("a: !!python/object/apply:os.system [ls]", "line 1: could not determine", id="object"),
        pytest.param("a: !!binary aGk=", "line 1: could not determine", id="binary"),
        pytest.param("a: !!set {b}", "line 1: could not determine", id="set"),
        pytest.param("a: !mine x", "line 1: could not determine", id="tag of one's own"),
        pytest.param('a: "b\\0c"', "line 1: a control character", id="escaped nul"),
        pytest.param('a: "b\\nc"', "line 1: a control character", id="escaped line end"),
        pytest.param(b"a: b\0c", "is not readable YAML", id="nul"),
        pytest.param(b"a: \xff", "byte 3 .*UTF-8", id="no utf-8"),
        pytest.param("a: 1".encode("utf-16"), "byte 0 .*UTF-8", id="utf-16"),
        pytest.param("a: 1\n--- \nb: 2", "line 2: ", id="two documents"),
        pytest.param("a: [1\nb: 2", "line 2: ", id="open list"),
        pytest.param("a:\t- 1\n\t- 2", "is not readable YAML", id="tab"),
    ],
)
def test_an_unreadable_text_raises_a_one_sentence_error(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        read_yaml("Recipe", write(tmp_path, text))
    assert "mine.yaml" in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "pretraining: {methods: [baseline], epochs: 7}\npretraining: {methods: [baseline]}",
            "'pretraining' .*twice",
        ),
        ("pretraining: {epochs: yes}", r"pretraining\.epochs: "),
        ("pretraining: {epochs: '3'}", r"pretraining\.epochs: "),
        ("pretraining: {epochs: 3.0}", r"pretraining\.epochs: "),
        ("pretraining: {learning_rate: yes}", r"pretraining\.learning_rate: "),
        ("pretraining: {learning_rate: .inf}", r"pretraining\.learning_rate: "),
        ("pretraining: {learning_rate: 1e999}", r"pretraining\.learning_rate: "),
        ("pretraining: {lambda_adv: .nan}", r"pretraining\.lambda_adv: "),
        ("pretraining: {betas: [0.9, 1]}", r"pretraining\.betas\.1: "),
        ("pretraining: {discriminator_batch_norm: 1}", r"pretraining\.discriminator_batch_norm: "),
        ("pretraining: {seeds: [true]}", r"pretraining\.seeds\.0: "),
        ("archive: {modalities: US}", r"archive\.modalities: "),
        ("images: {height: 32000000, width: 64}", r"images\.height: "),
        ("evaluation: {seed: -1}", r"evaluation\.seed: "),
        ("evaluation: {resamples: 1000000000}", r"evaluation\.resamples: "),
        ("labels: {sources: [{kind: study_groups, groups: [Liver, liver]}]}", r"labels: .*\bliver\b"),
        ("labels: {sources: [{kind: values, field: Modality, labels: {Frame: [US]}}]}", "cannot be called Frame"),
    ],
)
def test_a_recipe_s_values_have_the_type_that_is_written(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        load_recipe(str(write(tmp_path, f"name: a\n{text}")), {})
    assert "\n" not in str(error.value)


def test_a_recipe_s_numbers_may_be_written_in_several_ways(tmp_path: Path) -> None:
    text = "name: a\npretraining: {learning_rate: 1e-4, lambda_adv: 0, epochs: 1_000}\n"
    settings = load_recipe(str(write(tmp_path, text)), {}).pretraining
    assert (settings.learning_rate, settings.lambda_adv, settings.epochs) == (1e-4, 0.0, 1000)


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 3000, ""])
def test_a_name_that_no_file_can_have_is_no_recipe(name: str) -> None:
    with pytest.raises(UserError, match="No recipe"):
        load_recipe(name, {})


def test_classes_differ_in_more_than_case(tmp_path: Path) -> None:
    task = "{kind: ordinal, classes: [Good, good], manifest: a.csv, epochs: 1, batch_size: 1, learning_rate: {}}"
    with pytest.raises(UserError, match=r"downstream\.tasks\.t\.classes: "):
        load_recipe(str(write(tmp_path, f"name: a\ndownstream: {{tasks: {{t: {task}}}}}")), {})
