"""What a person sees: one clear line for a mistake, an exit code for a service manager, help."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from engine.published.models import MODELS
from tests.support.cli import Answer, Cli, in_process
from tests.support.footage import colour_clip
from tests.support.processes import read_events, s2netd
from tests.support.tiny_bundle import write_tiny_bundle
from tests.support.tiny_model import tiny_model
from tests.support.videos import make_video, with_changed_packets


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, a clip, and things that are neither."""
    folder = tmp_path_factory.mktemp("things")
    write_tiny_bundle(folder / "tiny")
    colour_clip(folder / "clip.mp4", [(1, 0, 0), (1.6, 220, 0), (1, 0, 0)])
    lossy = make_video(container="mpegts", n_frames=100, gop=50, time_base=Fraction(1, 90_000))
    (folder / "lossy.ts").write_bytes(
        with_changed_packets(lossy, lambda number, payload: None if number == 60 else payload)
    )
    (folder / "text.mp4").write_text("this is no video\n" * 9)
    (folder / "empty.mp4").touch()
    (folder / "documents").mkdir()
    (folder / "chunks").mkdir()
    (folder / "documents" / "letter.txt").write_text("no video either")
    good = {
        "model": {"bundle": str(folder / "tiny")},
        "source": {"kind": "directory", "path": "chunks"},
        "sink": {"kind": "jsonl", "path": "events.jsonl"},
        "journal": {"path": "journal.sqlite"},
    }
    configs = {
        "good": good,
        "unknown-key": {**good, "sauce": 1},
        "unknown-label": {**good, "model": {**good["model"], "labels": ["gren"]}},
        "unknown-bundle": {**good, "model": {"bundle": "nope"}},
        "list": ["source"],
    }
    for name, plain in configs.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(plain))
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\0")
    return folder


@pytest.fixture
def cli(
    things: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Cli:
    """The command's own entry point, in the folder of things, with an empty model cache."""
    monkeypatch.chdir(things)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return in_process(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("localize clip.mp4 --bundle nope", ["no bundle nope", "s2netd models pull nope"]),
        ("localize clip.mp4 --bundle documents", ["documents is no bundle", "bundle.yaml"]),
        ("localize clip.mp4 --bundle no/such", ["no/such is no bundle"]),
        ("localize clip.mp4 --bundle tiny --labels rot,gren", ["'rot'", "2 classes"]),
        ("localize clip.mp4 --bundle tiny --labels green,reed", ["'reed'", "mean 'red'"]),
        ("localize clip.mp4 --bundle tiny --precision f64", ["precision", "'bf16'", "'f64'"]),
        ("localize clip.mp4 --bundle tiny --threads 9999", ["threads", "256", "9999"]),
        ("localize clip.mp4 --bundle tiny --open-score 2", ["open_score", "less than 2"]),
        ("bench --bundle tiny --precision f64", ["precision", "'bf16'", "'f64'"]),
        ("produce clip.mp4 --camera a --to nowhere", ["'nowhere'", "dir:PATH or kafka:TOPIC"]),
        ("produce clip.mp4 --camera a --to dir:", ["'dir:'", "dir:PATH or kafka:TOPIC"]),
        ("produce clip.mp4 --camera a --to s3:bucket", ["'s3:bucket'"]),
        ("produce clip.mp4 --camera a --to kafka:a/b", ["--to kafka:TOPIC: 'a/b': Kafka allows"]),
        ("produce clip.mp4 --camera a --to dir:clip.mp4", ["clip.mp4: cannot make it"]),
        ("produce clip.mp4 --camera a/b --to dir:chunks", ["'a/b'", "leave out '/'"]),
        (
            "produce clip.mp4 --camera a --to dir:chunks --transcode maybe",
            ["--transcode is 'maybe'", "auto, never or always"],
        ),
        ("produce documents --camera a --to dir:chunks", ["documents: holds no video", ".mkv"]),
        ("check -c unknown-key.yaml", ["unknown-key.yaml: sauce", "s2netd schema config"]),
        ("check -c unknown-label.yaml", ["'gren'", "did you mean 'green'"]),
        ("check -c unknown-bundle.yaml", ["s2netd models pull nope"]),
        ("check -c missing.yaml", ["missing.yaml: cannot be read: No such file"]),
        ("check -c documents", ["documents: cannot be read: Is a directory"]),
        ("check -c list.yaml", ["list.yaml: holds list, wanted keys such as source:"]),
        ("check -c binary.yaml", ["binary.yaml: is not YAML"]),
        ("run -c unknown-key.yaml", ["unknown-key.yaml: sauce: unknown key"]),
        ("run -c missing.yaml", ["missing.yaml: cannot be read"]),
        ("bench --bundle nope", ["s2netd models pull nope"]),
        ("models path nope", ["no model 'nope'", "kinetics400"]),
        ("models pull nope", ["no model 'nope'", "kinetics400"]),
        ("models verify nope", ["no model 'nope'", "kinetics400"]),
        ("models verify kinetics400", ["s2netd models pull kinetics400"]),
    ],
)
def test_what_the_operator_must_change_is_one_line_and_exit_code_78(cli: Cli, command, parts):
    answer = cli(*command.split())

    assert 78 == answer.code
    for part in parts:
        assert part in answer.complaint


