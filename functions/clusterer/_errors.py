"""Everything a cluster run can fail with. The class name is the error type that the caller sees and routes on.

ClustererError
├── InvalidEvent          the event itself is malformed: the caller's fault, never worth a retry
├── UnknownAlgorithm      no algorithm or map method of that name
├── InvalidParameter      a parameter is unknown, of the wrong type, or out of range
├── InputMismatch         vectors and texts do not fit the numbers in the event
├── InputTooLarge         more data than one run may hold in memory
├── TransferFailed        a presigned address could not be read or written: worth a retry
└── ClusteringFailed      a fault in this function; the log has the details, the caller gets one sentence

Data that merely has no clusters is not an error: such runs succeed and say why in words.
"""


class ClustererError(Exception):
    """The common parent. Its text is written for the person who can mend the cause and holds no secrets."""


class InvalidEvent(ClustererError):
    pass


class UnknownAlgorithm(ClustererError):
    pass


class InvalidParameter(ClustererError):
    pass


class InputMismatch(ClustererError):
    pass


class InputTooLarge(ClustererError):
    pass


class TransferFailed(ClustererError):
    pass


class ClusteringFailed(ClustererError):
    pass
