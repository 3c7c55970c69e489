// The chat of signed_tokens.py, as a script. signed_tokens.py sets X-User; a client cannot set it.

export function onHandshake(request) {
  const user = request.getHeader("X-User");
  if (!user) return 401;
  request.setUser(user);
  return request.getSubprotocols().includes("chat") ? "chat" : undefined;
}

export function onOpen(session) {
  session.room("chat").join();
  session.send(`welcome, ${session.user}`);
}

export function onMessage(session, message) {
  session.room("chat").broadcast(`${session.user}: ${message}`);
}
