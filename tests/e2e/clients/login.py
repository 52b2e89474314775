"""Every way to say who one is, the wrong password, and whoami."""

from common import PASSWORD, add_user, call, client, equal, run, whoami

LOGIN = "/_matrix/client/v3/login"


async def test(keep):
    add_user("login_alice", "--email", "alice@example.org", "--display-name", "Alice")

    for user in ("login_alice", "@login_alice:localhost"):
        one = client(user)
        keep(one)
        answer = await one.login(PASSWORD, device_name="a device")
        equal(answer.user_id, "@login_alice:localhost", user)
        status, me = await whoami(one)
        equal((status, me["user_id"], me["device_id"]), (200, "@login_alice:localhost", answer.device_id))

    one = client()
    keep(one)
    answer = await one.login_raw(
        {
            "type": "m.login.password",
            "identifier": {"type": "m.id.thirdparty", "medium": "email", "address": "alice@example.org"},
            "password": PASSWORD,
        }
    )
    equal(answer.user_id, "@login_alice:localhost", "e-mail")
    equal((await whoami(one))[0], 200)

    # A device of the client's own choice, under the old names of the API too.
    body = {"type": "m.login.password", "user": "login_alice", "password": PASSWORD, "device_id": "MYDEVICE"}
    status, answer = await call(one, "POST", "/_matrix/client/r0/login", body, token="")
    equal((status, answer["device_id"]), (200, "MYDEVICE"), answer)
    equal((await whoami(one, answer["access_token"]))[1]["device_id"], "MYDEVICE")

    # Wrong password and unknown user are the same answer.
    answers = []
    for user, password in (("login_alice", "wrong"), ("login_nobody", "wrong")):
        body = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": user}, "password": password}
        answers.append(await call(one, "POST", LOGIN, body, token=""))
    equal(answers[0][0], 403)
    equal(answers[0][1]["errcode"], "M_FORBIDDEN")
    equal(answers[0], answers[1])

    status, answer = await call(one, "GET", LOGIN, token="")
    assert status == 200 and {"type": "m.login.password"} in answer["flows"], answer

    status, answer = await whoami(one, "not-a-token")
    equal((status, answer["errcode"]), (401, "M_UNKNOWN_TOKEN"))

    # What Synapse shows of the account was there before the client got its token.
    status, profile = await call(one, "GET", "/_matrix/client/v3/profile/@login_alice:localhost")
    equal((status, profile.get("displayname")), (200, "Alice"))


run(test)
