"""A call over MatrixRTC: what a client does, with a LiveKit and a token service that remember how they were asked.

Both are real servers of aiohttp, and so is the client, which comes with matrix-nio: every WebSocket frame is one.
"""

import asyncio
import json
import ssl
import sys

from aiohttp import ClientSession, WSMsgType, web
from yarl import URL

ARGUMENTS = json.loads(sys.argv[1])
BASE = ARGUMENTS["base"]
TOKEN = "header.payload.signature"
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "Accept, Content-Type, X-CSRF-Token",
    "X-Answered-By": "token service",
}
asked = []


async def serve(port, *routes):
    application = web.Application()
    application.add_routes(routes)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()


async def hand_out(request):
    asked.append((request.method, request.raw_path, await request.json()))
    url = BASE.replace("https://", "wss://") + "/livekit/sfu"
    return web.json_response({"url": url, "jwt": TOKEN}, headers=CORS)


async def preflight(request):
    asked.append((request.method, request.raw_path, request.headers["Access-Control-Request-Method"]))
    return web.Response(status=204, headers=CORS)


async def signal(request):
    """Echoes until the client leaves; says how it left."""
    asked.append((request.method, request.raw_path, request.headers["Host"]))
    socket = web.WebSocketResponse(protocols=["livekit"], heartbeat=ARGUMENTS["heartbeat"], max_msg_size=0)
    await socket.prepare(request)
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    asked.append(("closed", socket.close_code))
    return socket


async def validate(request):
    return web.Response(text=f"{request.method} {request.raw_path}")


async def main():
    await serve(ARGUMENTS["livekit"], web.get("/rtc", signal), web.get("/rtc/validate", validate))
    await serve(
        ARGUMENTS["token_service"],
        web.post("/sfu/get", hand_out),
        web.post("/get_token", hand_out),
        web.options("/sfu/get", preflight),
    )
    context = ssl.create_default_context()
    async with ClientSession() as client:
        async with client.get(f"{BASE}/.well-known/matrix/client", ssl=context) as answer:
            (focus,) = (await answer.json())["org.matrix.msc4143.rtc_foci"]
        assert focus["type"] == "livekit", focus
        service = focus["livekit_service_url"]
        assert service == f"{BASE}/livekit/jwt", service

        headers = {"Origin": "https://call.example.org", "Access-Control-Request-Method": "POST"}
        async with client.options(f"{service}/sfu/get", headers=headers, ssl=context) as answer:
            assert answer.status == 204, answer
            for name, value in CORS.items():
                assert answer.headers.getall(name) == [value], (name, answer.headers)
        for path in ("/sfu/get", "/get_token"):
            body = {"room": "!room:example.com", "device_id": path}
            async with client.post(service + path, json=body, ssl=context) as answer:
                assert answer.status == 200, answer
                session = await answer.json()
            assert asked[-1] == ("POST", path, body), asked
        async with client.get(f"{BASE}/livekit/sfu/rtc/validate?access_token=x", ssl=context) as answer:
            assert await answer.text() == "GET /rtc/validate?access_token=x"

        url = URL(f"{session['url']}/rtc?access_token={session['jwt']}&auto_subscribe=1&sdk=js%2F2", encoded=True)
        async with client.ws_connect(url, protocols=["livekit"], ssl=context, max_msg_size=0) as socket:
            host = BASE.removeprefix("https://")
            assert asked[-1] == ("GET", f"/rtc?access_token={TOKEN}&auto_subscribe=1&sdk=js%2F2", host), asked
            assert socket.protocol == "livekit"
            for size in (0, 125, 126, 65536, 3_000_000):
                await socket.send_bytes(b"\xff" * size)
                assert await socket.receive_bytes() == b"\xff" * size
            await socket.send_str("Grüße")
            assert await socket.receive_str() == "Grüße"
            # Longer than every deadline of the edge; only LiveKit's pings and the client's pongs are on the way.
            try:
                await asyncio.wait_for(socket.receive(), ARGUMENTS["silence"])
                raise AssertionError("the tunnel ended")
            except asyncio.TimeoutError:
                pass
            await socket.send_str("still there")
            assert await socket.receive_str() == "still there"
            await socket.close(code=4001, message=b"leaving")
        for _ in range(100):
            if asked[-1] == ("closed", 4001):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(asked)


asyncio.run(asyncio.wait_for(main(), 60))
