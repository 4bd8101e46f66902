"""Piccolo's entry point: which packages have tables. The engine's pool is set by `tenants.database`."""

from piccolo.conf.apps import AppRegistry

from tenants.database import PICCOLO_ENGINE as DB

__all__ = ["APP_REGISTRY", "DB"]

APP_REGISTRY = AppRegistry(
    apps=["tenants.piccolo_app", "versions.piccolo_app", "instances.piccolo_app", "jobs.piccolo_app"]
)