@pytest.mark.openvino
@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("localize missing.mp4 --bundle tiny --out out", ["missing.mp4: No such file"]),
        ("localize text.mp4 --bundle tiny --out out", ["text.mp4: ", "74 68 69 73"]),
        ("localize empty.mp4 --bundle tiny --out out", ["empty.mp4: ", "starts with nothing"]),
        ("localize documents --bundle tiny --out out", ["documents: Is a directory"]),
        ("produce text.mp4 --camera a --to dir:chunks", ["text.mp4: ", "wanted one of mov"]),
        ("bench --bundle tiny --video missing.mp4", ["missing.mp4: No such file"]),
    ],
)
def test_a_video_that_cannot_be_read_is_one_line_and_exit_code_1(cli: Cli, command, parts):
    answer = cli(*command.split())

    assert 1 == answer.code
    for part in parts:
        assert part in answer.complaint


@pytest.mark.openvino
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("localize lossy.ts", 3),
        ("localize lossy.ts --max-lost-percent 50", 0),
        ("localize lossy.ts text.mp4", 1),  # what could not be done at all is worse
    ],
)
def test_what_was_left_out_is_told_and_too_much_of_it_is_exit_code_3(cli: Cli, command, code):
    answer = cli(*command.split(), "--bundle", "tiny", "--out", "out")

    assert code == answer.code
    told = "lossy.ts: 1.6 s (40.0%) in 1 parts were left out: pictures are missing that others"
    assert told in answer.err
    assert (code == 3) == ("more than 5% was left out of 1 of 1 videos:" in answer.err)
    assert "wrote out/events.jsonl" in answer.out


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("localize", "Missing argument"),
        ("localize clip.mp4 --bogus", "--bogus"),
        ("localize clip.mp4 --threads 0", "--threads"),
        ("localize clip.mp4 --open-score high", "--open-score"),
        ("produce clip.mp4 --to dir:chunks", "--camera"),
        ("produce clip.mp4 --camera a --to dir:c --chunk-seconds 0", "--chunk-seconds"),
        ("run", "--config"),
        ("models bogus", "bogus"),
        ("bogus", "bogus"),
    ],
)
def test_wrong_arguments_are_named_with_exit_code_2(cli: Cli, command, part):
    answer = cli(*command.split())

    assert 2 == answer.code
    assert part in answer.err
    assert "Traceback" not in answer.err


