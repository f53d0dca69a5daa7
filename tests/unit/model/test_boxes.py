"""Box geometry, by hand and against torchvision."""

import pytest
import torch
from torchvision.ops import box_convert, box_iou

from ppe_yolo.model.boxes import cxcywh_to_xyxy, iou_of_sizes, pairwise_iou, xyxy_to_cxcywh


def random_boxes_xyxy(count, seed):
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand((2, count, 2), generator=generator) * 100
    return torch.cat((corner, corner + size), dim=1)


def test_conversions_of_one_box_match_hand_calculation():
    assert xyxy_to_cxcywh(torch.tensor([10.0, 20, 30, 60])).tolist() == [20, 40, 20, 40]
    assert cxcywh_to_xyxy(torch.tensor([20.0, 40, 20, 40])).tolist() == [10, 20, 30, 60]


def test_conversions_are_inverse_and_match_torchvision():
    boxes_xyxy = random_boxes_xyxy(200, seed=0)
    boxes_cxcywh = xyxy_to_cxcywh(boxes_xyxy)
    torch.testing.assert_close(boxes_cxcywh, box_convert(boxes_xyxy, "xyxy", "cxcywh"))
    torch.testing.assert_close(cxcywh_to_xyxy(boxes_cxcywh), boxes_xyxy)
    assert cxcywh_to_xyxy(boxes_cxcywh.view(4, 5, 10, 4)).shape == (4, 5, 10, 4)


def test_pairwise_iou_matches_hand_calculation():
    a = torch.tensor([[0.0, 0, 10, 10]])
    b = torch.tensor([[5.0, 0, 15, 10], [0, 0, 10, 10], [10, 0, 20, 10], [2, 2, 4, 4], [3, 3, 3, 3]])
    # 50 of 150 shared; the box itself; only an edge shared; 4 inside 100; an empty box
    torch.testing.assert_close(pairwise_iou(a, b), torch.tensor([[1 / 3, 1.0, 0.0, 0.04, 0.0]]))
    assert pairwise_iou(b[4:], b[4:]).item() == 0.0


def test_pairwise_iou_matches_torchvision_also_in_batches():
    a, b = random_boxes_xyxy(60, seed=1), random_boxes_xyxy(40, seed=2)
    torch.testing.assert_close(pairwise_iou(a, b), box_iou(a, b))
    batched = pairwise_iou(a.view(3, 20, 4), b.view(1, 40, 4))
    assert batched.shape == (3, 20, 40)
    torch.testing.assert_close(batched[2], box_iou(a[40:], b))


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_pairwise_iou_without_boxes_has_empty_shape(n, m):
    assert pairwise_iou(torch.zeros(n, 4), torch.zeros(m, 4)).shape == (n, m)


def test_iou_of_sizes_equals_iou_of_centred_boxes():
    a, b = torch.tensor([[10.0, 10], [4, 25], [0, 0]]), torch.tensor([[20.0, 5], [10, 10]])
    # 10x10 and 20x5: 50 of 150 shared; 4x25 and 20x5: 20 of 180; 4x25 and 10x10: 40 of 160
    torch.testing.assert_close(iou_of_sizes(a, b), torch.tensor([[1 / 3, 1.0], [1 / 9, 0.25], [0.0, 0.0]]))
    centred = [cxcywh_to_xyxy(torch.cat((torch.full_like(s, 50.0), s), dim=1)) for s in (a, b)]
    torch.testing.assert_close(iou_of_sizes(a, b), box_iou(*centred).nan_to_num())
