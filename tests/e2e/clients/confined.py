"""Installs Gatehouse into a file system of its own, by the commands of conf/systemd/README.md, and runs it there as confined as its
unit says, as far as that goes without a systemd that runs.

Debian's own Python runs this, as root; python3-seccomp is Debian's. Called with one argument, JSON:
  repository, gatehouse, gatehouse-auth: paths; folder: one to work in; install, start, certbot, socket, auth: shell commands from the README;
  certificate, key, ca: PEM; synapse: port of a Synapse on loopback.
Says what was done, one line for each step. An assertion that fails is the end, and the exit code 1.

What is real: the user, capabilities, no_new_privs, the filters of system calls (of SystemCallFilter=, RestrictAddressFamilies=,
RestrictNamespaces=, MemoryDenyWriteExecute=, LockPersonality=, RestrictSUIDSGID=, RestrictRealtime=), mounts (ProtectSystem=,
ProtectHome=, PrivateTmp=, PrivateDevices=, ProtectKernelTunables=, ProtectProc=), umask, limits, notifications. A system call that the
unit forbids kills the process here, so that none goes unnoticed. A filter of the kernel's is for one architecture: the machine's.
"""

import ctypes
import json
import os
import pwd
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWIPC = 0x00020000, 0x40000000, 0x08000000
NAMESPACES = 0x02000000 | 0x04000000 | CLONE_NEWIPC | 0x10000000 | CLONE_NEWNET | CLONE_NEWNS | 0x20000000 | 0x80
PATIENCE = 60


def say(*words):
    print(*words, flush=True)


def run(*command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, **more)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout


def unshare(flags):
    if LIBC.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


# --- the file system ---------------------------------------------------------------------------------------------------


def build_root(job):
    """A Debian as it is here, with an /etc, a /var and a /usr/local of its own, and this repository as far as the commands need it."""
    root = os.path.join(job["folder"], "root")
    os.makedirs(root)
    run("mount", "--make-rprivate", "/")
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", root)
    for name in ("etc", "var/lib", "var/log", "var/tmp", "run", "tmp", "proc", "sys", "dev", "home", "root", "usr", "src"):
        os.makedirs(os.path.join(root, name))
    for name in ("bin", "sbin", "lib", "lib64"):
        os.symlink("usr/" + name, os.path.join(root, name))
    run("mount", "--bind", "/usr", root + "/usr")
    # On disk: executables with their debugging information are large.
    os.makedirs(job["folder"] + "/local/bin")
    run("mount", "--bind", job["folder"] + "/local", root + "/usr/local")
    for name in ("passwd", "group", "shadow", "gshadow", "nsswitch.conf", "ld.so.cache", "login.defs", "alternatives", "ssl", "pam.d", "security"):
        source = "/etc/" + name
        if os.path.isdir(source):
            shutil.copytree(source, root + source, symlinks=True)
        elif os.path.exists(source):
            shutil.copy2(source, root + source)
    with open(root + "/etc/hosts", "w") as hosts:
        hosts.write("127.0.0.1 localhost\n::1 localhost matrix.example.com auth.example.com\n")
    for name in ("systemd/system", "gatehouse-tls"):
        os.makedirs(root + "/etc/" + name)
    run("mount", "--bind", "/dev", root + "/dev")
    run("mount", "-t", "proc", "proc", root + "/proc")
    os.makedirs(job["folder"] + "/src/target/release")
    run("mount", "--bind", job["folder"] + "/src", root + "/src")
    shutil.copytree(job["repository"] + "/conf/systemd", root + "/src/conf/systemd")
    for name in ("gatehouse", "gatehouse-auth"):
        run("strip", "--strip-debug", "-o", f"{root}/src/target/release/{name}", job[name])
    shutil.copy2(os.path.abspath(__file__), root + "/src/confined.py")
    for name in ("certificate", "key", "ca"):
        shutil.copy2(job[name], root + "/etc/gatehouse-tls/" + name)
    return root


