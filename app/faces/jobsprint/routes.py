"""The routes of this face, below `/v1`."""

from app.faces.jobsprint import execution_routes, login_routes, workflow_routes

route_handlers = [
    *login_routes.route_handlers,
    *workflow_routes.route_handlers,
    *execution_routes.route_handlers,
]
