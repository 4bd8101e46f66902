"""The API faces beside the Cloudflare one, each translating to the same services.

This package itself imports none of them: what every face builds on is imported by the application below them
(`app.faces.face`). The list is in `app.faces.registry`.
"""
