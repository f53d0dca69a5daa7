"""The files between commands, one module each, with its one reader and its one writer. No torch.

`evaluate` writes metrics, detections, ground truth and robustness, `report` the operating point; `report`, `promote` and
`export` read them.
"""
