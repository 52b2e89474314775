"""A room, a message, and a long poll that the message wakes."""

import asyncio
import time

from common import add_user, equal, log_in, run


async def test(keep):
    add_user("messages_alice")
    add_user("messages_bob")
    alice, bob = await log_in("messages_alice"), await log_in("messages_bob")
    keep(alice)
    keep(bob)

    room = (await alice.room_create(name="a room", invite=["@messages_bob:localhost"])).room_id
    await bob.join(room)
    since = (await bob.sync(timeout=0)).next_batch

    poll = asyncio.create_task(bob.sync(timeout=30000, since=since))
    # The poll has to be there before the message is: it is when it does not come back at once.
    done, _ = await asyncio.wait([poll], timeout=1)
    while done:
        poll = asyncio.create_task(bob.sync(timeout=30000, since=(await poll).next_batch))
        done, _ = await asyncio.wait([poll], timeout=1)

    sent = time.monotonic()
    event = (await alice.room_send(room, "m.room.message", {"msgtype": "m.text", "body": "are you awake?"})).event_id
    # Something else may wake it first, such as somebody's presence: then the client polls on, as clients do.
    bodies = []
    while not bodies:
        answer = await poll
        news = answer.rooms.join[room].timeline.events if room in answer.rooms.join else []
        bodies = [one.body for one in news if one.event_id == event and hasattr(one, "body")]
        poll = asyncio.create_task(bob.sync(timeout=30000, since=answer.next_batch))
    poll.cancel()
    took = time.monotonic() - sent
    equal(bodies, ["are you awake?"])
    assert took < 10, f"the long poll was woken after {took:.1f} s"


run(test)
