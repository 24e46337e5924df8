"""A progress bar on standard error: redrawn in place on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time

BAR_CHARACTERS = 30
REDRAW_SECONDS = 0.2
# In a log a line each so many seconds is enough.
LOG_SECONDS = 15.0


class Progress:
    """Counts up to `total`; `note` is a word on what is under way."""

    def __init__(self, label: str, total: int) -> None:
        self.label = label
        self.total = max(total, 1)
        self.done = 0
        self.started = time.monotonic()
        self.drawn = 0.0
        self.is_terminal = sys.stderr.isatty()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Adds `count` and draws if it is time."""
        self.done += count
        now = time.monotonic()
        interval = REDRAW_SECONDS if self.is_terminal else LOG_SECONDS
        if now - self.drawn >= interval or self.done >= self.total:
            self.drawn = now
            self.draw(note)

    def draw(self, note: str) -> None:
        """Prints the bar with the time that is likely left."""
        share = min(self.done / self.total, 1.0)
        elapsed = time.monotonic() - self.started
        left = elapsed / share * (1 - share) if share > 0 else 0.0
        filled = int(share * BAR_CHARACTERS)
        bar = "#" * filled + "." * (BAR_CHARACTERS - filled)
        line = f"{self.label} [{bar}] {self.done}/{self.total} {elapsed:.0f}s, {left:.0f}s left {note}"
        if self.is_terminal:
            sys.stderr.write("\r\x1b[K" + line[:160] + ("\n" if self.done >= self.total else ""))
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()
