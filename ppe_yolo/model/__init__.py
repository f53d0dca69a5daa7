"""YOLOv3 networks: images in, raw maps out. The loss is in `ppe_yolo.training`."""
