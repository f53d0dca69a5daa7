"""HTML pages that need no other file and no network."""

import base64

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_environment(package: str) -> Environment:
    """The environment of the templates in a package's folder `templates`; an undefined name is an error."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def data_uri(image: bytes, kind: str) -> str:
    """An encoded image as the source of an `<img>`; `kind` is jpeg or png."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
