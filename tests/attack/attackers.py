"""The attackers: Debian's slowhttptest, wave after wave for as long as an attack lasts. What becomes of their connections is
looked at from the server's side: slowhttptest does not notice it when a connection is reset that it reads from slowly."""

import csv
import re
import subprocess
import time
from dataclasses import dataclass

from stage import Broken


@dataclass(frozen=True)
class Mode:
    """One way to be slow."""

    name: str
    title: str
    path: str
    arguments: tuple
    # Long enough for what cuts them off to be seen: 15 s for a head, a minute for bodies and answers.
    seconds: int = 75


MODES = [
    Mode("header", "header: 10 bytes of a field every 5 s", "/api/whoami", ("-H", "-i", "5", "-x", "10"), 40),
    Mode("body", "body: 10 bytes of 8 KiB every 5 s", "/api/upload", ("-B", "-s", "8192", "-i", "5", "-x", "10")),
    Mode("read", "read: 32 bytes of 1 MiB every 5 s, window 512–1024", "/api/large",
         ("-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32")),
    Mode("range", "range: 600 overlapping ranges of a file", "/assets/app.js", ("-R", "-a", "5", "-b", "600", "-t", "GET"), 40),
]


def attack(mode, url, connections, seconds, prefix):
    """Keeps `connections` slow clients busy for `seconds`: a wave that has been thrown out is followed by another. How many there were."""
    began = time.monotonic()
    opened = number = 0
    while (left := seconds - (time.monotonic() - began)) > 1:
        opened += wave(mode, url + mode.path, connections, max(2, round(left)), f"{prefix}-{number}")
        number += 1
    if not opened:
        raise Broken(f"slowhttptest ({mode.name}) never had a connection to {url}")
    return opened


def wave(mode, url, connections, seconds, prefix):
    command = ["slowhttptest", *mode.arguments, "-c", str(connections), "-r", str(min(connections, 1000)), "-l", str(seconds)]
    command += ["-p", "5", "-v", "0", "-u", url, "-g", "-o", prefix]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", timeout=seconds + 60)
    try:
        with open(f"{prefix}.csv", newline="") as file:
            return max(int(row["Connected"]) + int(row["Closed"]) for row in csv.DictReader(file))
    except (FileNotFoundError, ValueError):
        raise Broken(f"slowhttptest said nothing: {' '.join(command)}\n{done.stdout[-2000:]}") from None


def version():
    said = subprocess.run(["slowhttptest", "-h"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    found = re.search(r"version ([\d.]+)", said)
    return f"slowhttptest {found.group(1) if found else '?'}"
