"""Databases no migration of this build makes fit. Apart from `app.migrations`, so that commands start without that."""

from __future__ import annotations

NEW_DATABASE = "make a new database and run `millrace migrate` on it"
"""What to do with a database of another build where nobody knows better."""


class SchemaUnusable(Exception):
    """The database cannot be worked on by this build; one sentence for a person."""


class SchemaTooNew(SchemaUnusable):
    """The database was migrated by a newer release."""


class SchemaDiffers(SchemaUnusable):
    """The database was made by a build whose migrations were others under the same ids.

    `made_by` and `this_build` describe the two; `remedy` completes "go on with that build, or …".
    """

    def __init__(self, made_by: str, this_build: str, remedy: str = NEW_DATABASE) -> None:
        super().__init__(
            f"the database was made by another build of Millrace ({made_by}) than this one ({this_build}), and builds "
            f"between releases cannot upgrade each other's tables: go on with that build, or {remedy}"
        )
        self.made_by = made_by
        self.this_build = this_build

    def with_remedy(self, remedy: str) -> SchemaDiffers:
        """The same, by somebody who knows better what to do."""
        return SchemaDiffers(self.made_by, self.this_build, remedy)
