"""20 MB up and down, and everything that is called `login` without being one."""

import io
import os
from urllib.parse import quote

from common import add_user, call, equal, log_in, run


async def upload(client, content, name):
    answer, _ = await client.upload(
        lambda *_: io.BytesIO(content), content_type="application/octet-stream", filename=name, filesize=len(content)
    )
    return answer.content_uri


async def download(client, uri, name):
    server, media = uri.removeprefix("mxc://").split("/")
    path = f"/_matrix/client/v1/media/download/{server}/{media}/{quote(name)}"
    answer = await client.send("GET", path, headers={"Authorization": f"Bearer {client.access_token}"})
    return answer.status, await answer.read()


async def test(keep):
    add_user("media_alice")
    alice = await log_in("media_alice")
    keep(alice)

    big = os.urandom(20 << 20)
    uri = await upload(alice, big, "big.bin")
    equal((await alice.download(uri)).body, big, "20 MB")

    for name in ("login", "login.png", "logout", "refresh.txt"):
        content = name.encode()
        uri = await upload(alice, content, name)
        equal(await download(alice, uri, name), (200, content), name)

    room = (await alice.room_create()).room_id
    for key in ("login", "logout", "refresh"):
        await alice.room_put_state(room, "org.example.state", {"key": key}, state_key=key)
        answer = await alice.room_get_state_event(room, "org.example.state", key)
        equal(answer.content, {"key": key}, key)

    # A room alias with an encoded slash is one segment, and is asked for as one.
    alias = quote("#a/login:localhost", safe="")
    status, answer = await call(alice, "GET", f"/_matrix/client/v3/directory/room/{alias}")
    equal((status, answer["errcode"]), (404, "M_NOT_FOUND"))


run(test)
