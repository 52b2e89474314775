"""A locked account is out at once and cannot log in until it is unlocked; only who knows the password learns of the lock."""

from common import PASSWORD, add_user, call, client, equal, gatehouse_user, gone, log_in, run, whoami

LOGIN = "/_matrix/client/v3/login"


def body(password):
    return {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "lock_alice"}, "password": password}


async def test(keep):
    add_user("lock_alice")
    alice = await log_in("lock_alice")
    keep(alice)
    equal((await whoami(alice))[0], 200)

    anybody = client()
    keep(anybody)
    gatehouse_user("lock", "lock_alice")
    await gone(alice)
    status, answer = await call(anybody, "POST", LOGIN, body(PASSWORD), token="")
    equal((status, answer["errcode"]), (401, "M_USER_LOCKED"))
    status, answer = await call(anybody, "POST", LOGIN, body("wrong"), token="")
    equal((status, answer["errcode"]), (403, "M_FORBIDDEN"))

    gatehouse_user("unlock", "lock_alice")
    status, answer = await call(anybody, "POST", LOGIN, body(PASSWORD), token="")
    equal(status, 200, answer)
    equal((await whoami(anybody, answer["access_token"]))[0], 200)


run(test)
