"""Load on one server, and what it cost: wrk for HTTP/1.1, h2load for HTTP/2, CPU time from /proc.

A run whose answers are not what they should be raises Broken: there are no numbers without right answers."""

import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

# A web client's request is not a bare GET.
CLIENT_HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "application/json",
    "Accept-Language": "en-GB,en;q=0.5",
    "Referer": "https://app.example.com/",
    "Origin": "https://app.example.com",
    "Authorization": "Bearer mat_0123456789abcdefghijklmnopqrstuvwxyz",
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "cross-site",
}

# Status line and header fields of any answer here are shorter.
LARGEST_HEAD = 2000


class Broken(Exception):
    """A run that measured something else than it should have."""


@dataclass(frozen=True)
class Scenario:
    """One kind of request, the same for both proxies."""

    name: str
    title: str
    host: str
    path: str
    size: int
    tls: bool
    http2: bool = False
    close: bool = False
    connections: int = 64
    headers: dict = field(default_factory=dict)

    def url(self, server):
        scheme, port = ("https", server.https) if self.tls else ("http", server.http)
        return f"{scheme}://localhost:{port}{self.path}"

    def all_headers(self):
        return CLIENT_HEADERS | self.headers


@dataclass(frozen=True)
class Run:
    """What one run yielded."""

    requests: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self):
        return self.requests / self.seconds

    @property
    def cpu_microseconds(self):
        return self.cpu_seconds * 1e6 / self.requests


def measure(server, scenario, seconds):
    """Loads the server and returns a Run."""
    before = cpu_seconds(server.pids())
    if scenario.http2:
        requests, elapsed = run_h2load(server, scenario, seconds)
    else:
        requests, elapsed = run_wrk(server, scenario, seconds)
    return Run(requests, elapsed, cpu_seconds(server.pids()) - before)


def run_wrk(server, scenario, seconds):
    headers = scenario.all_headers() | {"Host": scenario.host}
    if scenario.close:
        headers["Connection"] = "close"
    return wrk(scenario.url(server), scenario.connections, seconds, scenario.size, headers)


def wrk(url, connections, seconds, size, headers=None, script="report.lua", arguments=(), exact=True):
    """One run of wrk; (requests, seconds). Every body must have had `size` bytes, or at least that when not `exact`."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(HERE / script)]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    output = run([*command, url, "--", *arguments])
    line = next((line for line in output.splitlines() if line.startswith("result ")), None)
    if line is None:
        raise Broken(f"wrk said nothing about {url}:\n{output}")
    result = json.loads(line.removeprefix("result "))
    faults = {kind: result[kind] for kind in ("connect", "read", "write", "status", "timeout") if result[kind]}
    if faults or result["requests"] == 0:
        raise Broken(f"{url}: {result['requests']} requests, faults: {faults}")
    most = (result["requests"] + connections) * (size + LARGEST_HEAD)
    if not result["requests"] * size < result["bytes"] or (exact and result["bytes"] > most):
        raise Broken(f"{url}: {result['requests']} answers of {size} bytes cannot be {result['bytes']} bytes")
    return result["requests"], result["microseconds"] / 1e6


def run_h2load(server, scenario, seconds):
    streams = 20
    connections = max(1, scenario.connections // 4)
    command = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", "-D", str(seconds)]
    for name, value in (scenario.all_headers() | {":authority": scenario.host}).items():
        command += ["-H", f"{name.lower()}: {value}"]
    output = run([*command, scenario.url(server)])
    if "Application protocol: h2" not in output:
        raise Broken(f"{scenario.url(server)}: not HTTP/2:\n{output}")
    rate = re.search(r"finished in ([\d.]+)(m?s),", output)
    counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output)
    data = re.search(r"\((\d+)\) data", output)
    if not (rate and counts and codes and data):
        raise Broken(f"h2load said something unexpected:\n{output}")
    done, succeeded, *faults = map(int, counts.groups())
    good, *bad = map(int, codes.groups())
    if done == 0 or succeeded != done or any(faults) or any(bad) or good < done:
        raise Broken(f"{scenario.url(server)}: {counts.group(0)}; {codes.group(0)}")
    received = int(data.group(1))
    if not done * scenario.size <= received <= (done + connections * streams) * scenario.size:
        raise Broken(f"{scenario.url(server)}: {done} answers of {scenario.size} bytes cannot be {received} bytes")
    return done, float(rate.group(1)) / (1000 if rate.group(2) == "ms" else 1)


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    if done.returncode:
        raise Broken(f"{' '.join(command)}: exit code {done.returncode}:\n{done.stdout}")
    return done.stdout


def cpu_seconds(pids):
    """User and system time of these processes since they started."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_SECOND


def resident_bytes(pids):
    """Resident memory of these processes; what they share counts for each."""
    total = 0
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024
    return total
