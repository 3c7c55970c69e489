// What scripts import from "wsthreads": handles that need no session, and the sessions.
//
// The functions are frozen: two files of a script that import one get the same object.

const module = {
  __proto__: null,

  room: freeze((name) => new Room(null, checkedRoomName(name))),

  // The objects that handlers receive, the oldest first. Without those whose onClose was called.
  sessions: freeze(() => {
    const found = [];
    states.forEach(({ session }) => {
      if (session !== null) {
        append(found, session);
      }
    });
    return found;
  }),
};
