"""Alice and Bob on two servers: a room with an odd alias, messages, typing, receipts, odd state keys, invite and leave."""

import asyncio
from urllib.parse import quote

from common import SERVERS, add_user, call, equal, log_in, run

ALPHA, BETA = SERVERS
# Signed requests carry these: a slash, a percent sign, a question mark, a hash, letters beyond ASCII.
ALIAS = f"#kaffee/crème%2Fbrûlée?a=1&b#c:{ALPHA['name']}"
ALICE, BOB = f"@rooms/alice:{ALPHA['name']}", f"@rooms/bob+b:{BETA['name']}"


async def until(client, found, what):
    """Syncs until `found` makes something of an answer."""
    for _ in range(30):
        answer = await client.sync(timeout=5000, since=client.next_batch)
        assert hasattr(answer, "rooms"), answer
        value = found(answer)
        if value:
            return value
    raise AssertionError(f"{client.user_id} never saw {what}")


def message(room, event_id):
    def found(answer):
        joined = answer.rooms.join.get(room)
        return [e.body for e in (joined.timeline.events if joined else []) if e.event_id == event_id]

    return found


def ephemeral(room, kind, holds):
    def found(answer):
        joined = answer.rooms.join.get(room)
        return [e for e in (joined.ephemeral if joined else []) if type(e).__name__ == kind and holds(e)]

    return found


async def say(client, room, body):
    return (await client.room_send(room, "m.room.message", {"msgtype": "m.text", "body": body})).event_id


async def test(keep):
    for at, user in ((ALPHA, "rooms/alice"), (BETA, "rooms/bob+b")):
        add_user(user, "--display-name", user.title(), at=at)
    alice, bob = await log_in("rooms/alice", at=ALPHA), await log_in("rooms/bob+b", at=BETA)
    keep(alice)
    keep(bob)
    equal((alice.user_id, bob.user_id), (ALICE, BOB))

    body = {"name": "Kaffee", "preset": "public_chat", "visibility": "public"}
    status, answer = await call(alice, "POST", "/_matrix/client/v3/createRoom", body)
    equal(status, 200, answer)
    room = answer["room_id"]
    directory = f"/_matrix/client/v3/directory/room/{quote(ALIAS, safe='')}"
    equal((await call(alice, "PUT", directory, {"room_id": room}))[0], 200)

    # By its alias: Bob's server asks Alice's, then makes and sends a join.
    equal((await call(bob, "GET", directory)), (200, {"room_id": room, "servers": [ALPHA["name"]]}))
    status, answer = await call(bob, "POST", f"/_matrix/client/v3/join/{quote(ALIAS, safe='')}", {})
    equal((status, answer), (200, {"room_id": room}))
    status, answer = await call(bob, "GET", f"/_matrix/client/v3/publicRooms?server={quote(ALPHA['name'])}")
    assert status == 200 and room in [one["room_id"] for one in answer["chunk"]], answer

    # Messages both ways.
    await bob.sync(timeout=0)
    await alice.sync(timeout=0)
    event = await say(alice, room, "hello from alpha")
    equal(await until(bob, message(room, event), "the message"), ["hello from alpha"])
    answered = await say(bob, room, "hello from beta")
    equal(await until(alice, message(room, answered), "the answer"), ["hello from beta"])

    # Typing and receipts are ephemeral data of their own in a transaction.
    await alice.room_typing(room, True, timeout=30000)
    await until(bob, ephemeral(room, "TypingNoticeEvent", lambda e: ALICE in e.users), "that Alice types")
    await bob.room_read_markers(room, event, event)
    read = ephemeral(room, "ReceiptEvent", lambda e: any(r.user_id == BOB for r in e.receipts))
    await until(alice, read, "that Bob has read")

    # State keys with slashes, encoded and not, and one that looks like a login.
    for key in ("a/b", "a%2Fb", "login", "ключ"):
        path = f"/_matrix/client/v3/rooms/{quote(room)}/state/org.example.state/{quote(key, safe='')}"
        status, answer = await call(alice, "PUT", path, {"key": key})
        equal(status, 200, f"{key}: {answer}")
        for _ in range(100):
            status, answer = await call(bob, "GET", path)
            if status == 200:
                break
            await asyncio.sleep(0.1)
        equal((status, answer), (200, {"key": key}), "state over federation")

    # A profile, asked for by the other server.
    status, answer = await call(bob, "GET", f"/_matrix/client/v3/profile/{quote(ALICE, safe='')}")
    equal((status, answer["displayname"]), (200, "Rooms/Alice"))

    # Bob's invitation to a second room of his, and Alice's way out again.
    second = (await bob.room_create(name="second", invite=[ALICE])).room_id
    await until(alice, lambda answer: second in answer.rooms.invite, "the invitation")
    assert hasattr(await alice.join(second), "room_id")
    event = await say(bob, second, "welcome")
    equal(await until(alice, message(second, event), "the welcome"), ["welcome"])
    assert type(await alice.room_leave(second)).__name__ == "RoomLeaveResponse"

    def left(answer):
        events = answer.rooms.join[second].timeline.events if second in answer.rooms.join else []
        return any(getattr(e, "membership", "") == "leave" and e.state_key == ALICE for e in events)

    await until(bob, left, "that Alice left")

    # A private room cannot be joined without an invitation: the refusal comes through as it was given.
    private = (await alice.room_create(name="private")).room_id
    status, answer = await call(
        bob, "POST", f"/_matrix/client/v3/join/{quote(private)}?server_name={ALPHA['name']}", {}
    )
    equal((status, answer["errcode"]), (403, "M_FORBIDDEN"))


run(test)
