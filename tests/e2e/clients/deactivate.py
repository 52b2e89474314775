"""A deactivated account is gone: its tokens die at once and nobody can tell it from one that never was."""

from common import PASSWORD, add_user, call, equal, gatehouse_user, gone, log_in, run, whoami


async def test(keep):
    add_user("deactivate_alice")
    alice = await log_in("deactivate_alice")
    keep(alice)
    equal((await whoami(alice))[0], 200)

    gatehouse_user("deactivate", "deactivate_alice")
    await gone(alice)

    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "deactivate_alice"},
        "password": PASSWORD,
    }
    status, answer = await call(alice, "POST", "/_matrix/client/v3/login", body, token="")
    equal((status, answer["errcode"]), (403, "M_FORBIDDEN"))


run(test)
