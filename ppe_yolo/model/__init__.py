"""YOLOv3 networks: images in, raw maps out. No loss lives here."""
