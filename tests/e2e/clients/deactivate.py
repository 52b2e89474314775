"""A deactivated account is gone: its tokens die at once and nobody can tell it from one that never was."""

import asyncio

from common import PASSWORD, add_user, call, equal, gatehouse_user, log_in, run, whoami


async def test(keep):
    add_user("deactivate_alice")
    alice = await log_in("deactivate_alice")
    keep(alice)
    equal((await whoami(alice))[0], 200)

    gatehouse_user("deactivate", "deactivate_alice")
    # The command returns when the database has it; Synapse is told right after that, by the command or by the service.
    for _ in range(100):
        status, answer = await whoami(alice)
        if status == 401:
            break
        await asyncio.sleep(0.1)
    equal((status, answer["errcode"]), (401, "M_UNKNOWN_TOKEN"), "ten seconds after the deactivation")

    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "deactivate_alice"},
        "password": PASSWORD,
    }
    status, answer = await call(alice, "POST", "/_matrix/client/v3/login", body, token="")
    equal((status, answer["errcode"]), (403, "M_FORBIDDEN"))


run(test)
