"""Piccolo's registration of this package's tables and migrations."""

from pathlib import Path

from piccolo.conf.apps import AppConfig

from tenants.tables import Account, ApiToken, AppUser, AuditLine, Membership, Workspace

APP_CONFIG = AppConfig(
    app_name="tenants",
    migrations_folder_path=str(Path(__file__).parent / "piccolo_migrations"),
    table_classes=[Account, ApiToken, AppUser, AuditLine, Membership, Workspace],
    migration_dependencies=[],
)
