"""The routes of this face, below `/api/workspaces/{slug}`."""

from app.faces.workspaces import execution_routes, inbox_routes, stream_routes, workflow_routes

route_handlers = [
    *execution_routes.route_handlers,
    *stream_routes.route_handlers,
    *workflow_routes.route_handlers,
    *inbox_routes.route_handlers,
]
