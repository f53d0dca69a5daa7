"""The command line of the box: `ppe-edge --config edge.yaml`, `ppe-edge demo`, and `ppe-edge score`."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ppe_edge.errors import NotReadyError
from ppe_edge.scoring.options import add_arguments
from ppe_edge.startup import handle_signals, prepare
from ppe_yolo.core.errors import UserError
from ppe_yolo.core.version import __version__

FAILURE, USER_ERROR = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the box until SIGTERM or, if all cameras are files, until the last one has ended.

    Returns:
        The exit code: 0, 2 for a user error (printed in one line), 1 for a failure after which a supervisor should restart
        the box.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command is None and options.config is None:
        parser.error("the following arguments are required: --config")
    if options.command == "demo" and (options.config or options.dry_run or options.record):
        parser.error("demo takes no options")
    try:
        if options.command == "demo":
            from ppe_edge.demo.command import run as demo

            return demo()
        if options.command == "score":
            from ppe_edge.scoring.command import run as score

            return score(options)
        return _run(options.config, options.dry_run, options.record)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return FAILURE if isinstance(error, NotReadyError) else USER_ERROR


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of `ppe-edge` and its commands."""
    parser = argparse.ArgumentParser("ppe-edge", description="Monitors cameras for heads without a helmet, and raises alerts.")
    parser.add_argument("--version", action="version", version=f"ppe_edge {__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration, edge.yaml")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check configuration, model, cameras and sinks, then exit; sends nothing",
    )
    parser.add_argument("--record", type=Path, metavar="DIR", help="write annotated videos of all cameras to DIR/CAMERA.mp4")
    commands = parser.add_subparsers(dest="command", metavar="demo, score", title="commands")
    commands.add_parser(
        "demo",
        help="watch a drawn site with the bundled model; needs no camera and no configuration",
        description="Watches a drawn building site with the bundled model, and raises alerts. Ends with Ctrl-C.",
    )
    _add_score(commands)
    return parser


def _add_score(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command `score`."""
    score = commands.add_parser(
        "score",
        help="measure the alerts on your own videos; see `ppe-edge score --help`",
        description="Runs the box on videos as fast as possible, and compares its alerts with what you saw in them.",
        epilog="Exit code: 0, 1 if a limit is missed, 2 for a user error.",
    )
    score.add_argument(
        "--config", type=Path, metavar="FILE", default=argparse.SUPPRESS, help="the configuration of the box, edge.yaml"
    )
    add_arguments(score)


def _run(config: Path, dry_run: bool, record: Path | None) -> int:
    if dry_run:
        from ppe_edge.config import load_settings
        from ppe_edge.dry_run import dry_run as check

        return check(load_settings(config), config)
    application = prepare(config, record)
    handle_signals(application.runtime.request_stop, application.reload)
    return application.run()


def run() -> NoReturn:
    """Entry point of the command `ppe-edge`."""
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    # an ordinary exit would wait for the threads of a client that hangs with a frozen hub
    os._exit(code)


if __name__ == "__main__":
    run()
