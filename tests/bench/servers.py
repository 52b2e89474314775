"""The servers of a measure: started with the configuration files beside this one, stopped at the end."""

import contextlib
import http.client
import os
import pwd
import secrets
import socket
import ssl
import string
import subprocess
import time
from pathlib import Path

from load import Broken

HERE = Path(__file__).resolve().parent

SMALL_BODY = '{"user_id":"@alice:example.com","is_guest":false,"device_id":"ABCDEFGHIJ","org.example.note":"one hundred and twenty b"}'
LARGE_BYTES = 1 << 20
ASSET_BYTES = 10 << 10


class Template(string.Template):
    """`@{name}` is replaced; nginx's `$variables` are not."""

    delimiter = "@"
    pattern = r"""@(?:(?P<escaped>@)(?!\{)|(?P<named>(?!))|\{(?P<braced>[a-z_]+)\}|(?P<invalid>(?!)))"""


class Server:
    """A running process with its children."""

    def __init__(self, name, command, folder, ports, http=None, https=None):
        self.name = name
        self.http = http
        self.https = https
        self._command = command
        self._log = folder / f"{name}.out"
        self._ports = ports
        self._process = None

    def start(self):
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        for port in self._ports:
            while not can_connect(port):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise Broken(f"{self.name} did not start:\n{self.log()}")
                time.sleep(0.05)
        return self

    def stop(self):
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def all_ports(self):
        return {*self._ports, self.http, self.https}

    def pids(self):
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def log(self):
        return self._log.read_text(errors="replace")[-4000:]


class Stage:
    """A temporary folder with everything the servers need, and the servers."""

    def __init__(self, folder, gatehouse, workers, ungated=None):
        self.folder = folder
        self.values = {
            "folder": folder,
            "workers": workers,
            "small_body": SMALL_BODY,
            "secret": secrets.token_hex(24),
            "user_line": f"user {pwd.getpwuid(os.geteuid()).pw_name};" if os.geteuid() == 0 else "",
            **free_ports("upstream", "nginx_http", "nginx_https", "gatehouse_http", "gatehouse_https", "auth"),
            "data": folder / "data",
        }
        self.asset = self._make_files()
        for name in ("data", "data-without-gate", "auth"):
            (folder / name).mkdir(mode=0o700)
        self.gatehouse_program = gatehouse
        self.upstream = self._nginx("upstream", "upstream.conf", ["upstream"])
        self.nginx = self._nginx("nginx", "nginx.conf", ["nginx_http", "nginx_https"])
        gatehouse_ports = ["gatehouse_http", "gatehouse_https"]
        self.gatehouse = self._server("gatehouse", [gatehouse, "run", "-c", self._render("gatehouse.yaml")], gatehouse_ports)
        if ungated:
            others = {"data": folder / "data-without-gate", **free_ports(*gatehouse_ports)}
            command = [ungated, "run", "-c", self._render("gatehouse.yaml", "without-gate.yaml", others)]
            ports = [others[port] for port in gatehouse_ports]
            self.ungated = Server("without-gate", command, folder, ports, *ports)
        self.auth_config = self._render("auth.yaml")
        auth_program = gatehouse.with_name("gatehouse-auth")
        self.auth = self._server("auth", [auth_program, "-c", self.auth_config], ["auth"])

    @contextlib.contextmanager
    def running(self, *servers):
        """The servers, started afresh, for as long as the `with` lasts."""
        try:
            for server in servers:
                server.start()
            yield
        finally:
            for server in reversed(servers):
                server.stop()

    def _nginx(self, name, config, ports):
        return self._server(name, ["nginx", "-p", self.folder, "-c", self._render(config)], ports)

    def _server(self, name, command, ports):
        numbers = [self.values[port] for port in ports]
        return Server(name, command, self.folder, numbers, *numbers)

    def _render(self, name, target=None, values={}):
        path = self.folder / (target or name)
        path.write_text(Template((HERE / name).read_text()).substitute(self.values | values))
        path.chmod(0o600)
        return path

    def _make_files(self):
        """The bodies; the compressed ones are noise of the right size, for nobody decodes them."""
        (self.folder / "large").write_bytes(os.urandom(LARGE_BYTES))
        assets = self.folder / "share/assets"
        assets.mkdir(parents=True)
        content = {"": os.urandom(ASSET_BYTES * 4), ".br": os.urandom(ASSET_BYTES), ".gz": os.urandom(ASSET_BYTES)}
        for suffix, body in content.items():
            (assets / f"app.js{suffix}").write_bytes(body)
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-days", "30", "-subj", "/CN=matrix.example.com"]
        command += ["-addext", "subjectAltName=DNS:matrix.example.com,DNS:auth.example.com"]
        command += ["-keyout", self.folder / "key.pem", "-out", self.folder / "certificate.pem"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return {"br": content[".br"], "gzip": content[".gz"]}


def check_answer(server, scenario, body):
    """One answer in full: status, coding, and every byte of the body."""
    connection = connect(server, scenario.tls, scenario.host)
    connection.request("GET", scenario.path, headers=scenario.all_headers() | {"Host": scenario.host})
    answer = connection.getresponse()
    received = answer.read()
    connection.close()
    wanted = scenario.headers.get("Accept-Encoding")
    if answer.status != 200 or received != body or answer.getheader("Content-Encoding") != wanted:
        raise Broken(f"{server.name}, {scenario.name}: {answer.status}, {len(received)} bytes, {answer.getheaders()}")


def refuses_spaces(server):
    """Whether a target with a space is refused by the server itself: no upstream answers 400 to it."""
    with socket.create_connection(("127.0.0.1", server.http), timeout=20) as connection:
        connection.sendall(b"GET /_matrix/a b HTTP/1.1\r\nHost: matrix.example.com\r\n\r\n")
        return connection.recv(4096).startswith(b"HTTP/1.1 400 ")


def connect(server, tls, host):
    """A connection of HTTP/1.1; with TLS for that server name."""
    if not tls:
        return http.client.HTTPConnection("127.0.0.1", server.http, timeout=20)
    connection = http.client.HTTPConnection("127.0.0.1", server.https, timeout=20)
    plain = socket.create_connection(("127.0.0.1", server.https), timeout=20)
    connection.sock = CLIENT_CONTEXT.wrap_socket(plain, server_hostname=host)
    return connection


def client_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


CLIENT_CONTEXT = client_context()


def can_connect(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def free_ports(*names):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return {name: sock.getsockname()[1] for name, sock in zip(names, sockets)}
