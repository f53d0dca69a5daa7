"""VM sizes that Azure ML compute clusters support.

The series are those of "Supported VM series and sizes" in Azure ML's documentation (concept-compute-target), plus the A100 and
H100 series. Azure Batch allocates the nodes and needs a local temporary disk, which excludes series such as Dsv5.
`az ml compute list-sizes --type AmlCompute` lists the sizes of a region.
"""

import re

_SERIES = (
    r"D(2|4|8|16|32|48|64)(ds_v4|s?_v3)",  # Ddsv4, Dv3, Dsv3
    r"DS?1?[1-5](-\d)?_v2",  # Dv2, DSv2
    r"E(2|4|8|16|20|32|48|64|96)(-\d+)?(i?a?_v4|i?s?_v3)",  # Eav4, Ev3, Esv3
    r"F(2|4|8|16|32|48|64|72)s_v2",
    r"FX(4|12|24|36|48)mds",
    r"HB120(-\d+)?rs_v[23]|HC44(-\d+)?rs",  # HBv2, HBv3, HC
    r"L(8|16|32|48|64|80)s_v2",
    r"M\d+(-\d+)?[a-z]*",
)
# Retired, and therefore not here: NC, NCv2, NCv3, ND, NV, NVv3, HB (azure-compute-docs, retired-sizes-list, 2026)
_GPUS = {  # https://learn.microsoft.com/azure/virtual-machines/sizes/overview
    **{f"nc{cores}as_t4_v3": gpus for cores, gpus in ((4, 1), (8, 1), (16, 1), (64, 4))},
    **{f"nc{cores}ads_a100_v4": gpus for cores, gpus in ((24, 1), (48, 2), (96, 4))},
    "nc40ads_h100_v5": 1,
    "nc80adis_h100_v5": 2,
    **dict.fromkeys(("nd40rs_v2", "nd96asr_v4", "nd96amsr_a100_v4", "nd96isr_h100_v5"), 8),
}
_SIZE = re.compile(rf"standard_({'|'.join(_SERIES)})", re.IGNORECASE)


def supports_vm_size(size: str) -> bool:
    """Whether a compute cluster can have nodes of this size, such as `Standard_DS3_v2`."""
    return _SIZE.fullmatch(size) is not None or gpu_count(size) is not None


def gpu_count(size: str) -> int | None:
    """Number of GPUs of a supported VM size; None for a size that is not supported."""
    if _SIZE.fullmatch(size) is not None:
        return 0
    series, _, name = size.lower().partition("_")
    return _GPUS.get(name) if series == "standard" else None
