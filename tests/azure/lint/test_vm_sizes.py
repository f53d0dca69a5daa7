"""VM sizes of compute clusters."""

import pytest

from ppe_yolo.azure.lint.vm_sizes import supports_vm_size


@pytest.mark.parametrize(
    "size",
    [
        "Standard_D4ds_v4", "Standard_DS3_v2", "STANDARD_D4S_V3", "Standard_D3_v2", "Standard_E4a_v4", "Standard_E4s_v3",
        "Standard_F8s_v2", "Standard_ND40rs_v2",
        "Standard_NC4as_T4_v3", "Standard_NC24ads_A100_v4", "Standard_ND96asr_v4", "Standard_ND96amsr_A100_v4",
        "Standard_NC40ads_H100_v5", "Standard_ND96isr_H100_v5", "Standard_HB120rs_v2",
    ],
)  # fmt: skip
def test_supports_vm_size_documented_series_is_accepted(size: str) -> None:
    assert supports_vm_size(size)


@pytest.mark.parametrize(
    "size", ["Standard_D4s_v5", "Standard_D4as_v5", "Standard_E4s_v5", "Standard_B2ms", "Standard_NC4as_T4", "D4ds_v4", ""]
)
def test_supports_vm_size_other_series_is_rejected(size: str) -> None:
    assert not supports_vm_size(size)
