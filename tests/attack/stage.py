"""nginx, Gatehouse and their upstream, set up alike, and a look at them every half second while they are attacked."""

import os
import pwd
import resource
import secrets
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "bench"))

# Broken is for those who import it from here.
from load import Broken, cpu_seconds, resident_bytes  # noqa: E402, F401
from servers import SMALL_BODY, Server, Template, free_ports  # noqa: E402

HOST = "matrix.example.com"
LARGE_BYTES = 1 << 20
PORTS = ("upstream", "uploads", "nginx_http", "nginx_https", "gatehouse_http", "gatehouse_https")


class Stage:
    """A temporary folder with everything the servers need."""

    def __init__(self, folder, gatehouse, header_seconds, body_seconds):
        self.folder = folder
        self.gatehouse_program = gatehouse
        self.ca = folder / "certificate.pem"
        self._values = {
            "folder": folder,
            "small_body": SMALL_BODY,
            "header": header_seconds,
            "body": body_seconds,
            "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            "user_line": f"user {pwd.getpwuid(os.geteuid()).pw_name};" if os.geteuid() == 0 else "",
        }
        self._make_files()

    def upstream(self):
        values = self._fresh()
        return self._nginx("upstream", values, "upstream", "upstream")

    def nginx(self, upstream, per_address):
        """With at most `per_address` connections of one address that are in a request, None for no limit."""
        limit = "" if per_address is None else (
            f"limit_conn_zone $binary_remote_addr zone=address:10m; limit_conn address {per_address}; limit_conn_status 503;")
        values = self._fresh(upstream=upstream.http, nginx_limit=limit)
        return self._nginx("nginx", values, "nginx_http", "nginx_https")

    def gatehouse(self, upstream, per_address, limits="", listeners=()):
        """With its defaults when `per_address` is None, `limits` (YAML, below `edge`), and more listeners without TLS."""
        values = self._fresh(upstream=upstream.http)
        lines = [limits] if limits else []
        if per_address is not None:
            lines.append(f"limits: {{max_connections_per_ip: {per_address}}}")
        values["gatehouse_limits"] = "\n  ".join(lines)
        more = free_ports(*listeners)
        values["gatehouse_listeners"] = "\n    ".join(
            f'- {{name: {name}, binds: [{{address: "127.0.0.1:{port}"}}]}}' for name, port in more.items())
        configuration = self._render("gatehouse.yaml", values)
        ports = [values["gatehouse_http"], values["gatehouse_https"], *more.values()]
        server = Server("gatehouse", [self.gatehouse_program, "run", "-c", configuration], self.folder, ports, *ports[:2])
        server.more = more
        return server

    def _fresh(self, **more):
        """Ports of its own for each server: none waits for the connections of the one before."""
        return self._values | free_ports(*PORTS) | more

    def _nginx(self, name, values, http, https):
        configuration = self._render(f"{name}.conf", values)
        return Server(name, ["nginx", "-p", self.folder, "-c", configuration], self.folder, [values[http]], values[http], values[https])

    def _render(self, name, values):
        path = self.folder / name
        path.write_text(Template((HERE / name).read_text()).substitute(values))
        path.chmod(0o600)
        return path

    def _make_files(self):
        (self.folder / "large").write_bytes(secrets.token_bytes(LARGE_BYTES))
        assets = self.folder / "share/assets"
        assets.mkdir(parents=True)
        (assets / "app.js").write_bytes(secrets.token_bytes(40 << 10))
        (self.folder / "data").mkdir(mode=0o700)
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
        command += ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-addext", "basicConstraints=critical,CA:FALSE"]
        command += ["-keyout", self.folder / "key.pem", "-out", self.ca]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@dataclass
class Look:
    """What one server's processes had at a moment."""

    at: float
    descriptors: int
    resident: int
    # Connections of attackers to each port.
    held: dict


class Watch:
    """Looks at a server every half second while the `with` lasts, and at the descriptors of its upstream."""

    def __init__(self, server, upstream):
        self._server, self._upstream = server, upstream
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.looks = []
        self.upstream_peak = 0

    def __enter__(self):
        self.before = self._look()
        self._upstream_before = descriptors(self._upstream)
        self._cpu_before = cpu_seconds(self._server.pids())
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self.cpu_seconds = cpu_seconds(self._server.pids()) - self._cpu_before
        self.seconds = time.monotonic() - self.before.at

    @property
    def peak_descriptors(self):
        return max(look.descriptors for look in self.looks)

    @property
    def peak_resident(self):
        return max(look.resident for look in self.looks)

    def _run(self):
        while not self._stop.wait(0.5):
            self.looks.append(self._look())
            self.upstream_peak = max(self.upstream_peak, descriptors(self._upstream) - self._upstream_before)

    def average(self, port):
        """Connections that attackers held to a port, on average."""
        return statistics.mean(look.held.get(port, 0) for look in self.looks)

    def peak(self, port):
        return max(look.held.get(port, 0) for look in self.looks)

    def life(self, port):
        """Seconds from when half of the most was open to when half of it was closed again; None when that never came."""
        half = self.peak(port) / 2
        opened = next((look.at for look in self.looks if look.held.get(port, 0) >= half), None)
        closed = next((look.at for look in self.looks if opened and look.at > opened and look.held.get(port, 0) < half), None)
        return closed - opened if closed else None

    def left(self, patience):
        """Descriptors that the server has more than before, once it has had time to close what was open."""
        deadline = time.monotonic() + patience
        while (left := descriptors(self._server) - self.before.descriptors) > 0 and time.monotonic() < deadline:
            time.sleep(0.5)
        return left

    def _look(self):
        held = held_by_attackers(self._server.all_ports())
        return Look(time.monotonic(), descriptors(self._server), resident_bytes(self._server.pids()), held)


def held_by_attackers(ports):
    """How many established connections from 127.0.0.1 there are to each of these ports; the honest clients have another address."""
    held = {}
    with open("/proc/net/tcp") as table:
        next(table)
        for line in table:
            _, local, remote, state, *_ = line.split(maxsplit=4)
            if state == "01" and remote.startswith("0100007F:") and (port := int(local.partition(":")[2], 16)) in ports:
                held[port] = held.get(port, 0) + 1
    return held


def descriptors(server):
    """Open descriptors of all of a server's processes. Linux 6.2 and later say their number as the folder's size."""
    total = 0
    for pid in server.pids():
        folder = f"/proc/{pid}/fd"
        total += os.stat(folder).st_size or len(os.listdir(folder))
    return total
