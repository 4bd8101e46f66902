"""What actions leave for people: notifications, to be read, and tasks, to be done."""
