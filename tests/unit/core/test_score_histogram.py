import json
import math

import numpy as np
import pytest

from ppe_yolo.core.contract import ContractError, ModelContract
from ppe_yolo.core.score_histogram import population_stability_index, score_histogram


def test_score_histogram_counts_scores_from_a_tenth_on():
    scores = np.array([0.05, 0.099, 0.15, 0.55, 0.58, 1.0], np.float32)
    assert score_histogram(scores) == (1, 0, 0, 0, 2, 0, 0, 0, 1)


def test_population_stability_index_matches_hand_calculation():
    """Shares 3/4 and 1/4 against 1/4 and 3/4: twice 1/2 * ln 3, with half a count added to each."""
    assert population_stability_index((29, 9), (9, 29)) == pytest.approx(2 * 0.5 * math.log(29.5 / 9.5) * 20 / 19.5, rel=1e-9)
    assert population_stability_index((10, 20, 30), (10, 20, 30)) == 0.0
    assert math.isfinite(population_stability_index((100, 0), (0, 100)))


def test_contract_carries_histogram_and_reads_files_without_it():
    contract = ModelContract(("helmet", "none"), (64, 64), score_histogram=(1, 2, 3, 4, 5, 6, 7, 8, 9))
    assert ModelContract.from_json(contract.to_json()) == contract
    old = ModelContract(("helmet", "none"), (64, 64))
    values = json.loads(old.to_json())
    del values["score_histogram"]
    assert ModelContract.from_json(json.dumps(values)) == old
    with pytest.raises(ContractError, match="score_histogram must be 9 counts"):
        ModelContract(("helmet", "none"), (64, 64), score_histogram=(1, 2))
