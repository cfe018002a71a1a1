"""YAML of strangers: a key once, aliases bounded, one line for whatever is wrong."""

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from daemon.config import load, load_security
from daemon.errors import ConfigError
from engine.bundle.model_bundle import MANIFEST, ModelBundle
from engine.errors import BundleError, DataError
from engine.files.strict_yaml import MAX_VALUES, parse, read_plain
from training.loaders.tags import read_tags

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGED_LAUGHS = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
)
HOSTILE = {
    "laughs": (LAUGHS, f"line [0-9]+: holds more than {MAX_VALUES} values"),
    "merged laughs": (MERGED_LAUGHS, f"line [0-9]+: holds more than {MAX_VALUES} values"),
    "many values": ("[" + "x," * 500_000 + "]", f"it holds more than {MAX_VALUES} values"),
    "alias of itself": ("a: &x [1, *x]", "line 1: an alias stands inside of what it names"),
    "alias of itself merged": ("a: &x {<<: *x}", "line 1: an alias stands inside of what"),
    "key twice": ("a: 1\nb: 2\na: 3\n", "line 3: key 'a' stands in line 1 already"),
    "key twice, quoted": ("a: 1\n'a': 3\n", "line 2: key 'a' stands in line 1 already"),
    "key twice, nested": ("s:\n  t:\n  - {u: 1, u: 1}\n", "line 3: key 'u' stands in line 3"),
    "number twice": ("1: a\n0x1: b\n", "line 2: key 1 stands in line 1 already"),
    "merged twice": ("a: &a {x: 1}\nb: {<<: *a, <<: *a}", "line 2: key '<<' stands in line 2"),
    "key twice in what is merged": ("b: {<<: {x: 1, x: 2}}", "line 1: key 'x' stands in"),
    "key that is a list": ("[1]: a", "line 1: a key is no plain word"),
    "long number": ("a: " + "9" * 5000, "line 1: a number of 5000 characters"),
    "long number of base 60": ("a: 1" + ":59" * 300_000, "line 1: a number of 900001 charac"),
    "long number as a key": ("9" * 900 + ": 1", "line 1: a number of 900 characters"),
    "tag without a number": ("a: !!int x", "invalid literal"),
    "tag of nothing": ("a: !!int ''", "is not YAML: "),
    "tag of a wrong truth": ("a: !!bool perhaps", "is not YAML: "),
    "tag of a wrong time": ("a: !!timestamp soon", "is not YAML: "),
    "no such day": ("a: 2024-13-45", "month must be"),
    "python": ("a: !!python/object/apply:os.system [true]", "line 1: could not determine"),
    "a long tag": ("a: !" + "x" * 5000 + " 1", "line 1: could not determine"),
    "deep": ("[" * 5000, "is not YAML: "),
    "open": ("a: [", "line 1: "),
    "two documents": ("a: 1\n---\nb: 2\n", "line 2: but found another document"),
    "control": ("a: \x07", "is not YAML: "),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_honest_file_has_is_refused_in_one_line_and_at_once(name: str) -> None:
    text, complaint = HOSTILE[name]
    before_s = time.process_time()

    with pytest.raises(ValueError, match=complaint) as refused:
        read_plain(text)

    assert 1 == len(str(refused.value).splitlines())
    assert len(str(refused.value)) < 300
    assert time.process_time() - before_s < 20  # of work, however loaded the machine is


@pytest.mark.parametrize("name", HOSTILE)
def test_every_reader_of_files_refuses_the_same(name: str, tmp_path: Path) -> None:
    text, _complaint = HOSTILE[name]
    bundle, file = tmp_path / MANIFEST, tmp_path / "file.yaml"
    for path in (bundle, file):
        path.write_text(text)

    for read in (load, load_security):
        with pytest.raises(ConfigError, match=r"file\.yaml: is not YAML: "):
            read(file)
    with pytest.raises(BundleError, match=f"{MANIFEST} is not YAML: "):
        ModelBundle.load(tmp_path)
    if name != "many values":  # lists of videos may be long
        with pytest.raises(DataError, match=r"file\.yaml is not YAML: "):
            read_tags(file)


def test_a_file_without_an_end_is_not_read_to_it() -> None:
    with pytest.raises(ConfigError, match=r"/dev/zero: is larger than 1048576 bytes"):
        load(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a: &x {u: 1}\nb: *x\n", {"a": {"u": 1}, "b": {"u": 1}}),
        (
            "a: &x {u: 1, v: 2}\nb: {<<: *x, v: 3}\n",
            {"a": {"u": 1, "v": 2}, "b": {"u": 1, "v": 3}},
        ),
        ("a: {x: 1}\nb: {x: 1}\n", {"a": {"x": 1}, "b": {"x": 1}}),
        ("a: 'x'\nA: x\n", {"a": "x", "A": "x"}),
        ("a: '" + "9" * 5000 + "'", {"a": "9" * 5000}),
        ("", None),
    ],
)
def test_what_people_write_is_read(text: str, plain: object) -> None:
    assert plain == read_plain(text)


@dataclass(frozen=True)
class Rate:
    value: float
    name: str


@pytest.mark.parametrize("text", ["5e-5", "5E-5", "+5e-5", "5.e-5", "5.0e-5", "0.5e-04", ".5e-4"])
def test_a_power_of_ten_is_a_number_where_one_is_wanted(text: str) -> None:
    """YAML 1.1 takes most of these for texts, and nobody writes 5.0e-05 of himself."""
    content = read_plain(f"{{value: {text}, name: '{text}'}}")

    rate = parse(Rate, content, "here")

    assert (5e-5, text) == (rate.value, rate.name)


@pytest.mark.parametrize("text", ["5e", "e-5", "5e-5 s", "1e5e5", "'0.1'", "''", "1" * 999 + "e1"])
def test_what_is_no_power_of_ten_stays_refused(text: str) -> None:
    content = read_plain(f"{{value: {text}, name: x}}")

    with pytest.raises(BundleError, match=r"here\.value is .*, wanted float"):
        parse(Rate, content, "here")


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e999", "1.0e+999", "-1E+400"])
def test_no_number_of_a_file_is_without_bounds(value: str) -> None:
    """Every bound of a field is passed by one of them, and what is reckoned with it is lost."""
    content = read_plain(f"{{value: {value}, name: x}}")

    with pytest.raises(BundleError, match=r"here\.value is .*, wanted a finite number"):
        parse(Rate, content, "here")


def test_a_whole_number_that_no_float_can_be_is_refused() -> None:
    with pytest.raises(BundleError, match=r"here\.value is 1000.*, wanted a finite number"):
        parse(Rate, {"value": 10**400, "name": "x"}, "here")
