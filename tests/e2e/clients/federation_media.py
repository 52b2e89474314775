"""Media of one server fetched at the other: the servers ask each other by signed requests, and answer in multipart/mixed."""

import io
import os
from urllib.parse import quote

from common import SERVERS, add_user, call, equal, log_in, run

ALPHA, BETA = SERVERS


async def test(keep):
    users = []
    for at in SERVERS:
        add_user("media_user", at=at)
        users.append(await log_in("media_user", at=at))
        keep(users[-1])

    for (owner, reader), size in zip((users, users[::-1]), (10 << 20, 3)):
        content = os.urandom(size)
        answer, _ = await owner.upload(
            lambda *_: io.BytesIO(content),
            content_type="application/octet-stream",
            filename="login/ö.bin",
            filesize=size,
        )
        server, media = answer.content_uri.removeprefix("mxc://").split("/")
        for name in ("", "/login", "/" + quote("a/ö.png", safe="")):
            path = f"/_matrix/client/v1/media/download/{server}/{media}{name}"
            answer = await reader.send("GET", path, headers={"Authorization": f"Bearer {reader.access_token}"})
            assert answer.status == 200 and await answer.read() == content, f"{name}: {answer}"
        # Media is for those who are logged in, and a token of one server is nothing to the other.
        equal((await call(reader, "GET", path, token=""))[1]["errcode"], "M_MISSING_TOKEN")
        equal((await call(reader, "GET", path, token=owner.access_token))[1]["errcode"], "M_UNKNOWN_TOKEN")

    # What does not exist does not exist over federation either.
    path = f"/_matrix/client/v1/media/download/{quote(ALPHA['name'])}/nothing"
    status, answer = await call(users[1], "GET", path)
    equal((status, answer["errcode"]), (404, "M_NOT_FOUND"))


run(test)
