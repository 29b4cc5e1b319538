"""Where a store lives: a folder, or S3-compatible storage, by URI.

A location knows how to name what is inside it for the two libraries that read and write there: Delta
Lake (a URI and storage options) and Arrow (a file system and a path). S3 takes its credentials, region
and endpoint from the usual ``AWS_*`` environment variables.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow.fs as pafs

from feature_store.errors import UsageError


@dataclass(frozen=True)
class Location:
    """An absolute folder (``folder`` set) or ``s3://bucket/prefix``."""

    uri: str
    folder: Path | None

    @classmethod
    def parse(cls, uri: str | Path) -> Location:
        """Take a folder path, ``file://…`` or ``s3://…``. Raises UsageError for any other scheme."""
        text = str(uri)
        parts = urlsplit(text)
        if "://" not in text or parts.scheme == "file":
            path = Path(unquote(parts.path) if "://" in text else text).expanduser().absolute()
            return cls(str(path), path)
        if parts.scheme == "s3" and parts.netloc:
            return cls(text.rstrip("/"), None)
        raise UsageError(
            f"A store cannot live at a {parts.scheme}:// address.",
            action="Give a folder, file:// or s3://bucket/prefix.",
        )

    def child(self, *names: str) -> str:
        """URI of what is called ``names`` inside."""
        return "/".join((self.uri, *names))

    @property
    def storage_options(self) -> dict[str, str]:
        """What Delta Lake needs beside the URI; the rest it takes from the environment itself."""
        if self.folder is not None:
            return {}
        options = {"aws_conditional_put": "etag"}  # commits by put-if-absent: no lock table needed
        endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
        if endpoint:
            options["aws_endpoint_url"] = endpoint
        if endpoint.startswith("http://"):
            options["aws_allow_http"] = "true"
        return options

    def filesystem(self, *names: str) -> Any:
        """Arrow file system whose root is the folder ``names`` inside this location."""
        if self.folder is not None:
            return pafs.SubTreeFileSystem(str(self.folder.joinpath(*names)), pafs.LocalFileSystem())
        endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL", ""))
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        options: dict[str, Any] = {"region": region} if region else {}
        if endpoint.netloc:
            options |= {"endpoint_override": endpoint.netloc, "scheme": endpoint.scheme}
        path = "/".join((self.uri.removeprefix("s3://"), *names))
        return pafs.SubTreeFileSystem(path, pafs.S3FileSystem(**options))