def test_a_damaged_bundle_names_the_file_and_the_fix(cli: Cli, tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    with (bundle / "backbone.onnx").open("ab") as file:
        file.write(b"\0")

    answer = cli("localize", "clip.mp4", "--bundle", bundle)

    assert 78 == answer.code
    assert f"{bundle / 'backbone.onnx'}: SHA-256 is" in answer.complaint


def test_the_installed_program_shows_no_traceback_either(things):
    done = s2netd("localize", things / "clip.mp4", "--bundle", things / "documents")

    assert 78 == done.returncode
    assert "is no bundle" in Answer(78, done.stdout, done.stderr).complaint


@pytest.mark.parametrize(
    "command",
    [
        *("run", "check", "localize", "produce", "demo", "bench"),
        *("models pull", "models list", "models verify", "schema event", "schema config"),
        *("topics create", "topics check"),
    ],
)
def test_help_says_what_the_command_does_and_shows_an_example(cli: Cli, command):
    answer = cli(*command.split(), "--help")

    lines = [line.strip() for line in answer.out.splitlines()]
    assert 0 == answer.code
    assert any(line.startswith(f"s2netd {command}") for line in lines), answer.out
    assert any(line.endswith(".") for line in lines[:6])
    assert "noqa" not in answer.out


def test_version_is_the_distributions(cli: Cli):
    answer = cli("--version")

    assert (0, "s2netd") == (answer.code, answer.out.split()[0])
    assert answer.out.split()[1][0].isdigit()


def test_schema_event_is_the_schema_that_records_are_held_to(cli: Cli):
    schema = json.loads(cli("schema", "event").out)

    Draft202012Validator.check_schema(schema)
    assert not Draft202012Validator(schema).is_valid({"event_id": "x"})


def test_schema_config_takes_what_check_takes_and_refuses_what_it_refuses(cli: Cli, things):
    validator = Draft202012Validator(json.loads(cli("schema", "config").out))

    assert validator.is_valid(yaml.safe_load((things / "good.yaml").read_text()))
    assert not validator.is_valid(yaml.safe_load((things / "unknown-key.yaml").read_text()))


def test_check_describes_the_model_of_a_good_configuration(cli: Cli):
    answer = cli("check", "--config", "good.yaml")

    assert 0 == answer.code, answer.err
    assert answer.out.startswith("good.yaml: ok (tiny@")
    assert "2 of 2 classes" in answer.out


def test_a_pulled_model_is_listed_found_verified_and_not_pulled_again(
    cli: Cli, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # a folder of that name would be taken first
    monkeypatch.setitem(MODELS, "tiny", tiny_model(sdist_sha256="0" * 64))
    before = cli("models", "list").out
    cache = tmp_path / "cache" / "s2netd" / "bundles"
    cache.mkdir(parents=True)
    write_tiny_bundle(cache / "tiny")
    after = cli("models", "list").out

    assert ["not pulled", "pulled"] == [_state(before), _state(after)]
    assert f"{cache / 'tiny'}\n" == cli("models", "path", "tiny").out
    assert "tiny: ok\n" == cli("models", "verify", "tiny").out
    assert f"{cache / 'tiny'}\n" == cli("models", "pull", "tiny").out


def _state(listing: str) -> str:
    (row,) = (line for line in listing.splitlines() if line.startswith("tiny"))
    return "not pulled" if "not pulled" in row else "pulled"


def test_a_damaged_pulled_model_does_not_verify(cli: Cli, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", tiny_model(sdist_sha256="0" * 64))
    cache = tmp_path / "cache" / "s2netd" / "bundles"
    cache.mkdir(parents=True)
    (write_tiny_bundle(cache / "tiny") / "localizer.onnx").write_bytes(b"")

    answer = cli("models", "verify", "tiny")

    assert 78 == answer.code
    assert "localizer.onnx: SHA-256" in answer.complaint


@pytest.mark.openvino
def test_localize_writes_where_it_says_and_shows_a_table(cli: Cli, tmp_path):
    out = tmp_path / "out"
    answer = cli("localize", "clip.mp4", "--bundle", "tiny", "--labels", "red", "--out", out)

    assert 0 == answer.code, answer.err
    assert {"events.jsonl", "clip.html"} == {path.name for path in out.iterdir()}
    assert {"red"} == {record["label"] for record in read_events(out / "events.jsonl")}
    assert "red" in answer.out
    assert f"wrote {out / 'events.jsonl'} and 1 timeline page(s)" in answer.out


def test_produce_says_what_it_did(cli: Cli, tmp_path):
    answer = cli("produce", "clip.mp4", "--camera", "gate", "--to", f"dir:{tmp_path / 'c'}")

    assert 0 == answer.code, answer.err
    assert "gate: 3 chunks" in answer.err
    assert 3 == len(list((tmp_path / "c" / "gate").glob("*.mp4")))


@pytest.mark.parametrize("camera", ["", "two\nlines", "x" * 201])
def test_a_camera_without_a_usable_name_is_refused(cli: Cli, camera):
    answer = cli("produce", "clip.mp4", "--camera", camera, "--to", "dir:chunks")

    assert 78 == answer.code
    assert "--camera is" in answer.complaint
