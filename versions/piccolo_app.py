"""Piccolo's registration of this package's tables and migrations."""

from pathlib import Path

from piccolo.conf.apps import AppConfig

from versions.tables import NodeStatistics, Schedule, Script, Version, Workflow

APP_CONFIG = AppConfig(
    app_name="versions",
    migrations_folder_path=str(Path(__file__).parent / "piccolo_migrations"),
    table_classes=[Script, Workflow, Version, Schedule, NodeStatistics],
    migration_dependencies=["tenants.piccolo_app"],
)
