"""Run the server until SIGTERM or Ctrl-C.

Devices connect to the MQTT port; metrics and health checks are on the HTTP port; the command line
talks to the socket in the data directory.
"""

import argparse

from tbfast import config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every setting that has a flag."""
    config.add_config_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Serves; 0 after a graceful stop."""
    from tbfast.supervisor import serve

    return serve(config.load(args).config)
