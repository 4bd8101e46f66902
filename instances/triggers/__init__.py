"""Starting workflows by their triggers: inbound webhooks and published events. (Schedules fire in `jobs.schedules`.)"""
