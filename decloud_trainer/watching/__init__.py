"""Who looks after a daemon that nobody looks at: alarms, notices, metrics, its log, its records."""
