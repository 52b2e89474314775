"""What the scripts share: the arguments from the test, clients, and the service's own commands.

The client is matrix-nio as it comes from PyPI; it trusts the test's authority through SSL_CERT_FILE, as any program does.
"""

import asyncio
import json
import subprocess
import sys

from nio import AsyncClient, AsyncClientConfig

ARGUMENTS = json.loads(sys.argv[1])
# Of each server its `name`, the `base` of its URLs, and the command `gatehouse user`.
SERVERS = ARGUMENTS["servers"]
PASSWORD = "correct horse battery staple"


def gatehouse_user(*words, password=None, at=SERVERS[0]):
    """Runs `gatehouse user ...` while the service runs."""
    done = subprocess.run(
        [*at["gatehouse"], *words], input=f"{password}\n" if password else "", capture_output=True, text=True
    )
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def add_user(name, *more, at=SERVERS[0]):
    gatehouse_user("add", name, "--password-stdin", *more, password=PASSWORD, at=at)


def client(user="", at=SERVERS[0], **more):
    # nio answers a 429 by waiting and asking again; a limit that is hit in a test is to be seen.
    config = AsyncClientConfig(max_limit_exceeded=0, max_timeouts=0, encryption_enabled="store_path" in more)
    return AsyncClient(at["base"], user, config=config, proxy=ARGUMENTS.get("proxy"), **more)


async def log_in(user, device="", at=SERVERS[0], **more):
    """A client that has just logged in; one that can encrypt if it is given a `store_path`."""
    new = client(user, at, **more)
    answer = await new.login(PASSWORD, device_name=device)
    assert getattr(answer, "access_token", None), answer
    return new


async def call(client, method, path, body=None, token=None):
    """One request as JSON: status and answer."""
    token = token if token is not None else client.access_token
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    answer = await client.send(method, path, None if body is None else json.dumps(body), headers)
    return answer.status, await answer.json(content_type=None)


async def whoami(client, token=None):
    return await call(client, "GET", "/_matrix/client/v3/account/whoami", token=token)


async def gone(client):
    """Waits until a token is dead: Synapse is told right after a command, by the service that runs, and not minutes later."""
    for _ in range(100):
        status, answer = await whoami(client)
        if status == 401:
            equal(answer["errcode"], "M_UNKNOWN_TOKEN")
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"the token lives on: {status} {answer}")


def run(test):
    """Runs an async test and closes its clients, whatever happens."""

    async def main():
        clients = []
        try:
            await test(clients.append)
        finally:
            for one in clients:
                await one.close()

    asyncio.run(asyncio.wait_for(main(), 240))


def equal(found, expected, what=""):
    assert found == expected, f"{what}: {found!r} is not {expected!r}"
