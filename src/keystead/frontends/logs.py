"""The log of `serve` and `worker`, on standard error: lines of text or of JSON, one event each (docs/howto/watch.md).

A line holds ids, names of the directory, codes, sizes and times. It never holds content, tokens, queries or bodies: nothing that comes
from a request but the name of a tenant that is there, and the caller's own. Of a defect the types of its errors and the places in the
program are written, and not the errors' texts: those may quote what was worked on.

The use cases write through the standard library's `logging`; so do the libraries. structlog gives all of it one form.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import structlog

from keystead.core.configuration import LogFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping
    from sys import UnraisableHookArgs

    from structlog.typing import EventDict, Processor

    from keystead.core.configuration import LogConfig
    from keystead.frontends.http.app import Seen

LEVELS: Mapping[str, int] = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_OF_LIBRARIES = logging.WARNING
"""What libraries say below that is of no use to an operator, and nobody here has looked through it for content."""
_DEEPEST = 30
"""Places of a defect that are written, the innermost."""
_WORD = re.compile(r"[!#-<>-~]+")
_SENTENCE = re.compile(r"[ -~]+")
_encode = msgspec.json.Encoder(enc_hook=repr).encode


class Log:
    """Where lines go: whole ones, one after another, whichever thread writes them."""

    def __init__(self, to: BinaryIO) -> None:
        self._to = to
        self._lock = threading.Lock()

    def msg(self, line: bytes) -> None:
        """Write a line. A reader who is gone is no reason to stop serving."""
        with self._lock:
            try:
                self._to.write(line + b"\n")
                self._to.flush()
            except (OSError, ValueError):
                return

    debug = info = warning = error = critical = exception = log = msg


class _Handler(logging.Handler):
    """Hands what came through the standard library to the log."""

    def __init__(self, log: Log, formatter: logging.Formatter, render: Callable[[MutableMapping[str, Any]], bytes]) -> None:
        super().__init__()
        self._log = log
        self._render = render
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; one that cannot be put into words must not fail the call it tells of."""
        try:
            line = self.format(record).encode()
        except Exception:  # noqa: BLE001 - as said
            line = self._render({"level": record.levelname.lower(), "event": "a line could not be written", "logger": record.name})
        self._log.msg(line)


class RequestLog:
    """One line for each call; an `Observer` of the HTTP front end."""

    def __init__(self, log: structlog.typing.FilteringBoundLogger) -> None:
        self._log = log

    def began(self) -> None:
        """Nothing is written before the answer is known."""

    def ended(self, seen: Seen) -> None:
        """The line: a warning where the service failed, else information; pages that programs look at all the time only for debugging."""
        if seen.status >= 500 or seen.code == "cut_off":
            write = self._log.warning
        elif seen.route.startswith("/") and not seen.code:
            write = self._log.debug
        else:
            write = self._log.info
        write(
            "request",
            request_id=seen.request_id,
            route=seen.route,
            method=seen.method,
            tenant=seen.tenant,
            upn=seen.upn,
            status=seen.status,
            code=seen.code,
            ms=round(seen.seconds * 1_000, 1),
            received=seen.received,
            sent=seen.sent,
            client_ip=seen.client_ip,
        )


def start_log(config: LogConfig, to: BinaryIO | None = None) -> RequestLog:
    """Send all that is logged in this process to standard error, in the configured form.

    Returns:
        What writes the lines of requests.
    """
    level = LEVELS[config.level]
    log = Log(sys.stderr.buffer if to is None else to)
    render = _as_json if config.format is LogFormat.JSON else _as_text
    shared: list[Processor] = [structlog.stdlib.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder(), _places, _without_leftovers],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, lambda _log, _name, event: render(event).decode()],
        pass_foreign_args=False,
    )
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, _Handler)]:
        root.removeHandler(handler)
    root.addHandler(_Handler(log, formatter, render))
    root.setLevel(max(level, _OF_LIBRARIES))
    logging.getLogger("keystead").setLevel(level)
    logging.captureWarnings(capture=True)
    threading.excepthook = _thread_ended
    sys.unraisablehook = _unraisable
    return RequestLog(
        structlog.wrap_logger(
            log,
            processors=[*shared, lambda _log, _name, event: render(event)],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            cache_logger_on_first_use=True,
        ).bind(logger="keystead.http")
    )


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    """A defect that ended a thread; the interpreter itself would print its text."""
    if ended.exc_type is SystemExit:
        return
    name = ended.thread.name if ended.thread is not None else ""
    error = ended.exc_value or ended.exc_type()
    logging.getLogger("keystead").error("a thread met a defect and ended", exc_info=error, extra={"thread_name": name})


def _unraisable(met: UnraisableHookArgs) -> None:
    """A defect in the middle of clearing something away, as above."""
    logging.getLogger("keystead").error("clearing away met a defect", exc_info=met.exc_value or met.exc_type())


def _without_leftovers(_log: object, _name: str, event: EventDict) -> EventDict:
    """What another handler may have put on the record is no field."""
    for name in ("message", "asctime"):
        event.pop(name, None)
    return event


def _places(_log: object, _name: str, event: EventDict) -> EventDict:
    """Of an exception its types, and where it was; never its text."""
    raised = event.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()
    error = raised[1] if isinstance(raised, tuple) else raised
    if isinstance(error, BaseException):
        event["defect"] = type(error).__qualname__
        event["places"] = [line for one in _chain(error) for line in _described(one)][-_DEEPEST:]
    return event


def _chain(error: BaseException) -> list[BaseException]:
    """The errors behind an error, the first first."""
    found = [error]
    while len(found) < _DEEPEST and (behind := found[0].__cause__ or found[0].__context__) is not None and behind not in found:
        found.insert(0, behind)
    return found


def _described(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)
    return [*(f"{_module(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames), type(error).__qualname__]


def _module(filename: str) -> str:
    """A file by its place below the packages: where they are installed says nothing."""
    for root in ("/src/", "/site-packages/", "/python3"):
        _before, found, after = filename.rpartition(root)
        if found:
            return after
    return filename


def _as_json(event: MutableMapping[str, Any]) -> bytes:
    return _encode({"time": event.pop("time", ""), "level": event.pop("level", ""), "event": event.pop("event", ""), **event})


def _as_text(event: MutableMapping[str, Any]) -> bytes:
    """Time, level, event, then NAME=VALUE; a value with a space, a quote or anything beyond ASCII is written as JSON."""
    head = f"{event.pop('time', '')} {event.pop('level', ''):7} {_word(event.pop('event', ''), spaces=True)}"
    return " ".join([head, *(f"{name}={_word(value)}" for name, value in event.items() if value != "")]).encode("ascii")


def _word(value: object, *, spaces: bool = False) -> str:
    if not isinstance(value, str):
        return str(value) if isinstance(value, int | float) else json.dumps(value, default=repr)
    return value if (_SENTENCE if spaces else _WORD).fullmatch(value) else json.dumps(value)
