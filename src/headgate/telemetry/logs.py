"""Logs for operators: JSON lines or a readable console, ids on every line, no keys.

`setup_logging` sets structlog up and lets the standard library's loggers, ours and everybody's, end in
the same lines. What is written is redacted last, after everything else had its say: keys and personal
data of a checkable form are taken out of every value, tracebacks too.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from threading import Lock
from typing import Any, TextIO

import msgspec

from headgate.core.errors import ConfigurationError
from headgate.core.request_ids import REQUEST_ID, leave
from headgate.policy.privacy.markers import take_out
from headgate.policy.privacy.recognise import find
from headgate.policy.redaction import MASK, Redactor, one_line
from headgate.policy.repeats import Repeats
from headgate.telemetry.call_traces import TRACES

__all__ = ["bound_request", "current_request_id", "setup_logging"]

_NOISY = ("httpx", "httpcore", "urllib3", "aiohttp.access")
"""Loggers that write a line for every request, some with URLs that hold keys."""

_SECRET_NAMES = re.compile(
    r"(?:^|[_\-. ])(?:authorization|cookie|password|passwd|secret|token|api[_-]?key|private[_-]?key)$",
    re.IGNORECASE,
)
_PLAIN = frozenset(("timestamp", "level", "logger", "request_id", "trace_id", "span_id"))
"""Fields whose digits are nobody's telephone number."""

_NUMBERS = re.compile(r"[0-9a-f]{8,}|\d+", re.IGNORECASE)
_DEEPEST = 6
_SHORT, _MOST_HARMLESS = 64, 4_096
_LARGEST = 2**63 - 1  # what a JSON line holds of whole numbers
_MARK = "_headgate"

Line = MutableMapping[str, Any]


def current_request_id() -> str | None:
    """The id of the call or request that is being served here; None outside of any."""
    return REQUEST_ID.get()


@contextmanager
def bound_request(request_id: str | None) -> Iterator[None]:
    """What is logged within carries this id; None binds none."""
    if request_id is None:
        yield
        return
    token = REQUEST_ID.set(request_id)
    try:
        yield
    finally:
        leave(token)


def setup_logging(
    *,
    json: bool | None = None,
    level: str | int = "INFO",
    stream: TextIO | None = None,
    secrets: Iterable[str] = (),
    personal_data: bool = False,
    repeat_seconds: float = 60.0,
    repeat_burst: int = 10,
) -> logging.Handler:
    """Write structlog's and the standard library's logs as one. Calling it again replaces what it made.

    Args:
        json: JSON lines, or a console for people; None: a console where the stream is a terminal.
        level: of the root logger.
        stream: where lines go; None: standard error.
        secrets: to be taken out besides what has the shape of a key.
        personal_data: leave personal data of a checkable form in. Keys are taken out always.
        repeat_seconds: of warnings and errors that differ in numbers only, `repeat_burst` are written
            in so many seconds, and the next one says how many were `like_it`; 0 writes all of them.

    Returns:
        The handler of the root logger.

    Raises:
        ConfigurationError: the level is none.
    """
    import structlog  # noqa: PLC0415 - slow to import, and only those who ask for it need it

    number = logging.getLevelNamesMapping().get(level) if isinstance(level, str) else level
    if number is None:
        raise ConfigurationError("level takes DEBUG, INFO, WARNING, ERROR or CRITICAL.")
    target = sys.stderr if stream is None else stream
    as_json = not target.isatty() if json is None else json
    redaction = _Redaction(secrets, personal_data=personal_data, lines=not as_json)
    handler = _Handler(target)
    handler.setFormatter(_formatter(structlog, redaction, as_json=as_json, colours=target.isatty()))
    if repeat_seconds > 0:
        handler.addFilter(_Repeated(repeat_seconds, repeat_burst))
    _install(handler, number)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(structlog),
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    return handler


