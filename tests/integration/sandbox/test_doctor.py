"""What `millrace doctor` says about sandboxes."""

from app.cli.doctor import _sandbox
from instances.sandbox import examination
from instances.sandbox.examination import Examination


async def test_it_says_what_holds_here():
    found = await _sandbox()
    assert found.state == "ok"
    assert found.detail.startswith("seccomp, ")


async def test_it_says_why_scripts_cannot_run(monkeypatch):
    async def refuse():
        return Examination("the sandbox does not hold here: dup(3,) got through")

    monkeypatch.setattr(examination, "examine", refuse)
    found = await _sandbox()
    assert (found.state, found.detail) == ("warning", "the sandbox does not hold here: dup(3,) got through")
    assert "documents can" in found.hint
