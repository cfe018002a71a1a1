"""What the pages say and a machine can check: links, lengths, tables, command lines, statuses."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote

import pytest
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from daemon.cli import app as s2netd
from daemon.config import Config
from tests.support.checkout import CHECKOUT
from training.cli import app as s2net

MOST_WORDS = 900  # of the README: what a person reads before trying something
COMMANDS = {"s2netd": typer.main.get_command(s2netd), "s2net": typer.main.get_command(s2net)}

_LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]*)\)")
_IN_LINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_ENTRY = re.compile(r"^## (\d+)\. (.+)\n(.*)\n", re.MULTILINE)
_STATUS = r"accepted|(?:corrected|superseded) by \d+"


def pages() -> list[Path]:
    """Every Markdown file of the repository, one that is new included."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    done = subprocess.run(listing, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:  # an export without its history
        return sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").glob("*.md")])
    return sorted(
        path for name in done.stdout.split("\0")[:-1] if (path := CHECKOUT / name).exists()
    )


def manuals() -> list[Path]:
    """The pages that tell how it is today; the change log and the decisions tell how it was."""
    return [page for page in pages() if page.name not in ("CHANGELOG.md", "DECISIONS.md")]


def named(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


def code_and_prose(page: Path) -> tuple[list[str], list[str]]:
    """The lines of code blocks, fenced or indented, and all others."""
    code: list[str] = []
    prose: list[str] = []
    fence = False
    in_block = before_blank = True
    for line in page.read_text(encoding="utf-8").splitlines():
        is_mark = line.startswith("```")
        in_block = line.startswith("    ") and (in_block or before_blank)
        (code if fence or in_block else prose).append(line)
        fence ^= is_mark
        before_blank = not line.strip()
    return code, prose


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in a link, as GitHub makes it of them."""
    found: set[str] = set()
    for line in code_and_prose(page)[1]:
        if heading := re.match(r"#{1,6} +(.*?)[ #]*$", line):
            text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            n = next(i for i in range(len(found) + 1) if numbered(slug, i) not in found)
            found.add(numbered(slug, n))
    return found


def numbered(slug: str, n: int) -> str:
    return f"{slug}-{n}" if n else slug


def broken_links(page: Path) -> Iterator[str]:
    text = "\n".join(code_and_prose(page)[1])
    for target in _LINK.findall(_IN_LINE.sub("", text)):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = unquote(target).partition("#")
        there = (page.parent / name).resolve() if name else page
        if not there.is_relative_to(CHECKOUT) or not there.exists():
            yield f"{target}: there is no such file"
        elif anchor and (there.suffix != ".md" or anchor not in anchors(there)):
            yield f"{target}: there is no such heading"


@pytest.mark.parametrize("page", pages(), ids=named)
def test_every_link_to_our_own_files_leads_somewhere(page: Path):
    assert [] == list(broken_links(page))


def test_a_broken_link_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(globals(), "CHECKOUT", tmp_path)
    (tmp_path / "there.md").write_text(
        "# The *one*, and `two`\n\n    # no heading\n\n# A b\n# A b\n"
    )
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) ![b](none.png) [c](there.md#the-one-and-two) [d](there.md#no-heading)\n"
        "[e](there.md#a-b-1) [f](#nowhere) [g](https://example.org/none) `[h](none.md)`\n"
        "[i](../outside.md)\n\n    [j](none.md)\n"
    )

    assert [
        "none.png: there is no such file",
        "there.md#no-heading: there is no such heading",
        "#nowhere: there is no such heading",
        "../outside.md: there is no such file",
    ] == list(broken_links(page))


def test_the_readme_is_a_page():
    assert len((CHECKOUT / "README.md").read_text(encoding="utf-8").split()) <= MOST_WORDS


def test_the_readme_leads_to_every_page():
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")

    measured = (CHECKOUT / "docs" / "measured.md").read_text(encoding="utf-8")
    others = {named(page) for page in pages()} - {"README.md"}
    reports = {name for name in others if name.startswith("reports/")}

    assert set() == {name for name in others - reports if f"]({name})" not in readme}
    assert set() == {name for name in reports if f"](../{name})" not in measured}


def test_every_decision_has_a_date_and_a_status_and_stands_in_the_index():
    text = (CHECKOUT / "DECISIONS.md").read_text(encoding="utf-8")
    index = re.findall(rf"^\| (\d+) \| \[(.+)\]\(#\S+\) \| ({_STATUS}) \|$", text, re.MULTILINE)
    entries = []
    for number, title, line in _ENTRY.findall(text):
        status = re.fullmatch(rf"\*\d{{4}}-\d\d-\d\d · ({_STATUS})\*", line)
        assert status, f"decision {number}: {line!r} is no date and status"
        entries.append((number, title, status[1]))
    numbers = [int(number) for number, _, _ in entries]

    assert entries == index
    assert len(entries) == len(re.findall(r"^## ", text, re.MULTILINE))
    assert all(before < after for before, after in pairwise(numbers))
    assert all(int(s.split()[-1]) in numbers for _, _, s in entries if " by " in s)


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key of a configuration file with its field, as ``section.key``."""
    for name, field in model.model_fields.items():
        kinds = [
            kind for kind in (field.annotation, *get_args(field.annotation)) if is_model(kind)
        ]
        for kind in kinds:
            yield from keys(kind, f"{prefix}{name}.")
        if not kinds:
            yield prefix + name, field


def is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def shown(field: FieldInfo) -> str:
    if field.default is None or field.default is PydanticUndefined:
        return "-"
    is_flag = isinstance(field.default, bool)
    return f"`{str(field.default).lower() if is_flag else field.default}`"


def test_every_key_of_the_configuration_is_documented_with_its_default():
    text = (CHECKOUT / "docs" / "operating.md").read_text(encoding="utf-8")
    table = text.partition("## Configuration\n")[2].partition("\n## ")[0]
    documented = dict(re.findall(r"^\| `([a-z_.]+)` \| (\S+) \|", table, re.MULTILINE))
    # Which kind is chosen has no default; a sink's security is told in one line.
    untold = ("source.kind", "sink.kind")
    wanted = {
        key: "-" if key in untold else shown(field)
        for key, field in keys(Config)
        if not key.startswith("sink.security.")
    }

    assert wanted | {"sink.security": "-"} == documented


def command_lines(page: Path) -> Iterator[str]:
    """What a reader may copy: lines of code blocks, and code within a line."""
    code, prose = code_and_prose(page)
    texts = ["\n".join(code).replace("\\\n", " "), *_IN_LINE.findall("\n".join(prose))]
    for text in texts:
        for line in text.splitlines():
            for part in re.split(r"&&|[|;&](?=\s|$)", line.partition(" #")[0]):
                if re.match(r"(s2netd|s2net) +[a-z]", part.strip()):
                    yield part.strip()


def complaint(line: str) -> str | None:
    """Why the command line cannot be, as far as its names of commands and options go."""
    words = [word for word in shlex.split(line) if word != "..."]
    command: Any = COMMANDS[words[0]]
    for word in words[1:]:
        subcommands = getattr(command, "commands", None)
        if subcommands is not None:
            if word not in subcommands:
                return f"{line}: there is no command {word}"
            command = subcommands[word]
            continue
        options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        if word.startswith("-") and word.partition("=")[0] not in options | {"--help", "-h"}:
            return f"{line}: there is no option {word}"
    return None


@pytest.mark.parametrize("page", manuals(), ids=named)
def test_every_command_line_names_commands_and_options_that_exist(page: Path):
    assert [] == [said for line in command_lines(page) if (said := complaint(line))]


def test_a_wrong_command_line_is_seen(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "`s2netd demo --pase fast` or `s2netd runn`, `s2netd` alone, and\n\n"
        "    s2netd produce my.mp4 --to dir:chunks & s2netd run --confg c.yaml   # --no option\n\n"
        "```sh\ns2net train --features f \\\n  --nothing\ns2netd engine gone\n```\n"
    )

    said = [complaint(line) for line in command_lines(page)]

    assert [
        None,
        "s2netd run --confg c.yaml: there is no option --confg",
        "s2net train --features f    --nothing: there is no option --nothing",
        "s2netd engine gone: there is no command gone",
        "s2netd demo --pase fast: there is no option --pase",
        "s2netd runn: there is no command runn",
    ] == said


def test_the_manuals_have_command_lines_to_check():
    assert {"README.md", "docs/training.md", "docs/measured.md"} <= {
        named(page) for page in manuals() if any(command_lines(page))
    }


@pytest.mark.parametrize("page", manuals(), ids=named)
def test_every_file_of_the_checkout_that_is_named_exists(page: Path):
    text = page.read_text(encoding="utf-8")
    paths = re.findall(r"(?<![\w./-])(?:configs|ops|scripts|systemd)/[\w./@-]*[\w@]", text)

    assert [] == sorted({path for path in paths if not (CHECKOUT / path).exists()})


@pytest.mark.parametrize("package", ["engine", "daemon", "training"])
def test_the_architecture_names_every_file_and_folder_of_a_package(package: str):
    text = (CHECKOUT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = text.partition(f"\n## {package}/\n")[2].partition("\n## ")[0]
    told = set(re.findall(r"`([a-z][a-z0-9_]*(?:/|\.py)|__main__\.py)`", section))
    there = {
        child.name + ("/" if child.is_dir() else "")
        for child in (CHECKOUT / package).iterdir()
        if child.name not in ("__init__.py", "__pycache__", "py.typed")
    }

    assert set() == there - told