def relay(path, port):
    """A process that stays in the network of the tests and lets those in another come to Synapse."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o666)
    listener.listen()
    if os.fork() != 0:
        return
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        client, _ = listener.accept()
        if os.fork() == 0:
            server = socket.create_connection(("127.0.0.1", port))
            other_way = os.fork() == 0
            source, target = (server, client) if other_way else (client, server)
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
            os._exit(0)
        client.close()


def loopback_up():
    import fcntl
    import struct

    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1 | 0x40))  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING


# --- the unit ----------------------------------------------------------------------------------------------------------


def read_unit(name):
    """The settings of [Service] in the unit and its drop-ins, as systemd merges them: a list for each, emptied by an empty one."""
    folder = "/etc/systemd/system/"
    files = [folder + name]
    if os.path.isdir(folder + name + ".d"):
        files += sorted(folder + name + ".d/" + file for file in os.listdir(folder + name + ".d"))
    settings, section = {}, None
    for file in files:
        for line in open(file):
            line = line.strip()
            if line.startswith("["):
                section = line
            elif section == "[Service]" and "=" in line and line[0] not in "#;":
                key, value = line.split("=", 1)
                settings[key] = settings.get(key, []) + [value] if value else []
    return settings


def system_call_sets():
    sets, current = {}, None
    for line in run("systemd-analyze", "syscall-filter").splitlines():
        # What the kernel has and no set does comes last.
        if not line.strip() or line.startswith("#"):
            current = None if line.startswith("#") else current
        elif line.startswith("@"):
            current = sets.setdefault(line.strip(), [])
        elif current is not None and not line.strip().startswith("#"):
            current.append(line.strip())
    return sets


def expand(name, sets):
    if not name.startswith("@"):
        return {name}
    return {call for part in sets[name] for call in expand(part, sets)}


def allowed_calls(settings):
    sets, allowed = system_call_sets(), set()
    for value in settings["SystemCallFilter"]:
        named = {call for name in value.lstrip("~").split() for call in expand(name, sets)}
        allowed = allowed - named if value.startswith("~") else allowed | named
    return sorted(allowed | expand("@default", sets))


def is_on(settings, key):
    return settings.get(key, ["no"])[-1] in ("yes", "true", "strict", "invisible", "private")


def make_mounts(settings, writable):
    """The mounts of the unit, in the mount namespace that the caller has just made."""
    run("mount", "--make-rprivate", "/")
    if is_on(settings, "PrivateTmp"):
        run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/tmp")
        run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/var/tmp")
        writable = [*writable, "/tmp", "/var/tmp"]
    if is_on(settings, "ProtectHome"):
        for folder in ("/home", "/root"):
            run("mount", "-t", "tmpfs", "-o", "mode=000,ro", "tmpfs", folder)
    if is_on(settings, "PrivateDevices"):
        devices = [(name, os.stat("/dev/" + name).st_rdev) for name in ("null", "zero", "full", "random", "urandom")]
        run("mount", "-t", "tmpfs", "-o", "mode=755,nosuid,noexec", "tmpfs", "/dev")
        for name, number in devices:
            os.mknod("/dev/" + name, 0o020666, number)
            os.chmod("/dev/" + name, 0o666)
    if is_on(settings, "ProtectProc"):
        run("mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc")
    if is_on(settings, "ProtectKernelTunables"):
        run("mount", "--bind", "/proc/sys", "/proc/sys")
        run("mount", "-o", "remount,bind,ro", "/proc/sys")
    if is_on(settings, "ProtectSystem"):
        for folder in writable:
            run("mount", "--bind", folder, folder)
        points = [line.split()[4] for line in open("/proc/self/mountinfo")]
        for point in sorted(set(points)):
            if point in writable or re.match(r"/(proc|sys|dev)(/|$)", point):
                continue
            run("mount", "-o", "remount,bind,ro", point)


def start_confined(settings, command, notify=None, sockets=()):
    """Starts a command as the unit says; the number of its process."""
    user = pwd.getpwnam(settings["User"][-1])
    capabilities = " ".join(settings.get("CapabilityBoundingSet", [])).replace("CAP_", "").lower().split()
    ambient = " ".join(settings.get("AmbientCapabilities", [])).replace("CAP_", "").lower().split()
    child = os.fork()
    if child != 0:
        return child
    try:
        os.setsid()
        unshare(CLONE_NEWNS | CLONE_NEWIPC)
        writable = []
        for key, parent in (("StateDirectory", "/var/lib/"), ("LogsDirectory", "/var/log/")):
            for name in settings.get(key, []):
                os.makedirs(parent + name, exist_ok=True)
                os.chmod(parent + name, int(settings[key + "Mode"][-1], 8))
                os.chown(parent + name, user.pw_uid, user.pw_gid)
                writable.append(parent + name)
        make_mounts(settings, writable)
        # A container may have less, and no way to more.
        limit = min(int(settings["LimitNOFILE"][-1]), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        os.umask(int(settings["UMask"][-1], 8))
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
        if notify:
            environment["NOTIFY_SOCKET"] = notify
        for number, one in enumerate(sockets):
            os.dup2(one.fileno(), 100 + number)
        for number in range(len(sockets)):
            os.dup2(100 + number, 3 + number)
        os.closerange(3 + len(sockets), 4096)
        os.chdir("/")
        filters = {
            "allowed": allowed_calls(settings),
            "families": " ".join(settings["RestrictAddressFamilies"]).split(),
            "sockets": len(sockets),
            **{key: is_on(settings, key) for key in FILTERS},
        }
        named = lambda names: ",".join(["-all", *("+" + name for name in names)])
        os.execve(
            "/usr/bin/setpriv",
            ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"]
            + [f"--bounding-set={named(capabilities)}", f"--inh-caps={named(ambient)}", f"--ambient-caps={named(ambient)}"]
            + (["--no-new-privs"] if is_on(settings, "NoNewPrivileges") else [])
            + ["/usr/bin/python3", "-B", "/src/confined.py", "--filtered", json.dumps(filters), *command],
            environment,
        )
    except BaseException as error:
        print(f"cannot be confined: {error!r}", file=sys.stderr, flush=True)
    os._exit(70)


FILTERS = ("MemoryDenyWriteExecute", "RestrictNamespaces", "RestrictSUIDSGID", "RestrictRealtime", "LockPersonality")


def filtered(filters, command):
    """Loads the filters, each as systemd does: of several that speak of a system call, the strictest holds. Then becomes the command."""
    import errno

    from seccomp import ALLOW, ERRNO, EQ, KILL_PROCESS, MASKED_EQ, NE, Arg, SyscallFilter, resolve_syscall

    def known(name):
        try:
            return resolve_syscall(0, name) != -1 and name
        except Exception:
            return None

    refuse = SyscallFilter(defaction=ALLOW)

    def forbid(name, *conditions, error=errno.EPERM):
        refuse.add_rule(ERRNO(error), name, *conditions)

    if filters["MemoryDenyWriteExecute"]:
        forbid("mmap", Arg(2, MASKED_EQ, 6, 6))
        forbid("mprotect", Arg(2, MASKED_EQ, 4, 4))
        forbid("pkey_mprotect", Arg(2, MASKED_EQ, 4, 4))
        forbid("shmat", Arg(2, MASKED_EQ, 0o100000, 0o100000))
    if filters["RestrictNamespaces"]:
        forbid("unshare")
        forbid("setns")
        forbid("clone3", error=errno.ENOSYS)
        for bit in range(32):
            if NAMESPACES & 1 << bit:
                forbid("clone", Arg(0, MASKED_EQ, 1 << bit, 1 << bit))
    if filters["RestrictSUIDSGID"]:
        for bit in (0o4000, 0o2000):
            for name, place in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mkdir", 1), ("mkdirat", 2), ("mknod", 1), ("mknodat", 2)):
                forbid(name, Arg(place, MASKED_EQ, bit, bit))
    if filters["RestrictRealtime"]:
        forbid("sched_setscheduler", Arg(1, NE, 0))
    if filters["LockPersonality"]:
        forbid("personality", Arg(0, NE, 0))
    for family in range(1, 46):
        if family not in {getattr(socket, name) for name in filters["families"]}:
            forbid("socket", Arg(0, EQ, family), error=errno.EAFNOSUPPORT)
    allow = SyscallFilter(defaction=KILL_PROCESS)
    for name in filter(None, map(known, filters["allowed"])):
        allow.add_rule(ALLOW, name)
    if filters["sockets"]:
        os.environ.update(LISTEN_FDS=str(filters["sockets"]), LISTEN_PID=str(os.getpid()))
    refuse.load()
    allow.load()
    os.execv(command[0], command)


# --- what is tested ----------------------------------------------------------------------------------------------------


class Notifications:
    """NOTIFY_SOCKET as systemd has it: what the main process says, and nobody else is believed (NotifyAccess=main)."""

    PATH = "/run/notify.sock"

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.PATH)
        os.chmod(self.PATH, 0o777)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.main = None

    def wait_for(self, wanted, child=None):
        deadline = time.monotonic() + PATIENCE
        while True:
            self.socket.settimeout(0.2)
            try:
                data, ancillary, _, _ = self.socket.recvmsg(4096, 1024)
            except TimeoutError:
                assert time.monotonic() < deadline, f"{wanted} never came"
                if child is not None:
                    ended = os.waitpid(child, os.WNOHANG)
                    assert ended[0] == 0, f"ended with {os.waitstatus_to_exitcode(ended[1])} before {wanted}"
                continue
            sender = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
            assert sender == self.main, f"{data!r} from {sender}, which is not the main process {self.main}"
            words = data.decode().splitlines()
            for word in words:
                if word.startswith("MAINPID="):
                    self.main = int(word.removeprefix("MAINPID="))
            if any(word.startswith(wanted) for word in words):
                return


def status(process):
    lines = open(f"/proc/{process}/status").read().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def curl(*arguments):
    return run("curl", "-sS", "--fail", "--max-time", "30", "--cacert", "/etc/gatehouse-tls/ca", *arguments)


def log_in(user):
    body = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": user}, "password": "correct horse"}
    said = curl("-H", "Content-Type: application/json", "-d", json.dumps(body), "https://matrix.example.com/_matrix/client/v3/login")
    return json.loads(said)["access_token"]


def is_forbidden(settings, what, code):
    """Whether a program that tries this does not succeed under the unit."""
    code = f"import ctypes, mmap, os, socket\ntry:\n {code}\nexcept OSError:\n os._exit(3)"
    child = start_confined(settings, ["/usr/bin/python3", "-B", "-c", code])
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended in (3, -signal.SIGSYS), f"the unit does not forbid: {what} ({ended})"


FORBIDDEN = {
    "writing to /etc": "open('/etc/x', 'w')",
    "writing where anybody may": "open('/usr/local/share/anybody/x', 'w')",
    "looking into /home": "os.listdir('/home')",
    "looking into /root": "os.listdir('/root')",
    "seeing the processes of others": "open('/proc/1/cmdline')",
    "a device": "open('/dev/tty')",
    "changing the kernel": "open('/proc/sys/kernel/printk', 'w')",
    "a user namespace": "if ctypes.CDLL(None).unshare(0x10000000): raise OSError",
    "mounting": "if ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None): raise OSError",
    "becoming root": "os.setuid(0)",
    "a raw socket": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "a socket of another family": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "memory that is written and run": "mmap.mmap(-1, 4096, prot=7)",
    "a set-user-id file": "open('/var/lib/gatehouse/x', 'w').close(); os.chmod('/var/lib/gatehouse/x', 0o4755)",
    "another personality": "if ctypes.CDLL(None).personality(0x0040000) == -1: raise OSError",
    "a real-time priority": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
    "io_uring": "if ctypes.CDLL(None).syscall(425, 1, 0) == -1: raise OSError",
    "another's memory": "if ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == -1: raise OSError",
    "a file that others can read": "os.chdir('/var/lib/gatehouse'); open('x', 'w').close()\n if os.stat('x').st_mode & 0o077 == 0: raise OSError",
}


def serve_and_check(settings, sockets=()):
    """Start, requests, a reload, an upgrade and the end, all of it confined."""
    notifications = Notifications()
    command = settings["ExecStart"][-1].split()
    child = notifications.main = start_confined(settings, command, notifications.PATH, sockets)
    notifications.wait_for("READY=1", child)
    facts = status(child)
    assert facts["Uid"].split()[0] == str(pwd.getpwnam("gatehouse").pw_uid), facts["Uid"]
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2"), facts
    wanted = 0 if sockets else 1 << 10
    for kind in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        assert int(facts[kind], 16) == wanted, (kind, facts[kind])
    assert os.path.exists("/var/lib/gatehouse/auth.db")
    say("serves with capabilities", facts["CapEff"])

    redirect = run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "http://localhost/x")
    assert redirect == "308 https://localhost/x", redirect
    user = f"alice{len(sockets)}"
    add = ["gatehouse", "user", "-c", "/etc/gatehouse/gatehouse.yaml", "add", user, "--password-stdin"]
    run("runuser", "-u", "gatehouse", "--", *add, input="correct horse\n")
    log_in(user)
    assert curl("https://matrix.example.com/robots.txt") == "nothing\n"
    versions = curl("--http2", "https://matrix.example.com/_matrix/client/versions")
    say("logs in and forwards:", versions.strip()[:40])

    # The unit's own words, under the unit.
    reload = start_confined(settings, settings["ExecReload"][-1].split())
    assert os.waitstatus_to_exitcode(os.waitpid(reload, 0)[1]) == 0
    notifications.wait_for("RELOADING=1")
    notifications.wait_for("READY=1")
    log_in(user)
    say("reloads")

    shutil.copy2("/usr/local/bin/gatehouse", "/usr/local/bin/next")
    os.rename("/usr/local/bin/next", "/usr/local/bin/gatehouse")
    say(run("gatehouse", "upgrade", "-c", "/etc/gatehouse/gatehouse.yaml").strip())
    notifications.wait_for("MAINPID=")
    next_one = notifications.main
    assert next_one != child and status(next_one)["Seccomp"] == "2" and status(next_one)["CapBnd"] == facts["CapBnd"]
    notifications.wait_for("READY=1")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    log_in(user)
    assert curl("https://matrix.example.com/robots.txt") == "nothing\n"

    # At the end: the edge notices it within a second.
    mode = ["runuser", "-u", "gatehouse", "--", "gatehouse", "maintenance"]
    run(*mode, "on", "-c", "/etc/gatehouse/gatehouse.yaml")
    run(*mode, "off", "-c", "/etc/gatehouse/gatehouse.yaml")
    os.kill(next_one, signal.SIGTERM)
    notifications.wait_for("STOPPING=1")
    deadline = time.monotonic() + PATIENCE
    while os.path.exists(f"/proc/{next_one}") and status(next_one)["State"][0] != "Z":
        assert time.monotonic() < deadline, "it does not end"
        time.sleep(0.02)
    notifications.socket.close()
    os.unlink(notifications.PATH)
    say("stops")


CONFIGURATION = """
edge:
  matrix:
    server_name: example.com
    synapse: unix:/run/synapse.sock
    auth: bundled
  tls:
    certificates: [{certificate_file: /etc/gatehouse-tls/certificate, key_file: /etc/gatehouse-tls/key}]
  sites:
    - {hosts: [matrix.example.com], routes: [{path: /robots.txt, static: {root: /usr/local/share/www}}]}
  access_log: {path: /var/log/gatehouse/access.log}
  admin: {binds: [{address: "127.0.0.1:9090"}]}
