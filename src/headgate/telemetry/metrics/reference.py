"""The reference of all metrics, made of the catalogue: `python -m headgate.telemetry.metrics.reference`
writes it to standard output. A test holds docs/reference/metrics.md to it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from headgate.telemetry.metrics.catalogue import CATALOGUE
from headgate.telemetry.metrics.family import (
    MOST_CHILDREN,
    Category,
    Family,
    Feeder,
    Label,
    Merge,
    Shape,
)
from headgate.telemetry.metrics.labels import MODEL

__all__ = ["page"]

_HEAD = f"""# Metrics

<!-- Made of the catalogue in src/headgate/telemetry/metrics: change it there, then run
     python -m headgate.telemetry.metrics.reference > docs/reference/metrics.md -->

Every metric that Headgate exports. How to scrape them: [Prometheus and
Grafana](../how-to/prometheus-and-grafana.md); from a program of yours:
[monitor keys](../how-to/monitor-keys.md#export-to-prometheus). Names that begin with `headgate_` are
canonical, and so is what OpenTelemetry's conventions name. The others are kept as they were accepted;
*twin* is what says the same properly.

**Labels** are closed (all values stand here) or bounded (so many values, then `other`), so that
nothing a caller sends makes a series of its own: no caller, tenant, address, key, path or text of
an error is in any. A model earns a name of its own by an answer or a quota refusal; until then it
is `other`, and so is every model after the first {MODEL.most}. A family has at most {MOST_CHILDREN}
label sets in a process.

**Several workers** behind one port are one: counters and histograms are summed, those of workers
that ended too; of a gauge the column says what is taken. Gauges of the shared ledger are never
summed, and over instances they want `max`, not `sum`.

**Exemplars** of histograms, which OpenMetrics shows, lead to one call or request: its `trace_id` and
`span_id` where it is traced, else its `request_id`. Durations, first pieces and waits have them.
There are no `_created` series.
"""

_WHERE = {
    Feeder.ENGINE: "wherever calls are made: the gateway, a client or backend with `export_metrics`",
    Feeder.GATEWAY: "the gateway",
    Feeder.LIMITS: "`headgate.limits`",
    Feeder.CLAUDE: "`ClaudeRateLimiter`",
    Feeder.CONTENT: "the content service; of HTTP, the gateway too",
    Feeder.LEDGER: "the gateway and the content service, where usage is kept",
    Feeder.OTEL: "OpenTelemetry",
}

_MERGES = {Merge.SUM: "sum", Merge.MAX: "max", Merge.MIN: "min"}

_TAIL = """
## OpenTelemetry's

While telemetry is on ([how](../how-to/trace-with-otlp.md)) the same registry shows what is recorded
with `record_metric`, `record_gauge` and `TelemetryMiddleware`: `cak_{name}_total`,
`cak_{name}_milliseconds`, `cak_{name}`,
`cak_http_request_duration_milliseconds{method,path,status}` and
`http_server_request_duration_seconds`, with `url_scheme` and bounds to 160 s; see
[telemetry](telemetry.md). Where that middleware counts into a registry, what the gateway or the content
service says under that last name is left out there: no request is counted twice.
"""


def page() -> str:
    """The page, with a newline at its end."""
    sections = [_HEAD]
    for category in Category:
        families = [family for family in CATALOGUE if family.category is category]
        if families:
            sections.append("\n".join(_section(category, families)))
    return "\n".join([*sections, _TAIL.lstrip("\n")])


def _section(category: Category, families: list[Family]) -> Iterator[str]:
    yield f"## {category.value[0].upper()}{category.value[1:]}\n"
    for feeder in dict.fromkeys(family.feeder for family in families):
        chosen = [family for family in families if family.feeder is feeder]
        yield f"From {_WHERE[feeder]}:\n"
        yield "| metric | type | over workers | |"
        yield "|---|---|---|---|"
        yield from map(_row, chosen)
        yield ""
    yield from _label_lines(families)


def _row(family: Family) -> str:
    labels = ",".join(family.label_names)
    name = f"`{family.name}{f'{{{labels}}}' if labels else ''}`"
    merge = _MERGES[family.merge] if family.shape is Shape.GAUGE else "sum"
    if family.shape is Shape.INFO:
        merge = "max"
    return f"| {name} | {family.shape.value} | {merge} | {_words(family)} |"


def _words(family: Family) -> str:
    said = [family.help, family.note]
    if family.buckets:
        said.append(f"Buckets: {' '.join(f'{bound:g}' for bound in family.buckets)}.")
    if family.twin:
        said.append(f"Twin: `{family.twin}`.")
    return " ".join(part for part in said if part).replace("|", "\\|")


def _label_lines(families: list[Family]) -> Iterator[str]:
    """What the labels of a section can hold, each once."""
    labels: dict[tuple[str, tuple[str, ...], int], Label] = {}
    for family in families:
        for label in family.labels:
            labels.setdefault((label.name, label.values, label.most), label)
    if not labels:
        return
    yield "Labels:\n"
    for label in labels.values():
        yield f"- `{label.name}`: {_holds(label)}"
    yield ""


def _holds(label: Label) -> str:
    if label.values:
        return ", ".join(f"`{value}`" for value in label.values)
    if label.most == 1:
        return "one value"
    return f"up to {label.most} values, then `{label.other}`"


if __name__ == "__main__":
    sys.stdout.write(page())
