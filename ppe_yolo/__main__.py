"""`python -m ppe_yolo`: the same as `ppe-yolo`."""

from ppe_yolo.cli import main

if __name__ == "__main__":
    main()
