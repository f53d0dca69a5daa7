"""VM sizes that Azure ML compute clusters support.

The series are those of "Supported VM series and sizes" in Azure ML's documentation (concept-compute-target), plus the A100 and
H100 series. Azure Batch allocates the nodes and needs a local temporary disk, which excludes series such as Dsv5.
`az ml compute list-sizes --type AmlCompute` lists the sizes of a region.
"""

import re

_SERIES = (
    r"D\d+ds_v4",  # Ddsv4
    r"DS?\d+(-\d+)?(_v2|s?_v3)",  # Dv2, DSv2, Dv3, Dsv3
    r"E\d+(-\d+)?(i?a?_v4|i?s?_v3)",  # Eav4, Ev3, Esv3
    r"F\d+s_v2",
    r"FX\d+mds",
    r"H(B|C)?\d+(-\d+)?m?r?s?(_v[23])?",  # H, HB, HBv2, HBv3, HC
    r"L\d+s_v2",
    r"M\d+(-\d+)?[a-z]*",
    r"N(C|D|V)\d+r?s?(_Promo|_v2|_v3)?",  # NC, NCv2, NCv3, ND, NV, NVv3
    r"ND40rs_v2",
    r"NC\d+as_T4_v3",
    r"NC\d+ads_A100_v4",
    r"ND96am?sr_(A100_)?v4",
    r"NC\d+adi?s_H100_v5",
    r"ND96isr_H100_v5",
)
_GPUS = {  # https://learn.microsoft.com/azure/virtual-machines/sizes/overview
    **{f"nc{cores}as_t4_v3": gpus for cores, gpus in ((4, 1), (8, 1), (16, 1), (64, 4))},
    **{f"nc{cores}ads_a100_v4": gpus for cores, gpus in ((24, 1), (48, 2), (96, 4))},
    **{f"nc{cores}ads_h100_v5": gpus for cores, gpus in ((40, 1), (80, 2))},
    **dict.fromkeys(("nd96asr_v4", "nd96amsr_a100_v4", "nd96isr_h100_v5"), 8),
}
_SIZE = re.compile(rf"standard_({'|'.join(_SERIES)})", re.IGNORECASE)


def supports_vm_size(size: str) -> bool:
    """Whether a compute cluster can have nodes of this size, such as `Standard_DS3_v2`."""
    return _SIZE.fullmatch(size) is not None


def gpu_count(size: str) -> int | None:
    """Number of GPUs of a VM size of the T4, A100 and H100 series; 0 for series without; None for others."""
    name = size.lower().removeprefix("standard_")
    if not name.startswith("n"):
        return 0 if supports_vm_size(size) else None
    return _GPUS.get(name)