def _install(handler: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    for old in list(root.handlers):
        if getattr(old, _MARK, False):
            root.removeHandler(old)
    setattr(handler, _MARK, True)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _NOISY:
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _shared(structlog: Any) -> list[Any]:
    """What happens to every line first, whoever wrote it."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_ids,
    ]


def _formatter(structlog: Any, redaction: _Redaction, *, as_json: bool, colours: bool) -> Any:
    renderer: Any
    if as_json:
        renderer = structlog.processors.JSONRenderer(serializer=_encoded)
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=colours, exception_formatter=structlog.dev.plain_traceback
        )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(structlog),
        processors=[
            _with_fields,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            *([structlog.processors.EventRenamer("message")] if as_json else []),
            redaction,
            renderer,
        ],
    )


def _with_ids(_logger: object, _method: str, line: Line) -> Line:
    """The ids of the request and the trace that are under way here."""
    request_id = line.get("request_id") or REQUEST_ID.get()
    if request_id is not None:
        line["request_id"] = request_id
    ids = TRACES.ids(request_id)
    if ids is not None:
        line["trace_id"], line["span_id"] = f"{ids[0]:032x}", f"{ids[1]:016x}"
    return line


def _with_fields(_logger: object, _method: str, line: Line) -> Line:
    """The fields that our own lines carry besides their text."""
    record = line.get("_record")
    for fields in (getattr(record, "headgate", None), getattr(record, "codegen", None)):
        if not isinstance(fields, Mapping):
            continue
        for name, value in fields.items():
            line.setdefault(name, value)
        if "trace_id" not in line:
            _with_ids(None, "", line)
    like_it = getattr(record, "like_it", 0)
    if like_it:
        line["like_it"] = like_it
    return line


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines. What cannot be written is told without what it was: that might hold a key."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name it overrides
        why = getattr(sys.exc_info()[0], "__name__", "?")
        line = {
            "message": f"a line of {record.name} could not be written: {why}",
            "level": "error",
            "logger": "headgate.telemetry",
        }
        with suppress(Exception):
            self.stream.write(f"{_encoded(line)}\n")


class _Redaction:
    """The last thing that happens to a line before it is rendered."""

    def __init__(self, secrets: Iterable[str], *, personal_data: bool, lines: bool) -> None:
        self._keys = Redactor(secrets)
        self._personal_data = personal_data
        self._lines = lines
        # Short texts in which nothing was found: levels, loggers, models come again and again. Never
        # one in which something was: no key is kept here.
        self._harmless: dict[bool, set[str]] = {False: set(), True: set()}

    def __call__(self, _logger: object, _method: str, line: Line) -> Line:
        for name, value in line.items():
            line[name] = MASK if _is_secret(name) else self._clean(value, name)
        if self._lines and isinstance(line.get("event"), str):
            line["event"] = one_line(line["event"])  # no text may pass for a line of its own
        return line

    def _clean(self, value: Any, name: str = "", depth: int = 0) -> Any:
        if isinstance(value, str):
            return self._text(value, name)
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return value if -_LARGEST <= value <= _LARGEST else str(value)
        if depth < _DEEPEST and isinstance(value, Mapping):
            return {
                self._text(str(key)): self._named(key, inner, depth) for key, inner in value.items()
            }
        if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
            return [self._clean(inner, name, depth + 1) for inner in value]
        shown = "…" if depth >= _DEEPEST else _repr(value)  # nothing after this looks into it
        return self._text(shown, name)

    def _named(self, key: object, value: Any, depth: int) -> Any:
        name = str(key)
        return MASK if _SECRET_NAMES.search(name) else self._clean(value, name, depth + 1)

    def _text(self, text: str, name: str = "") -> str:
        as_it_is = self._personal_data or name in _PLAIN
        harmless = self._harmless[as_it_is]
        if text in harmless:
            return text
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode()  # half a character must not lose the line
        safe = self._keys(text)
        if not as_it_is and find(safe):
            safe = take_out(safe).text
        if safe == text and len(text) <= _SHORT:
            if len(harmless) >= _MOST_HARMLESS:
                harmless.clear()
            harmless.add(text)
        return safe


class _Repeated(logging.Filter):
    """Leaves out what was just said, from WARNING on."""

    def __init__(self, seconds: float, burst: int) -> None:
        super().__init__()
        self._repeats = Repeats(seconds, burst=burst)
        self._lock = Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        try:
            text = record.msg.get("event") if isinstance(record.msg, dict) else record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit: whoever formats it will tell
            return True
        like = (record.name, record.levelno, _NUMBERS.sub("#", str(text)))
        with self._lock:
            left_out = self._repeats.hear(like, record.created)
        if left_out:
            record.like_it = left_out
        return left_out is not None


@lru_cache(maxsize=1_000)
def _is_secret(name: str) -> bool:
    """Of a field: its name is a word of some code."""
    return _SECRET_NAMES.search(name) is not None


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a stranger's code
        return f"<{type(value).__name__}>"


def _encoded(line: Line, **_: Callable[[Any], Any]) -> str:
    return msgspec.json.encode(dict(line)).decode()