matrix: {endpoint: "unix:/run/synapse.sock", secret_file: /etc/gatehouse/matrix-secret}
passwords:
  schemes: [{version: 1, algorithm: argon2id, memory_kib: 1024, iterations: 1, parallelism: 1}]
"""


def shell(title, commands):
    say(f"--- {title}\n" + run("bash", "-eux", "-c", commands, cwd="/src").strip())


def inside(job):
    """Everything that happens in the new root."""
    shell("install", job["install"])
    user = pwd.getpwnam("gatehouse")
    for name in ("gatehouse.yaml", "matrix-secret", "encryption-secret"):
        found = os.stat("/etc/gatehouse/" + name)
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (0, user.pw_gid, 0o640), name
    os.makedirs("/usr/local/share/www")
    os.makedirs("/usr/local/share/anybody")
    os.chmod("/usr/local/share/anybody", 0o777)
    with open("/usr/local/share/www/robots.txt", "w") as robots:
        robots.write("nothing\n")
    with open("/etc/gatehouse/gatehouse.yaml", "w") as configuration:
        configuration.write(CONFIGURATION)
    with open("/etc/gatehouse/matrix-secret", "w") as secret:
        secret.write(job["secret"] + "\n")
    run("chown", "-R", "root:gatehouse", "/etc/gatehouse-tls")
    run("chmod", "-R", "u=rwX,g=rX,o=", "/etc/gatehouse-tls")
    shell("start", job["start"])
    assert run("systemctl", "is-enabled", "gatehouse").strip() == "enabled"
    verify("gatehouse.service")

    settings = read_unit("gatehouse.service")
    serve_and_check(settings)
    for what, code in FORBIDDEN.items():
        is_forbidden(settings, what, code)
    say(f"forbids {len(FORBIDDEN)} things")

    for name in ("live", "archive"):
        os.makedirs(f"/etc/letsencrypt/{name}/example.com", mode=0o700)
        os.chmod(f"/etc/letsencrypt/{name}", 0o700)
    os.makedirs("/etc/letsencrypt/renewal-hooks/deploy")
    with open(os.open("/etc/letsencrypt/archive/example.com/privkey1.pem", os.O_CREAT | os.O_WRONLY, 0o600), "w") as key:
        key.write("a key\n")
    os.symlink("../../archive/example.com/privkey1.pem", "/etc/letsencrypt/live/example.com/privkey.pem")
    shell("certbot", job["certbot"])
    read = ["runuser", "-u", "gatehouse", "--", "cat", "/etc/letsencrypt/live/example.com/privkey.pem"]
    assert run(*read) == "a key\n"

    shell("socket", job["socket"])
    assert run("systemctl", "is-enabled", "gatehouse.socket").strip() == "enabled"
    verify("gatehouse.service", "gatehouse.socket")
    settings = read_unit("gatehouse.service")
    assert not settings["CapabilityBoundingSet"] and not settings["AmbientCapabilities"], settings
    sockets = []
    for line in open("/etc/systemd/system/gatehouse.socket"):
        if line.startswith("ListenStream="):
            one = socket.socket(socket.AF_INET6)
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("::", int(line.split("=")[1])))
            one.listen()
            sockets.append(one)
    serve_and_check(settings, sockets)

    shell("auth", job["auth"])
    verify("gatehouse-auth.service", "gatehouse-auth.socket")
    settings = read_unit("gatehouse-auth.service")
    notifications = Notifications()
    child = notifications.main = start_confined(settings, settings["ExecStart"][-1].split(), notifications.PATH)
    notifications.wait_for("READY=1", child)
    assert int(status(child)["CapBnd"], 16) == 0
    curl("http://127.0.0.1:8080/.well-known/openid-configuration")
    reload = start_confined(settings, settings["ExecReload"][-1].split())
    assert os.waitstatus_to_exitcode(os.waitpid(reload, 0)[1]) == 0
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    say("the auth service alone serves, reloads and stops")


def verify(*units):
    said = run("systemd-analyze", "verify", "--man=no", *units)
    assert not said.strip(), said


def main():
    if sys.argv[1] == "--filtered":
        return filtered(json.loads(sys.argv[2]), sys.argv[3:])
    job = json.loads(sys.argv[1])
    relay_path = os.path.join(job["folder"], "synapse.sock")
    relay(relay_path, job["synapse"])
    unshare(CLONE_NEWNS | CLONE_NEWNET)
    loopback_up()
    root = build_root(job)
    for path in (root + "/run/synapse.sock",):
        open(path, "w").close()
        run("mount", "--bind", relay_path, path)
    # By its child, so that systemctl finds that it is not in the root of process 1, where systemd would be.
    child = os.fork()
    if child != 0:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.chroot(root)
    os.chdir("/")
    inside(job)
    say("done")


main()
