"""The interface of a source of annotated images. Each format implements it in its own module."""

from dataclasses import dataclass
from typing import Literal, Protocol, Self

from ppe_yolo.core.errors import UserError
from ppe_yolo.data.annotation import AnnotatedImage

Box = tuple[float, float, float, float]

Severity = Literal["error", "warning"]
BoxForm = Literal["corners", "corner and size", "centre and size"]

ALL = "all"  # the only split of a source that names none


class AnnotationError(UserError):
    """An annotation that cannot be used. Its fields name the file and the object.

    Attributes:
        code: Kind of problem, for the audit.
    """

    code = "annotation"


class ClassNumberError(AnnotationError):
    """A class number without a name. Its item is `class N`."""

    code = "class-number"


class NoImageError(AnnotationError):
    """The image of an annotation is missing. Its file says which annotation it is, with its item if the file has others."""

    code = "no-image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem in a data set.

    Attributes:
        severity: `error`: training on it would be wrong or impossible. `warning`: worth a look.
        code: Kind of problem, such as `empty-box`.
        file: The file to look at.
        item: The part of the file, such as an object; empty for the whole file.
        message: What is wrong and what to do, without file and item.
        files: All files with the problem, if it is about several.
        image: The image to show with the problem; empty if there is none.
        boxes_xyxy: The boxes to draw on it, pixels.
    """

    severity: Severity
    code: str
    file: str
    item: str = ""
    message: str
    files: tuple[str, ...] = ()
    image: str = ""
    boxes_xyxy: tuple[Box, ...] = ()

    @classmethod
    def from_error(cls, error: UserError, code: str) -> Self:
        """The problem of severity `error` that an exception describes."""
        message = UserError(error.problem, expected=error.expected, got=error.got, hint=error.hint).describe()
        return cls(severity="error", code=code, file=error.file or "", item=error.item or "", message=message)

    def to_dict(self) -> dict[str, str | list[str]]:
        """The problem as audit.json holds it. `files` is there only if it is about several."""
        files: dict[str, str | list[str]] = {"files": list(self.files)} if self.files else {}
        return {
            "severity": self.severity,
            "code": self.code,
            "file": self.file,
            "object": self.item,
            "message": self.message,
            **files,
        }

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.item, self.message) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One image as its source describes it, unchecked.

    Attributes:
        image: The image, with names and boxes exactly as annotated.
        location: The file of the annotation, in a list with the line; for messages about objects.
        item: The part of the file, such as `image a.jpg`; empty if the file or line has no other.
        annotated_size: (height, width) of the image according to the annotation; None if it does not say.
        is_one_based: Whether the format counts pixels from 1, as Pascal VOC does.
        problems: Problems of the annotation that do not prevent its use.
    """

    image: AnnotatedImage
    location: str
    item: str = ""
    annotated_size: tuple[int, int] | None = None
    is_one_based: bool
    problems: tuple[Problem, ...] = ()


class Source(Protocol):
    """Annotated images with named splits.

    Attributes:
        format: The format, for people: `Pascal VOC`.
        box_form: What the four numbers of a box are.
        splits: Split -> keys of its images, in the order of the source.
        class_names: The names that the source declares, in their order; empty if it declares none.
        problems: Problems of the source as a whole, such as images without annotation.
    """

    format: str
    box_form: BoxForm
    splits: dict[str, list[str]]
    class_names: list[str]
    problems: list[Problem]

    def read(self, key: str) -> Entry:
        """Reads one annotation. Called from several threads at once.

        Raises:
            AnnotationError: The annotation cannot be used.
        """
        ...
