"""What Headgate counts, as data (`catalogue.py`), and the counts (`metrics.py`).

`wiring/metrics.py` introduces whoever counts to a registry. How to:
docs/how-to/prometheus-and-grafana.md; every metric: docs/reference/metrics.md, made of the catalogue.
"""

from __future__ import annotations

__all__ = ["FOLDER_VARIABLE"]

FOLDER_VARIABLE = "HEADGATE_METRICS_FOLDER"
"""Names the folder that the workers of one gateway publish in; whoever starts them sets it."""
