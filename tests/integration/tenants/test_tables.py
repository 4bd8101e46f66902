"""Piccolo's view of the tables agrees with the migration's."""

from __future__ import annotations

import pytest
from piccolo.table import Table

from tenants.piccolo_app import APP_CONFIG

COLUMNS = """
select column_name, is_nullable = 'YES' as nullable from information_schema.columns
where table_schema = 'public' and table_name = $1
"""


@pytest.mark.parametrize("table", APP_CONFIG.table_classes, ids=lambda table: table._meta.tablename)
async def test_columns_are_the_same_and_nothing_is_invented(admin, table: type[Table]):
    in_database = {row["column_name"]: row["nullable"] for row in await admin.fetch(COLUMNS, table._meta.tablename)}
    in_piccolo = {column._meta.name: column._meta.null for column in table.all_columns()}
    assert in_piccolo == in_database
    for column in table.all_columns():
        if column._meta.null:
            assert column.get_default_value() is None, f"{column} would be filled in"
