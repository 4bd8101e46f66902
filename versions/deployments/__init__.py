"""Scripts as deployment tools see them: versions, deployments, secrets, settings and what belongs to each."""
