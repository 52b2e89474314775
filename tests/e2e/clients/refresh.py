"""Refresh tokens: rotation, a lost response, and a replay that ends the session."""

from common import PASSWORD, add_user, call, client, equal, run, whoami

REFRESH = "/_matrix/client/v3/refresh"


async def refresh(one, token):
    return await call(one, "POST", REFRESH, {"refresh_token": token}, token="")


async def test(keep):
    add_user("refresh_alice")
    one = client()
    keep(one)
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "refresh_alice"},
        "password": PASSWORD,
        "refresh_token": True,
    }
    status, login = await call(one, "POST", "/_matrix/client/v3/login", body, token="")
    equal(status, 200, login)
    assert login["expires_in_ms"] > 0, login
    equal((await whoami(one, login["access_token"]))[0], 200)

    # Rotation: new tokens of both kinds, for the same device.
    status, second = await refresh(one, login["refresh_token"])
    equal(status, 200, second)
    assert second["refresh_token"] != login["refresh_token"] and second["access_token"] != login["access_token"]
    status, me = await whoami(one, second["access_token"])
    equal((status, me["device_id"]), (200, login["device_id"]))

    # The response was lost: the client asks again with the token it has.
    status, third = await refresh(one, second["refresh_token"])
    equal(status, 200, third)
    status, again = await refresh(one, second["refresh_token"])
    equal(status, 200, again)
    equal((await whoami(one, again["access_token"]))[0], 200)

    # The client goes on with what it got; whoever comes with an older token has stolen it, and the session ends.
    status, fourth = await refresh(one, again["refresh_token"])
    equal(status, 200, fourth)
    equal((await whoami(one, fourth["access_token"]))[0], 200)
    status, refused = await refresh(one, login["refresh_token"])
    equal((status, refused["errcode"]), (401, "M_UNKNOWN_TOKEN"))
    status, refused = await refresh(one, fourth["refresh_token"])
    equal((status, refused["errcode"]), (401, "M_UNKNOWN_TOKEN"), "the whole session is over")


run(test)
