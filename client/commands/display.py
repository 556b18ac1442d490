"""The command's display: live rows while a session runs (on a terminal only), and a table or JSON at its end."""

import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, Self, TextIO

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from neucodec_streaming.client.devices import Microphone, Speaker
from neucodec_streaming.client.events import Resumed
from neucodec_streaming.client.session import LiveSession
from neucodec_streaming.client.transfer import TransferReport

_BARS = " ▁▂▃▄▅▆▇█"
_QUIETEST_DB = -60.0
_LABEL_WIDTH = 10


def level_bar(audio: np.ndarray) -> str:
    """The level of a packet as one character."""
    power = float(np.mean(np.square(audio))) if audio.size else 0.0
    decibels = 10 * np.log10(power + 1e-12)
    step = (decibels - _QUIETEST_DB) / -_QUIETEST_DB * (len(_BARS) - 1)
    return _BARS[int(np.clip(round(step), 0, len(_BARS) - 1))]


class LiveRows:
    """Named rows on standard error that change in place: show(rows); a context manager.

    Silent if standard error is not a terminal, or with `quiet`. A row's value has room for `width` characters. While a
    watched session's connection is lost, a row says so, with the seconds.
    """

    def __init__(self, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._console = console if console.is_terminal and not quiet else None
        self._live: Live | None = None
        self.width = max(20, console.width - _LABEL_WIDTH - 2)
        self._rows: dict[str, str] = {}
        self._watched: list[LiveSession] = []

    def watch(self, *sessions: LiveSession) -> None:
        """Sessions whose lost connections are shown."""
        self._watched.extend(sessions)

    def show(self, rows: dict[str, str]) -> None:
        self._rows = rows

    def rows(self) -> dict[str, str]:
        lost = [session.lost_s for session in self._watched if session.lost_s is not None]
        return {**self._rows, "connection": f"lost, reconnecting for {max(lost):.0f} s"} if lost else self._rows

    def _table(self) -> Table:
        table = Table.grid(Column(width=_LABEL_WIDTH), Column(), padding=(0, 2, 0, 0))
        for name, value in self.rows().items():
            table.add_row(name, Text(value))
        return table

    def __enter__(self) -> Self:
        if self._console is not None:
            self._live = Live(console=self._console, refresh_per_second=8, get_renderable=self._table)
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()


class ProgressLine(LiveRows):
    """One row for the session of a file, passed to transfer as `on_progress`; `report` is the latest."""

    def __init__(self, total_seconds: float | None = None, quiet: bool = False) -> None:
        super().__init__(quiet)
        self._total_seconds = total_seconds
        self._heard_seconds: Callable[[], float] | None = None
        self.report: TransferReport | None = None

    def __call__(self, report: TransferReport) -> None:
        self.report = report

    def follow(self, heard_seconds: Callable[[], float]) -> None:
        """Also shows how much has been heard."""
        self._heard_seconds = heard_seconds

    @property
    def heard_seconds(self) -> float:
        return self._heard_seconds() if self._heard_seconds is not None else 0.0

    def rows(self) -> dict[str, str]:
        if self._heard_seconds is not None:
            total = f" of {self._total_seconds:.1f}" if self._total_seconds else ""
            self._rows["played"] = f"{self.heard_seconds:.1f}{total} s"
        if self.report is not None:
            self._rows["sent"] = progress(self.report, self._total_seconds)
        return super().rows()


def progress(report: TransferReport, total_seconds: float | None = None) -> str:
    """A session's progress in one line."""
    total = f" of {total_seconds:.1f}" if total_seconds else ""
    parts = [f"{report.input_seconds:.1f}{total} s", f"{report.tokens} tokens", f"{report.elapsed_s:.1f} s passed"]
    if report.first_output_s is not None:
        parts.append(f"first output {report.first_output_s * 1000:.0f} ms")
    if report.resumed:
        parts.append(f"reconnected {len(report.resumed)} time{'s' * (len(report.resumed) != 1)}")
    return "  ".join(parts)


async def announced(microphone: Microphone, quiet: bool) -> AsyncIterator[np.ndarray]:
    """The microphone's packets. Says on standard error when the first one has arrived, since devices may start slowly,
    and warns once of digital silence; not with `quiet`.
    """
    has_started = has_warned = quiet
    async for packet in microphone:
        if not has_started:
            has_started = True
            print(f"recording from {microphone.name!r}: press Ctrl-C to stop", file=sys.stderr, flush=True)
        if microphone.is_muted and not has_warned:
            has_warned = True
            print(
                f"microphone {microphone.name!r} delivers only silence: is it muted, or blocked for this program?",
                file=sys.stderr,
            )
        yield packet


def underruns_of(speaker: Speaker) -> dict[str, int]:
    """Counts for a summary: gaps from late audio, and from a late process or device."""
    return {"underruns": speaker.underruns, "device_underruns": speaker.underflows}


def latency_sum(parts: dict[str, float]) -> str:
    """Times in ms by name, and their sum."""
    named = " + ".join(f"{name} {milliseconds:.0f}" for name, milliseconds in parts.items())
    return f"{named} = {sum(parts.values()):.0f} ms"


def print_report(
    report: TransferReport, extra: dict[str, Any], as_json: bool, piped: bool, is_paced: bool = False
) -> None:
    """Prints the summary of a session: to standard output, or to standard error if the output itself went there.

    `is_paced`: input or output had a pace of its own, so that there is no real-time factor to report.
    """
    stream = sys.stderr if piped else sys.stdout
    if as_json:
        figures = {**extra, **report.as_dict()}
        if is_paced:
            del figures["real_time_factor"]
        print(json.dumps(figures), file=stream)
        return
    rows = {
        **{name.replace("_", " "): _shown(value) for name, value in extra.items() if value is not None},
        "model": f"{report.ready.model}, profile {report.ready.profile}, latency {report.ready.latency_ms:g} ms",
        "audio": f"{max(report.input_seconds, report.output_seconds):.2f} s",
        "tokens": f"{report.tokens} ({report.bits_per_second:.0f} bit/s)",
        "time": f"{report.elapsed_s:.2f} s"
        + ("" if is_paced else f" (real-time factor {report.real_time_factor:.3f})"),
    }
    if report.first_output_s is not None:
        rows["first output"] = f"after {report.first_output_s * 1000:.0f} ms"
    if report.resumed:
        rows["reconnected"] = "; ".join(_told(resumed, report) for resumed in report.resumed)
    print_rows(rows, stream)


def _shown(value: Any) -> str:
    return ", ".join(f"{name} {each}" for name, each in value.items()) if isinstance(value, dict) else str(value)


def _told(resumed: Resumed, report: TransferReport) -> str:
    unit = report.ready.output.unit + "s" * (resumed.gap != 1)
    missing = f", missing: {resumed.gap} {unit}" if resumed.gap > 0 else ""
    stale = f", {resumed.dropped_seconds:.1f} s of input were too old" if resumed.dropped_seconds else ""
    return resumed.how + missing + stale


def print_rows(rows: dict[str, str], stream: TextIO) -> None:
    """Names and values in two columns, without line breaks, so that a path can be copied."""
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}", file=stream)


def print_devices(devices: list[dict[str, Any]], as_json: bool) -> None:
    """Prints the list of audio devices."""
    if as_json:
        print(json.dumps(devices))
        return
    table = Table("", "name", "host API", "in", "out", "rate", box=None, pad_edge=False)
    for device in devices:
        mark = "*" if device["default"] else " "
        shown = (str(device[name]) for name in ("name", "host_api", "inputs", "outputs", "rate"))
        table.add_row(f"{mark}{device['index']}", *shown)
    Console(highlight=False).print(table if devices else "no audio devices")
