"""What a server says about when to come again.

from ske_models.retry_after import retry_after
retry_after(response.headers)
"""

from __future__ import annotations

import contextlib
import email.utils
import time
from collections.abc import Mapping


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait; None if it does not say, or nothing that can be waited for.

    RFC 9110, section 10.2.3: `Retry-After` has seconds or a date. OpenAI sends `retry-after-ms`, too.
    """
    for name, per_second in (("retry-after-ms", 1000), ("retry-after", 1)):
        with contextlib.suppress(ValueError):
            seconds = float(headers.get(name, "")) / per_second
            return seconds if 0 < seconds < float("inf") else None
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, OverflowError):
        return None
    seconds = date.timestamp() - time.time()
    return seconds if seconds > 0 else None
