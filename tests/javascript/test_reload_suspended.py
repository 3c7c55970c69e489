"""A script that is loaded again while a session waits for its client."""

from wsthreads.testing import play

OLD = """
export function onOpen(session) { session.setAttribute("name", "ann"); }
export function onMessage(session, message) { session.send(`old ${message}`); }
export function onSuspend(session) { session.setAttribute("suspended", "by the old one"); }
"""
NEW = """
export function onMessage(session, message) { session.send(`new ${message}`); }
export function onResume(session) { session.send(JSON.stringify(session.getAttributes())); }
"""


def test_a_session_that_waits_goes_on_with_the_new_version_of_a_script(tmp_path):
    script = tmp_path / "chat.js"
    script.write_text(OLD)
    with play(script, resume_s=60) as chat:
        ann = chat.connect()
        ann.send("one")
        assert ann.take() == ["old one"]
        ann.lose()
        script.write_text(NEW)
        chat.reload()
        ann.come_back()
        assert ann.resumed
        ann.send("two")
        assert ann.take() == ['{"name":"ann","suspended":"by the old one"}', "new two"]
        ann.lose()
        script.write_text(OLD)
        chat.reload()
        chat.advance(60)
        assert chat.app.session_count == 0
