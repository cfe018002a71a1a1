"""All that one sender can do, done to real daemons under a real systemd: ``make misery``."""
