"""Encrypted rooms with matrix-nio: verified by emoji, messages both ways, the keys of a new device, an attachment.

Alice is on the first server, Bob on the last; with one server that is the same one, with two everything crosses the federation.
"""

import io
import os
import tempfile

from nio import EnableEncryptionBuilder, EncryptionError, MegolmEvent, OlmUnverifiedDeviceError, RoomMessageText
from nio.crypto.attachments import decrypt_attachment

from common import SERVERS, add_user, call, equal, log_in, run

ALICE_AT, BOB_AT = SERVERS[0], SERVERS[-1]
SECRET = "the eagle has landed"


async def step(client, timeout=0):
    """What clients do in a loop: a sync, and whatever the keys need after it."""
    answer = await client.sync(timeout=timeout)
    assert hasattr(answer, "rooms"), answer
    if client.should_upload_keys:
        await client.keys_upload()
    if client.should_query_keys:
        await client.keys_query()
    if client.should_claim_keys:
        await client.keys_claim(client.get_users_for_key_claiming())
    await client.send_to_device_messages()
    return answer


async def until(clients, found, what):
    """Steps until `found` makes something of it; it gets each client with its answer."""
    for _ in range(100):
        for client in clients:
            value = found(client, await step(client, timeout=100))
            if value:
                return value
    raise AssertionError(f"never saw {what}")


def device(client, other):
    """Another client's device as this one knows it, or nothing yet."""
    return next((d for d in client.device_store.active_user_devices(other.user_id) if d.id == other.device_id), None)


async def encrypting(name, at, folder, device=""):
    store = os.path.join(folder, f"{name}{device}")
    os.mkdir(store)
    client = await log_in(name, device, at, store_path=store)
    await step(client)
    return client


async def verify_by_emoji(one, other):
    """Both see the same emoji, and say so: the short authentication string of the specification, over to-device messages."""
    await until([one, other], lambda *_: device(one, other) and device(other, one), "each other's device")
    await one.start_key_verification(device(one, other))
    transaction = one.get_active_sas(other.user_id, other.device_id).transaction_id
    await until([one, other], lambda *_: transaction in other.key_verifications, "the start of the verification")
    await other.accept_key_verification(transaction)
    both = [client.key_verifications[transaction] for client in (one, other)]
    await until([one, other], lambda *_: all(sas.established_sas for sas in both), "both keys of the verification")
    equal(both[0].get_emoji(), both[1].get_emoji(), "emoji")
    equal(len(both[0].get_emoji()), 7)
    for client in (one, other):
        await client.confirm_short_auth_string(transaction)
    await until([one, other], lambda *_: all(sas.verified for sas in both), "that both are verified")
    assert device(one, other).verified and device(other, one).verified


async def say(client, room, body):
    answer = await client.room_send(room, "m.room.message", {"msgtype": "m.text", "body": body})
    assert getattr(answer, "event_id", None), answer
    return answer.event_id


def event(reader, room, event_id):
    def found(client, answer):
        if client is not reader or room not in answer.rooms.join:
            return None
        return next((e for e in answer.rooms.join[room].timeline.events if e.event_id == event_id), None)

    return found


async def read(reader, room, event_id, others=()):
    """An event, decrypted."""
    seen = await until([reader, *others], event(reader, room, event_id), "the event")
    assert seen.decrypted and seen.verified, seen
    return seen


async def refused(client, room):
    """Nothing is said while there is a device that this one has not verified."""
    try:
        await say(client, room, "psst")
    except OlmUnverifiedDeviceError:
        return
    raise AssertionError("it was encrypted for a device that is not verified")


async def test(keep):
    add_user("crypto_alice", at=ALICE_AT)
    add_user("crypto_bob", at=BOB_AT)
    with tempfile.TemporaryDirectory() as folder:
        alice = await encrypting("crypto_alice", ALICE_AT, folder)
        keep(alice)
        bob = await encrypting("crypto_bob", BOB_AT, folder)
        keep(bob)

        answer = await alice.room_create(invite=[bob.user_id], initial_state=[EnableEncryptionBuilder().as_dict()])
        room = answer.room_id
        await until([bob], lambda _, answer: room in answer.rooms.invite, "the invitation")
        await bob.join(room)
        members = lambda client, _: room in client.rooms and len(client.rooms[room].users) == 2
        await until([alice], members, "that Bob joined")
        await until([bob], members, "the room")
        await until([alice, bob], lambda *_: device(alice, bob) and device(bob, alice), "the devices")

        await refused(alice, room)
        await verify_by_emoji(alice, bob)

        # Both ways; what the server has is not what was said.
        first = await say(alice, room, SECRET)
        seen = await read(bob, room, first)
        equal((type(seen), seen.body), (RoomMessageText, SECRET))
        status, raw = await call(bob, "GET", f"/_matrix/client/v3/rooms/{room}/event/{first}")
        equal((status, raw["type"], raw["content"]["algorithm"]), (200, "m.room.encrypted", "m.megolm.v1.aes-sha2"))
        assert SECRET not in str(raw), raw
        seen = await read(alice, room, await say(bob, room, "and so has the owl"))
        equal(seen.body, "and so has the owl")

        # A new device of Bob's: it has to be verified before anybody encrypts for it.
        new = await encrypting("crypto_bob", BOB_AT, folder, "new device")
        keep(new)
        await until([bob, new], lambda *_: device(bob, new) and device(new, bob), "each other")
        await until([alice, new], lambda *_: device(alice, new) and device(new, alice), "each other")
        for one in (alice, bob):
            await refused(one, room)
            await verify_by_emoji(one, new)
        for one in (alice, bob):
            event_id = await say(one, room, f"hello all, says {one.user_id}")
            for reader in (alice, bob, new):
                if reader is not one:
                    equal((await read(reader, room, event_id)).body, f"hello all, says {one.user_id}")

        # What was said before it was there it cannot read, until the old device gives it the key.
        old = (await new.room_messages(room, start=new.next_batch, limit=50)).chunk
        old = next(e for e in old if e.event_id == first)
        equal(type(old), MegolmEvent)
        await new.request_room_key(old)

        def decrypted(*_):
            try:
                return new.decrypt_event(old)
            except EncryptionError:
                return None

        assert decrypted() is None
        equal((await until([bob, new], decrypted, "the key")).body, SECRET)

        # An attachment: the server keeps noise, Bob gets the file.
        content = os.urandom(1 << 20)
        answer, keys = await alice.upload(
            lambda *_: io.BytesIO(content), content_type="image/png", filename="login.png", encrypt=True, filesize=len(content)
        )
        file = {
            "msgtype": "m.file",
            "body": "login.png",
            "info": {"size": len(content), "mimetype": "image/png"},
            "file": {"url": answer.content_uri, "mimetype": "image/png", **keys},
        }
        sent = (await alice.room_send(room, "m.room.message", file)).event_id
        seen = await read(bob, room, sent)
        noise = (await bob.download(seen.url)).body
        equal(len(noise), len(content))
        assert noise != content
        equal(decrypt_attachment(noise, seen.key["k"], seen.hashes["sha256"], seen.iv), content, "the attachment")

        # The new device logs out: its token is dead, and nothing is encrypted for it any more.
        await new.logout()
        await until([alice], lambda *_: not device(alice, new), "that the device is gone")
        equal((await read(bob, room, await say(alice, room, "good night"))).body, "good night")


run(test)
