"""Names of architectures, box codings and kinds of Darknet files. No torch, so that the command line can import them."""

from typing import Literal

Architecture = Literal["yolov3", "yolov3-small", "yolov3-tiny"]
BoxCoding = Literal["bounded", "darknet"]
DarknetKind = Literal["yolov3", "yolov3-small", "yolov3-tiny", "darknet53"]  # darknet53: the backbone of yolov3 alone
