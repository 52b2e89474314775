"""The auth service on its own: logins and introspections per second, and their CPU time.

Synapse's part is played by the upstream, which welcomes every user and device at once."""

import http.client
import json
import subprocess
import urllib.parse

import load
from load import Broken, Run

LOGIN = "/_matrix/client/v3/login"
INTROSPECT = "/oauth2/introspect"


def measure(stage, users, rounds, seconds):
    """{"login": [Run…], "introspection": [Run…]}"""
    add_users(stage, users)
    with stage.running(stage.auth):
        tokens = [log_in(stage, user)["access_token"] for user in range(users)]
        logins = stage.folder / "logins"
        logins.write_text("".join(json.dumps(login_body(user)) + "\n" for user in range(users)))
        introspections = stage.folder / "introspections"
        introspections.write_text("".join(introspection_body(token) + "\n" for token in tokens))
        login_size = len(json.dumps(log_in(stage, 0), separators=(",", ":")))
        introspection_size = len(introspect(stage, tokens[0]))

        def one(path, file, kind, size, arguments=()):
            before = load.cpu_seconds(stage.auth.pids())
            requests, elapsed = load.wrk(
                f"http://127.0.0.1:{stage.auth.http}{path}", 16, seconds, size * 9 // 10,
                {"Accept": "application/json"}, "rotate.lua", [str(file), kind, *arguments],
            )
            return Run(requests, elapsed, load.cpu_seconds(stage.auth.pids()) - before)

        runs = {"login": [], "introspection": []}
        for _ in range(rounds):
            runs["login"].append(one(LOGIN, logins, "application/json", login_size))
            runs["introspection"].append(
                one(INTROSPECT, introspections, "application/x-www-form-urlencoded", introspection_size, [stage.values["secret"]])
            )
        if not all(json.loads(introspect(stage, token))["active"] for token in tokens):
            raise Broken("a token did not survive the measure")
        return runs


def add_users(stage, users):
    for user in range(users):
        command = [stage.gatehouse_program, "user", "-c", stage.auth_config, "add", f"bench{user}", "--password-stdin"]
        done = subprocess.run(command, input=password(user) + "\n", capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise Broken(f"{' '.join(map(str, command))}: exit code {done.returncode}:\n{done.stdout}{done.stderr}")


def password(user):
    return f"correct-horse-battery-staple-{user}"


def login_body(user):
    identifier = {"type": "m.id.user", "user": f"bench{user}"}
    return {"type": "m.login.password", "identifier": identifier, "password": password(user), "refresh_token": True}


def log_in(stage, user):
    status, body = post(stage, LOGIN, json.dumps(login_body(user)), {"Content-Type": "application/json"})
    answer = json.loads(body)
    if status != 200 or answer.get("user_id") != f"@bench{user}:example.com":
        raise Broken(f"login: {status} {body!r}\n{stage.auth.log()}")
    return answer


def introspection_body(token):
    return urllib.parse.urlencode({"token": token, "token_type_hint": "access_token"})


def introspect(stage, token):
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Authorization": f"Bearer {stage.values['secret']}",
        "Accept": "application/json",
    }
    status, body = post(stage, INTROSPECT, introspection_body(token), headers)
    if status != 200 or json.loads(body).get("active") is not True:
        raise Broken(f"introspection: {status} {body!r}\n{stage.auth.log()}")
    return body


def post(stage, path, body, headers):
    connection = http.client.HTTPConnection("127.0.0.1", stage.auth.http, timeout=20)
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()
