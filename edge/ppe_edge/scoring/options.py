"""The options of `ppe-edge score`. Imported at every start of the box, so it must stay cheap."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "videos",
        nargs="+",
        metavar="[CAMERA=]VIDEO",
        help="a video file or a folder of images. CAMERA is its name in --truth, and in the configuration, whose settings of "
        "this camera apply; default: the name of the file without suffix",
    )
    parser.add_argument(
        "--truth",
        type=Path,
        required=True,
        metavar="CSV",
        help="what happens in the videos: columns camera, start, end, kind. Times are seconds or [H:]MM:SS from the first "
        "frame; an empty end is the end of the video. kind: violation (or its class, such as `bare head`), another class, or "
        "ignore",
    )
    parser.add_argument("--model", type=Path, metavar="FILE", help="an .onnx file; default: the one of the configuration")
    parser.add_argument("--fps", type=float, help="maximum frame rate of all videos, instead of that of the configuration")
    parser.add_argument(
        "--tolerance", type=float, default=1.0, metavar="S", help="seconds by which an alert may miss a violation (default: 1)"
    )
    parser.add_argument(
        "--sweep",
        nargs="?",
        const="",
        action="append",
        default=[],
        metavar="SETTING=V,V",
        help="also score other settings of the rule, such as alarm_threshold=0.4,0.5 or seconds=1,2, or of the tracker, such "
        "as tracker.keep_s=1,3. Several give all combinations; without a value: usual ones of alarm_threshold and seconds",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the score as JSON; - prints it in place of the table")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="draw time lines, and the sweep, into an SVG file")
    parser.add_argument("--min-found", type=float, metavar="SHARE", help="fail if fewer violations are found, 0 to 1")
    parser.add_argument("--max-false-per-hour", type=float, metavar="N", help="fail if there are more false alerts")
    parser.add_argument("--max-delay", type=float, metavar="S", help="fail if an alert comes later")
    parser.add_argument("--max-alerts-per-violation", type=float, metavar="N", help="fail if there are more on average")
