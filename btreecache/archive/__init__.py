"""The archive: durable history on ZODB, and every retained revision of it readable."""

from __future__ import annotations

from btreecache.archive.archive import Archive as Archive
from btreecache.archive.reading import Reading as Reading
from btreecache.archive.retention import THINNED as THINNED
from btreecache.archive.retention import Retention as Retention
