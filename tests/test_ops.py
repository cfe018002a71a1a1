"""What ``ops/`` gives Prometheus and Grafana: only metrics that exist, and rules that work."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from daemon.journal.base import Condition
from daemon.metrics import Metrics
from tests.support.checkout import CHECKOUT
from tests.support.real_parts import missing

ALERTS = CHECKOUT / "ops" / "prometheus" / "alerts.yml"
PLAYED = CHECKOUT / "ops" / "prometheus" / "alerts.test.yml"
DASHBOARD = CHECKOUT / "ops" / "grafana" / "s2netd.json"


def series() -> dict[str, set[str]]:
    """Every series that ``/metrics`` may show → the labels of its metric."""
    found: dict[str, set[str]] = {}
    for metric, names in Metrics().registry._collector_to_names.items():
        for name in names:
            found[name] = {*getattr(metric, "_labelnames", ()), "instance", "job", "le"}
    return found


def alerts() -> list[dict[str, Any]]:
    rules = yaml.safe_load(ALERTS.read_text())
    return [rule for group in rules["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return loaded


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in alerts())
    yield from (target["expr"] for panel in panels() for target in panel["targets"])


def queries() -> list[str]:
    listed = json.loads(DASHBOARD.read_text())["templating"]["list"]
    return [each["query"]["query"] for each in listed if each["type"] == "query"]


def test_only_metrics_that_exist_are_asked_for() -> None:
    named = {
        name
        for text in [*expressions(), *queries(), PLAYED.read_text()]
        for name in re.findall(r"\bs2netd_[a-z_]+", text)
    }

    assert set() == named - set(series())
    assert len(named) >= 20


def test_only_labels_that_they_have_are_asked_for() -> None:
    for text in expressions():
        for name, chosen in re.findall(r"\b(s2netd_[a-z_]+)\{([^}]*)\}", text):
            labels = set(re.findall(r"(\w+)\s*=", chosen))
            assert labels <= series()[name], text


def test_each_state_of_a_camera_that_is_asked_for_exists_and_each_is_shown() -> None:
    states = set(re.findall(r'state="([a-z]+)"', "\n".join(expressions())))

    assert {condition.value for condition in Condition} == states


def test_the_runbook_says_of_each_alert_what_to_do() -> None:
    text = (CHECKOUT / "docs" / "runbook.md").read_text()
    table = text.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", table, re.MULTILINE)

    assert [rule["alert"] for rule in alerts()] == told
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in alerts())


def test_the_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {
            (at["x"] + right, at["y"] + down)
            for right in range(at["w"])
            for down in range(at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


def promtool(*arguments: str | Path, page: str | None = None) -> str:
    """What it says; it must be content."""
    program = shutil.which("promtool")
    if program is None:
        missing("no promtool: apt install prometheus")
    done = subprocess.run(
        [program, *map(str, arguments)], input=page, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.promtool
def test_prometheus_takes_the_rules() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", ALERTS)


@pytest.mark.promtool
def test_the_rules_fire_when_they_should_and_not_otherwise() -> None:
    assert "SUCCESS" in promtool("test", "rules", PLAYED)


@pytest.mark.promtool
def test_prometheus_takes_every_expression(tmp_path: Path) -> None:
    """Those of the dashboard as rules of their own, with its variables filled in."""
    rules = [
        {
            "record": f"panel:{number}",
            "expr": text.replace("$instance", ".*").replace("$camera", ".*"),
        }
        for number, text in enumerate(expressions())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))

    assert f"{len(rules)} rules found" in promtool("check", "rules", path)


@pytest.mark.promtool
def test_prometheus_takes_the_metrics() -> None:
    """Names, types and help texts are as promtool wants them."""
    page = generate_latest(Metrics().registry).decode()
    assert "" == promtool("check", "metrics", page=page)
