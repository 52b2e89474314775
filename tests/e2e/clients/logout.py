"""Logout: the token is dead at the next request, not after the two minutes that Synapse remembers it."""

from common import add_user, call, equal, log_in, run, whoami


async def test(keep):
    add_user("logout_alice")
    one, other, third = [await log_in("logout_alice", device) for device in ("one", "other", "third")]
    for client in (one, other, third):
        keep(client)
        equal((await whoami(client))[0], 200)

    token = one.access_token
    answer = await one.logout()
    equal(type(answer).__name__, "LogoutResponse")
    status, answer = await whoami(one, token)
    equal((status, answer["errcode"]), (401, "M_UNKNOWN_TOKEN"), "after logout")
    equal((await whoami(other))[0], 200, "the other device")
    status, devices = await call(other, "GET", "/_matrix/client/v3/devices")
    equal({device["display_name"] for device in devices["devices"]}, {"other", "third"})

    token = other.access_token
    await other.logout(all_devices=True)
    for gone, one_token in (("other", token), ("third", third.access_token)):
        status, answer = await whoami(third, one_token)
        equal((status, answer["errcode"]), (401, "M_UNKNOWN_TOKEN"), f"{gone} after logout/all")

    status, answer = await call(third, "POST", "/_matrix/client/v3/logout", {})
    equal((status, answer["errcode"]), (401, "M_UNKNOWN_TOKEN"), "logout of what is logged out")


run(test)
