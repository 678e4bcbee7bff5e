"""What ships in deploy/ holds together: rules, tests, runbooks, dashboards and their source."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from tests.operating_kit import (
    BOARDS,
    GRAFANA,
    PROMETHEUS,
    ROOT,
    RULES,
    alerts,
    exported,
    names_in,
    queries,
    read,
    rules,
)

RUNBOOKS = ROOT / "docs" / "runbooks"
TESTS = sorted((PROMETHEUS / "tests").glob("*.test.yml"))


def promtool(*arguments: str | Path) -> None:
    program = shutil.which("promtool")
    assert program, "promtool is missing: `make test` installs it (requirements/system.sh)"
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ── Prometheus ──────────────────────────────────────────────────────────────────────────────────


def test_s4_30_prometheus_scrapes_what_its_users_have_and_every_gateway() -> None:
    config = read(PROMETHEUS / "prometheus.yml")
    assert config["global"] == {"scrape_interval": "15s", "evaluation_interval": "15s"}
    content, headgate = config["scrape_configs"]
    assert content == {
        "job_name": "KNOWALLEDGE_backend",
        "scrape_interval": "10s",
        "metrics_path": "/metrics",
        "static_configs": [{"targets": ["localhost:5000"]}],
    }
    assert headgate["job_name"] == "headgate"
    assert headgate["static_configs"] == [{"targets": ["localhost:8080"]}]


def test_promtool_takes_configuration_and_rules() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")  # its rules as well
    promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)


def test_promtool_sees_every_alert_fire_and_not_fire() -> None:
    promtool("test", "rules", *TESTS)


def test_every_alert_has_a_test_that_it_fires_and_one_that_it_does_not() -> None:
    seen: dict[str, set[str]] = {}
    for file in TESTS:
        for test in read(file)["tests"]:
            found = re.match(r"(\w+) (fires|does not fire): .", test["name"])
            if found is None:
                assert file.name == "recording.test.yml", test["name"]
                continue
            name, what = found[1], found[2]
            (asked,) = test["promql_expr_test"]
            assert asked["expr"] == f'count(ALERTS{{alertname="{name}", alertstate="firing"}})'
            assert bool(asked["exp_samples"]) is (what == "fires")
            seen.setdefault(name, set()).add(what)
    assert seen == {name: {"fires", "does not fire"} for name in alerts()}


def test_tests_of_alerts_evaluate_groups_in_the_order_of_the_rules() -> None:
    """Otherwise promtool takes them in any: an alert may then see what was recorded a round before."""
    files = (PROMETHEUS / "rules" / name for name in ("recording.yml", "alerts.yml"))
    order = [group["name"] for file in files for group in read(file)["groups"]]
    for file in TESTS:
        if file.name != "recording.test.yml":
            assert read(file)["group_eval_order"] == order, file.name


def test_every_alert_has_a_severity_a_summary_and_the_runbook_of_its_name() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
        text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
        assert text.startswith(f"# {name}\n")
        assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Look at", "## Do"]
    index = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == {*alerts(), "README"}
    for name, rule in alerts().items():
        assert f"| [{name}]({name}.md) | {rule['labels']['severity']} |" in index


@pytest.mark.parametrize(
    ("alert", "severity"),
    [
        ("NoUsableKey", "critical"),
        ("KeyErrorRateHigh", "warning"),
        ("QuotaErrorsRising", "info"),
        ("QuotaExhaustionIn1h", "warning"),
        ("GatewayErrorBudgetBurnFast", "critical"),
        ("GatewayErrorBudgetBurnSlow", "warning"),
        ("BreakerOpen", "warning"),
        ("FailOpenActive", "warning"),
        ("RedisBreakerOpen", "warning"),
        ("SpendCapNear", "warning"),
    ],
)
def test_b4_the_alerts_that_were_asked_for_ship(alert: str, severity: str) -> None:
    assert alerts()[alert]["labels"]["severity"] == severity


def test_b4_the_error_budget_burns_over_two_windows_each_time() -> None:
    fast = " ".join(alerts()["GatewayErrorBudgetBurnFast"]["expr"].split())
    slow = " ".join(alerts()["GatewayErrorBudgetBurnSlow"]["expr"].split())
    rate = "headgate:error:ratio_rate"
    assert f"{rate}1h > 14.4 * 0.001 and {rate}5m > 14.4 * 0.001" in fast
    assert f"{rate}6h > 6 * 0.001 and {rate}30m > 6 * 0.001" in fast
    assert f"{rate}1d > 3 * 0.001 and {rate}2h > 3 * 0.001" in slow
    assert f"{rate}3d > 0.001 and {rate}6h > 0.001" in slow


def test_recorded_names_say_level_metric_and_operation() -> None:
    accepted = {"headgate_quota:remaining"}  # a name of Appendix B
    for rule in rules():
        if "record" in rule and rule["record"] not in accepted:
            assert re.fullmatch(r"(headgate|cache):\w+:\w+", rule["record"])


def test_s4_32_gauges_of_the_shared_ledger_are_never_summed() -> None:
    gauge = "headgate_quota_(?:used|limit|wait)|quota_(?:requests|tokens|rpm|tpm)"
    shared = re.compile(rf"\bsum(?: by \([^)]*\))? ?\((?:{gauge})")
    assert shared.search("sum by (model) (headgate_quota_used)")
    for query in [rule["expr"] for rule in rules()] + [query for _, query in queries()]:
        assert not shared.search(query), query


def test_rules_and_panels_read_only_what_is_exported_or_recorded() -> None:
    assert names_in('max by (le) (rate(a_b[5m])) or vector(0) / on (x) c{d="e"} offset 1d') == {
        "a_b",
        "c",
    }
    for query in [rule["expr"] for rule in rules()] + [query for _, query in queries()]:
        read_of = names_in(query)
        assert read_of or query == "vector(Inf)"
        assert read_of <= exported(), query


# ── Grafana ─────────────────────────────────────────────────────────────────────────────────────


@cache
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deploy_grafana_build", GRAFANA / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_dashboards_are_what_the_script_builds() -> None:
    build = builder()
    made = {f"{board['uid']}.json": build.built(board) for board in build.boards()}
    assert {board.name for board in BOARDS} == set(made)
    for board in BOARDS:
        assert board.read_text(encoding="utf-8") == made[board.name], (
            f"{board.name} is not what boards.toml says: run python deploy/grafana/build.py"
        )


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_a_dashboard_is_one_that_grafana_can_provision(board: Path) -> None:
    shown = json.loads(board.read_text(encoding="utf-8"))
    assert shown["uid"] == board.stem
    assert "id" not in shown, "Grafana gives it one"
    assert shown["templating"]["list"][0]["type"] == "datasource"
    taken: set[tuple[int, int]] = set()
    for number, panel in enumerate(shown["panels"], start=1):
        assert panel["id"] == number
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another panel"
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"


def test_titles_of_boards_and_their_uids_are_each_others_own() -> None:
    shown = [json.loads(board.read_text(encoding="utf-8")) for board in BOARDS]
    assert len({one["uid"] for one in shown}) == len({one["title"] for one in shown}) == len(shown)


def test_s4_31_the_seven_panels_ask_what_appendix_b5_corrected() -> None:
    board = json.loads((GRAFANA / "dashboards" / "headgate-content.json").read_text(encoding="utf-8"))
    asked = {
        panel["title"]: [target["expr"] for target in panel["targets"]] for panel in board["panels"]
    }
    assert list(asked) == [
        "Request rate", "Error rate", "Response time, P95", "Quota usage", "Cache hit rate",
        "Gemini API duration", "Content quality",
    ]  # fmt: skip
    assert asked["Request rate"] == ["sum(rate(http_requests_total[5m]))"]
    assert asked["Error rate"] == ["sum(rate(application_errors_total[5m]))"]
    assert asked["Response time, P95"] == [
        "histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))"
    ]
    # Gauges are taken with max over instances.
    assert asked["Quota usage"] == ["max(quota_requests_current_minute / quota_rpm_limit * 100)"]
    assert "cache_hit_rate" in asked["Cache hit rate"][0]
    assert "cache:hits_per_requests:ratio_rate5m" in asked["Cache hit rate"][1]
    assert asked["Gemini API duration"] == [
        "rate(gemini_api_duration_seconds_sum[5m]) / rate(gemini_api_duration_seconds_count[5m])"
    ]
    assert asked["Content quality"][0] == (
        "histogram_quantile(0.5, sum by (le) (rate(content_quality_score_bucket[5m])))"
    )


def test_grafana_is_told_where_source_and_boards_are() -> None:
    (source,) = read(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://localhost:9090")
    (provider,) = read(GRAFANA / "provisioning" / "dashboards" / "headgate.yml")["providers"]
    assert provider["options"]["path"].endswith("/dashboards")
