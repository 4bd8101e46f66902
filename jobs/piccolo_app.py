"""Piccolo's registration of this package's tables and migrations."""

from pathlib import Path

from piccolo.conf.apps import AppConfig

from jobs.tables import TerminationJob, Webhook, WebhookDelivery

APP_CONFIG = AppConfig(
    app_name="jobs",
    migrations_folder_path=str(Path(__file__).parent / "piccolo_migrations"),
    table_classes=[TerminationJob, Webhook, WebhookDelivery],
    migration_dependencies=["instances.piccolo_app"],
)
