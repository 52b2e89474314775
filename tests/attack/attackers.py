"""The attackers: Debian's slowhttptest, wave after wave for as long as an attack lasts, and what became of their connections."""

import csv
import re
import statistics
import subprocess
import time
from dataclasses import dataclass, field

from stage import Broken


@dataclass(frozen=True)
class Mode:
    """One way to be slow."""

    name: str
    title: str
    path: str
    arguments: tuple


MODES = [
    Mode("header", "header: 10 bytes of a field every 5 s", "/api/whoami", ("-H", "-i", "5", "-x", "10")),
    Mode("body", "body: 10 bytes of 8 KiB every 5 s", "/api/upload", ("-B", "-s", "8192", "-i", "5", "-x", "10")),
    Mode("read", "read: 32 bytes of 1 MiB every 5 s, window 512–1024", "/api/large",
         ("-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32")),
    Mode("range", "range: 600 overlapping ranges of a file", "/assets/app.js", ("-R", "-a", "5", "-b", "600", "-t", "GET")),
]


@dataclass
class Waves:
    """What slowhttptest reported of its connections: `curve` has (seconds since the attack began, connected, closed so far)."""

    opened: int = 0
    closed: int = 0
    peak: int = 0
    curve: list = field(default_factory=list)
    lives: list = field(default_factory=list)

    @property
    def average(self):
        """Connections held, on average over the attack."""
        return statistics.mean(connected for _, connected, _ in self.curve) if self.curve else 0

    @property
    def life(self):
        """Seconds that half of a wave's connections lived, the median of the waves; None when they outlived the attack."""
        ended = [life for life in self.lives if life is not None]
        return statistics.median(ended) if ended else None


def attack(mode, url, connections, seconds, prefix):
    """Keeps `connections` slow clients busy for `seconds`: a wave that has been thrown out is followed by another."""
    waves = Waves()
    began = time.monotonic()
    number = 0
    while (left := seconds - (time.monotonic() - began)) > 1:
        wave(mode, url + mode.path, connections, max(2, round(left)), f"{prefix}-{number}", waves, time.monotonic() - began)
        number += 1
    if not waves.peak:
        raise Broken(f"slowhttptest ({mode.name}) never had a connection to {url}")
    return waves


def wave(mode, url, connections, seconds, prefix, waves, offset):
    command = ["slowhttptest", *mode.arguments, "-c", str(connections), "-r", str(min(connections, 1000)), "-l", str(seconds)]
    command += ["-p", "5", "-v", "0", "-u", url, "-g", "-o", str(prefix)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", timeout=seconds + 60)
    rows = []
    try:
        with open(f"{prefix}.csv", newline="") as file:
            rows = [(int(row["Seconds"]), int(row["Connected"]), int(row["Closed"]), int(row["Pending"])) for row in csv.DictReader(file)]
    except FileNotFoundError:
        pass
    if not rows:
        raise Broken(f"slowhttptest said nothing: {' '.join(command)}\n{done.stdout[-2000:]}")
    add(waves, rows, offset)


def add(waves, rows, offset):
    """One wave's report. A connection's life: from when half of the wave was open to when half of it was closed."""
    connected = max(row[1] for row in rows)
    total = max(row[1] + row[2] for row in rows)
    waves.opened += total
    waves.closed += max(row[2] for row in rows)
    waves.peak = max(waves.peak, connected)
    waves.curve += [(offset + second, open_, closed) for second, open_, closed, _ in rows]
    opened_half = next((second for second, open_, closed, _ in rows if open_ + closed >= total / 2), None)
    closed_half = next((second for second, _, closed, _ in rows if closed >= total / 2), None)
    waves.lives.append(closed_half - opened_half if closed_half is not None and opened_half is not None else None)


def version():
    said = subprocess.run(["slowhttptest", "-h"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    found = re.search(r"version ([\d.]+)", said)
    return f"slowhttptest {found.group(1) if found else '?'}"
