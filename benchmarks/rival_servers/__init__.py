"""The same release behind other servers: each file runs in an environment of its own."""
