"""Every code with which the runner reports a failure, in one table.

The warehouse's TypeScript side is compared with it.

``python3 _errors.py`` prints the table as JSON.
"""

from __future__ import annotations

MESSAGE_BYTES_MAX = 1000
TRACEBACK_CHARS_MAX = 4000

# code: (retryable, title). Retryable means that the same rows may well pass unchanged on another try.
CODES: dict[str, tuple[bool, str]] = {
    # One row (or the rows of one frame) failed; the others keep their results.
    "plugin_row_failed": (False, "The plugin raised an error on this row"),
    "plugin_timeout": (True, "The plugin did not finish this row in its time"),
    "plugin_died": (False, "The plugin's process ended on this row"),
    "plugin_memory": (False, "The plugin ran out of memory on this row"),
    "plugin_not_probed": (True, "Time or tries ended before the row was run, or run alone"),
    "plugin_protocol_error": (False, "The plugin's process sent an answer that is not valid"),
    "step_wrong_return": (False, "A step or prepare did not return a DataFrame"),
    "row_identity_lost": (False, "The steps changed the number of rows and dropped the column __row"),
    "too_many_outputs": (False, "The plugin made more outputs of this row than are allowed"),
    "feature_column_missing": (False, "The steps wrote none of the manifest's feature columns"),
    "vector_wrong_shape": (False, "A vector does not have the declared number of dimensions"),
    "vector_not_numeric": (False, "A vector contains something that is not a number"),
    "vector_not_finite": (False, "A vector contains NaN or infinity"),
    "realtime_wrong_answer": (False, "The realtime service's answer holds no embedding"),
    "blob_download_failed": (True, "The row's blob could not be downloaded"),
    "blob_too_large": (False, "The row's blob is larger than the runner accepts"),
    "blob_invalid": (False, "The row's blob is not valid base64"),
    "plugin_disk": (False, "The plugin wrote more files than it may on this row"),
    "outputs_too_large": (False, "The plugin's results for this call are larger than the runner accepts"),
    # The call as a whole failed; no row has a result.
    "bad_request": (False, "The runner was called with an event that it does not understand"),
    "archive_download_failed": (True, "The plugin's archive could not be downloaded"),
    "archive_hash_mismatch": (False, "The archive is not the one that was validated"),
    "archive_refused": (False, "The archive breaks a rule for archives"),
    "rows_download_failed": (True, "The rows could not be downloaded"),
    "plugin_load_failed": (False, "The plugin could not be loaded"),
    "plugin_load_timeout": (True, "The plugin did not load in its time"),
    "realtime_missing": (False, "The plugin has no usable realtime.py"),
    "realtime_failed": (False, "The plugin's realtime service raised an error"),
    "runner_unavailable": (True, "The runner could not start a process for the plugin"),
    "result_upload_failed": (True, "The result could not be uploaded"),
    "result_too_large": (False, "The result is too large to be returned and no upload address was given"),
}


class RunnerError(Exception):
    """A failure with a code of the table; ``message`` says what happened, where, and what would be right."""

    def __init__(self, code: str, message: str, traceback: str | None = None) -> None:
        """``traceback`` is the way of an error through the plugin, in Python's own form."""
        super().__init__(message)
        if code not in CODES:
            raise KeyError(code)
        self.code = code
        self.message = cut(message)
        self.traceback = traceback

    def to_wire(self) -> dict:
        """The form of the reply: code, message, retryable, and a traceback where there is one."""
        wire = {"code": self.code, "message": self.message, "retryable": CODES[self.code][0]}
        return wire if self.traceback is None else {**wire, "traceback": self.traceback}


class WorkerGone(RunnerError):
    """A worker ended, or talked nonsense, before it answered; if it had been idle, a new one may do
    better."""


def failure(row: int, code: str, message: str, traceback: str | None = None) -> dict:
    """One entry of a reply's ``failures``."""
    return {"row": row, **RunnerError(code, message).to_wire(), "traceback": traceback}


def cut(message: str) -> str:
    """Cuts a message to MESSAGE_BYTES_MAX bytes of UTF-8 and replaces what UTF-8 cannot hold."""
    # First to as many characters: the text may be larger than the memory for a copy of it.
    data = message[: MESSAGE_BYTES_MAX + 1].encode("utf-8", "replace")
    if len(data) > MESSAGE_BYTES_MAX:
        data = data[: MESSAGE_BYTES_MAX - 3] + b"..."
    return data.decode("utf-8", "ignore")


if __name__ == "__main__":
    import json

    print(
        json.dumps(
            {code: {"retryable": retryable, "title": title} for code, (retryable, title) in CODES.items()}
        )
    )
