"""aiohttp.  Env: PORT, PING, LOOP = asyncio | uvloop."""

import os

from aiohttp import ClientConnectionResetError, WSMsgType, web

heartbeat = 25.0 if os.environ.get("PING") == "1" else None
room = set()


async def echo(request):
    ws = web.WebSocketResponse(compress=False, heartbeat=heartbeat)
    await ws.prepare(request)
    async for msg in ws:
        if msg.type is WSMsgType.TEXT:
            await ws.send_str(msg.data)
    return ws


async def broadcast(data):
    for member in list(room):
        try:
            await member.send_str(data)
        except ClientConnectionResetError:
            room.discard(member)


async def room_handler(request):
    ws = web.WebSocketResponse(compress=False, heartbeat=heartbeat)
    await ws.prepare(request)
    room.add(ws)
    try:
        async for msg in ws:
            if msg.type is WSMsgType.TEXT:
                await broadcast(msg.data)
    finally:
        room.discard(ws)
    return ws


app = web.Application()
app.add_routes([web.get("/echo", echo), web.get("/room", room_handler)])

loop = None
if os.environ.get("LOOP") == "uvloop":
    import uvloop

    loop = uvloop.new_event_loop()
web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), access_log=None, print=None, backlog=2048, loop=loop)
