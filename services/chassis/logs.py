"""Logs on stderr: JSON lines with trace ids for machines, plain lines for a terminal. Never payloads, never keys."""

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Final, TextIO

#: Attributes that a call site may pass as `extra`.
_EXTRAS: Final = ("trace_id", "model", "version", "method", "address", "reason")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, process, logger, message, the known extras, error and traceback."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; values that JSON lacks are written as text."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: getattr(record, name) for name in _EXTRAS if hasattr(record, name)})
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class HumanFormatter(logging.Formatter):
    """`12:34:56 warning vision-0: message (trace ...)`, then the traceback."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line or lines."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        trace_id = getattr(record, "trace_id", "")
        trace = f" (trace {trace_id})" if trace_id else ""
        text = f"{clock} {record.levelname.lower():7} {self._process}: {record.getMessage()}{trace}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def set_up(level: str, process: str, stream: TextIO | None = None) -> None:
    """Send the process's logs and warnings to `stream` (stderr); called once at the root of a process."""
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(HumanFormatter(process) if stream.isatty() else JsonFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
