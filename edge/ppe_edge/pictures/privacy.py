"""Settings of privacy: which detections are pixelated wherever the box shows or stores frames."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ppe_edge.errors import EdgeError
from ppe_edge.rules.config import one_or_more
from ppe_yolo.core.contract import ModelContract


class PrivacyConfig(BaseModel):
    """What is pixelated in snapshots, clips, live images, samples and frames of alerts, unless their own `blur` is off."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: Annotated[
        tuple[str, ...] | None,
        Field(min_length=1),
        BeforeValidator(one_or_more),
    ] = Field(
        None,
        description="Which classes are pixelated in all images that the box stores or shows, such as helmet and none; default: "
        "all classes of the model. Name those that are heads if the model also knows persons or vests, or whole persons are "
        "pixelated.",
    )

    def labels(self, contract: ModelContract) -> frozenset[int]:
        """Returns the labels of the pixelated classes.

        Raises:
            EdgeError: The model has no such class.
        """
        names = contract.class_names
        for name in self.classes or ():
            if name not in names:
                expected = f"classes of the model ({', '.join(names)})"
                raise EdgeError(setting="privacy.classes", expected=expected, got=repr(name))
        return frozenset(map(names.index, names if self.classes is None else self.classes))
