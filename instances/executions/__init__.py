"""Single executions by their key: waited for, cancelled, hidden, answered, retried."""
