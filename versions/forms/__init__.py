"""Native forms: what users of the other faces write instead of a definition document, and how that is shown to them.

Each form is a :class:`Form`: `translate` makes a document of a body, `show` makes a body of a document, whichever face
that came through. Both are pure. `FORMS` has them by dialect.

orchestration   "002": tasks and synchronisation points
workspaces      "004": a list of actions, one after the other
jobsprint       "001": nodes and connections
"""

from versions.forms import jobsprint, orchestration, workspaces
from versions.forms.form import Form, Installation, Translation, Untyped
from versions.forms.redaction import REDACTED, redacted

FORMS: dict[str, Form] = {each.dialect: each for each in (jobsprint.FORM, orchestration.FORM, workspaces.FORM)}
"""Forms by dialect."""

__all__ = ["FORMS", "REDACTED", "Form", "Installation", "Translation", "Untyped", "redacted"]
