"""Piccolo's registration of this package's tables and migrations."""

from pathlib import Path

from piccolo.conf.apps import AppConfig

from jobs.tables import TerminationJob

APP_CONFIG = AppConfig(
    app_name="jobs",
    migrations_folder_path=str(Path(__file__).parent / "piccolo_migrations"),
    table_classes=[TerminationJob],
    migration_dependencies=["instances.piccolo_app"],
)
