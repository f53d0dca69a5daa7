"""The health check of the container: asks /healthz of the box, at the address in its configuration.

Docker runs it every 30 seconds, so it reads two settings without the libraries that check all of them.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import yaml

_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_FALSE = {"false", "0", "no", "off", "f", "n"}


def health_address(config: Path, variables: Mapping[str, str]) -> str | None:
    """Address of /healthz; None if the box serves no page, or chooses its port itself.

    Args:
        config: edge.yaml. If it cannot be read, the defaults are used.
        variables: Environment variables, which override the file.
    """
    try:
        settings: Any = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        settings = None
    web = settings.get("web") if isinstance(settings, dict) else None
    given = {key: str(value) for key, value in web.items()} if isinstance(web, dict) else {}
    given |= {
        key: variables[name] for key in ("enabled", "host", "port") if (name := f"PPE_EDGE__WEB__{key.upper()}") in variables
    }
    port = given.get("port", "8080")
    if given.get("enabled", "true").strip().lower() in _FALSE or port == "0":
        return None
    host = given.get("host", "127.0.0.1")
    host = _EVERY_ADDRESS.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/healthz"


def main() -> int:
    """Returns 0 if the box answers, or serves no page: then Docker only sees that its process runs. Otherwise 1."""
    parser = argparse.ArgumentParser(
        "python -m ppe_edge.monitoring.health", description="Exit code 0 if the box is healthy, else 1."
    )
    parser.add_argument("--config", type=Path, default=Path("/etc/ppe_edge/edge.yaml"), metavar="FILE", help="its edge.yaml")
    address = health_address(parser.parse_args().config, os.environ)
    if address is None:
        return 0
    try:
        with build_opener(ProxyHandler({})).open(address, timeout=4):  # not through a proxy
            return 0
    except (OSError, ValueError) as error:
        print(f"{address}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
