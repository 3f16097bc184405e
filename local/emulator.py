"""Starts the `ministack` emulator with a few of its faults mended in memory; no installed file is changed.

Each mend names its fault and the text it replaces. All are checked before anything is imported: if one text
is not there exactly once, the launcher stops and says which, so that a new version cannot lose a mend
silently. On an upgrade re-check each one and delete what upstream has mended.

    python emulator.py                   serve (the settings are environment variables, see emulator.ts)
    python emulator.py --check           check that every mend still fits the installed version, then exit

`GRANARY_LEASH=1` ties the emulator to whoever started it: it ends when its standard input closes.
`GRANARY_SAVED_FILE` names a file that is there exactly while the state on disk is that of an orderly stop.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass

RUNTIME = "ministack.core.lambda_runtime"
SERVICE = "ministack.services.lambda_svc"
TABLES = "ministack.services.dynamodb"
WORKFLOWS = "ministack.services.stepfunctions"

# A worker writes this and the request id to standard error, after its last log line and before its reply.
LOG_END = "granary-end-of-log "


@dataclass(frozen=True)
class Mend:
    """One replacement in one module: the fault as installed, the exact text, and what replaces it."""

    fault: str
    module: str
    old: str
    new: str


ERROR_NAMES_LOST = "a handler's error loses its name, so Retry and Catch by name never match"
WORKER_LOST = "a handler that throws loses its process: each failure costs a cold start"
LOG_WAIT = "a silent handler waits 50 ms for log lines, and a line that is later lands in the next invocation"
LOG_NOT_TEXT = "one byte of log that is not UTF-8 ends the log reader; the worker then blocks on a full pipe"
PARTITION_READ_WHOLE = "a query sorts and tests its whole partition for each page, so paging costs n squared"
STREAM_DEAF = "after a restart stream readers wait at old positions of a stream that begins anew"
CONCURRENCY_LOST = "a map reads no MaxConcurrencyPath, and runs everything at once"
PROCESS_BURST = "every concurrent call of a function starts one more process, without a bound"

MENDS = (
    # The Python worker names the exception's class, as the AWS runtime does.
    Mend(
        ERROR_NAMES_LOST,
        RUNTIME,
        """_real_stdout.write(json.dumps({"status": "error", "error": str(e), "trace": traceback.format_exc()})""",
        """_real_stdout.write(json.dumps({"status": "error", "error": str(e), "error_type": type(e).__name__,
                                           "trace": traceback.format_exc()})""",
    ),
    # The Node worker names `error.name`; something thrown that is no Error is named by its type.
    Mend(
        ERROR_NAMES_LOST,
        RUNTIME,
        """status: "error", error: String(err.message || err), trace: err.stack || \"\"""",
        """status: "error", error: String(err.message || err), trace: err.stack || "",
            error_type: err instanceof Error ? String(err.name || "Error") : typeof err""",
    ),
    Mend(
        ERROR_NAMES_LOST,
        RUNTIME,
        """      _realStdoutWrite(JSON.stringify({
        status: "error", error: e.message, trace: e.stack
""",
        f"""      _stderrWrite("\\n{LOG_END}" + ctx.request_id + "\\n");
      _realStdoutWrite(JSON.stringify({{
        status: "error", error: String(e && e.message || e), trace: e && e.stack || "",
        error_type: e instanceof Error ? String(e.name || "Error") : typeof e
""",
    ),
    # The service passes the name on. Without one the process itself failed: AWS calls that Runtime.ExitError.
    Mend(
        ERROR_NAMES_LOST,
        SERVICE,
        """            error_type = "Runtime.HandlerError"
            if _RIE_TIMEOUT_TEXT_RE.fullmatch(error_msg):
""",
        """            error_type = result.get("error_type") or "Runtime.ExitError"
            if not result.get("error_type") and _RIE_TIMEOUT_TEXT_RE.fullmatch(error_msg):
""",
    ),
    Mend(
        WORKER_LOST,
        RUNTIME,
        """            response = result_box[0]
            if response.get("status") == "error":
""",
        """            response = result_box[0]
            if response.get("status") == "error" and not response.get("error_type"):
""",
    ),
    # A worker ends its log with a line of our own; standard error is one ordered pipe, so the log is complete
    # when that line has been read and there is nothing to wait for.
    Mend(
        LOG_WAIT,
        RUNTIME,
        """        try:
            result = handler_fn(event, context)
            _real_stdout.write(""",
        f"""        try:
            try:
                result = handler_fn(event, context)
            finally:
                sys.stderr.write("\\\\n{LOG_END}" + context.aws_request_id + "\\\\n")
                sys.stderr.flush()
            _real_stdout.write(""",
    ),
    Mend(
        LOG_WAIT,
        RUNTIME,
        """        if (settled) return;
        settled = true;
""",
        f"""        if (settled) return;
        settled = true;
        _stderrWrite("\\n{LOG_END}" + ctx.request_id + "\\n");
""",
    ),
    Mend(
        LOG_WAIT,
        RUNTIME,
        """            response["log"] = self._drain_stderr_bounded()
            return response

    def _discard_tmpdir(self):
""",
        f"""            response["log"] = self._drain_stderr_to_end(request_id)
            return response

    def _drain_stderr_to_end(self, request_id):
        if self._proc is None:
            return self._drain_stderr_bounded()
        lines = []
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                line = self._stderr_queue.get(timeout=1)
            except queue.Empty:
                break
            if line == "{LOG_END}" + request_id:
                break
            if line and not line.startswith("{LOG_END}"):
                lines.append(line)
        return "\\n".join(lines)

    def _discard_tmpdir(self):
""",
    ),
    Mend(
        LOG_NOT_TEXT,
        RUNTIME,
        """            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
""",
        """            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            bufsize=1,
""",
    ),
    # Partitions keep their sort keys in order; a query begins at its bound and stops when its page is full.
    # The bounds only narrow: the condition itself is still evaluated for each item that is read.
    Mend(
        PARTITION_READ_WHOLE,
        TABLES,
        """_INDEX_MEMBERS = "_index_members"
""",
        """_INDEX_MEMBERS = "_index_members"

import bisect as _bisect

_partition_lock = threading.RLock()


class _Partition(dict):
    _order = None

    def __setitem__(self, key, value):
        with _partition_lock:
            if self._order is not None and key not in self:
                _bisect.insort(self._order, key)
            super().__setitem__(key, value)

    def pop(self, key, *default):
        with _partition_lock:
            if self._order is not None and key in self:
                del self._order[_bisect.bisect_left(self._order, key)]
            return super().pop(key, *default)

    def __delitem__(self, key):
        self.pop(key)

    def __reduce__(self):
        return dict, (dict(self),)

    def between(self, low, high):
        with _partition_lock:
            if self._order is None:
                self._order = sorted(self)
            start = _bisect.bisect_left(self._order, low) if low is not None else 0
            end = _bisect.bisect_right(self._order, high) if high is not None else len(self._order)
            return self._order[start:end]


def _ordered_items(table, pk_val, sk_name, key_cond, eav, ean, esk, forward):
    partition = table["items"].get(pk_val)
    if partition is None:
        return
    if not isinstance(partition, _Partition):
        partition = table["items"][pk_val] = _Partition(partition)
    names = [re.escape(sk_name), *(re.escape(k) for k, v in (ean or {}).items() if v == sk_name)]
    name = "(?:" + "|".join(names) + r")(?![A-Za-z0-9_])"
    value = lambda ref: ((eav or {}).get(ref) or {}).get("S")
    low = high = None
    if found := re.search(r"begins_with\\s*\\(\\s*" + name + r"\\s*,\\s*(:\\w+)", key_cond, re.IGNORECASE):
        low = value(found[1])
        high = low + chr(0x10FFFF) if low is not None else None
    elif found := re.search(name + r"\\s+BETWEEN\\s+(:\\w+)\\s+AND\\s+(:\\w+)", key_cond, re.IGNORECASE):
        low, high = value(found[1]), value(found[2])
    elif found := re.search(r"(?<![A-Za-z0-9_#])" + name + r"\\s*(<=|>=|=|<|>)\\s*(:\\w+)", key_cond):
        low = value(found[2]) if found[1] in ("=", ">", ">=") else None
        high = value(found[2]) if found[1] in ("=", "<", "<=") else None
    after = (esk or {}).get(sk_name, {}).get("S")
    if after is not None and forward:
        low = after if low is None else max(low, after)
    elif after is not None:
        high = after if high is None else min(high, after)
    keys = partition.between(low, high)
    for key in keys if forward else reversed(keys):
        item = partition.get(key)
        if item is not None and key != after:
            yield item
""",
    ),
    Mend(
        PARTITION_READ_WHOLE,
        TABLES,
        """    table["items"].setdefault(pk_val, {})[sk_val] = item
""",
        """    table["items"].setdefault(pk_val, _Partition())[sk_val] = item
""",
    ),
    Mend(
        PARTITION_READ_WHOLE,
        TABLES,
        """    members = _index_members(table).get(index_name) if index_name else None
    if members is not None:
        # Only this index partition""",
        """    members = _index_members(table).get(index_name) if index_name else None
    ordered = not (index_name or is_gsi or key_conditions) and bool(
        sk_name and key_cond and _get_attr_type(table, sk_name) == "S")
    if ordered:
        candidates = _ordered_items(table, pk_val, sk_name, key_cond, eav, ean, esk, scan_forward)
    elif members is not None:
        # Only this index partition""",
    ),
    Mend(
        PARTITION_READ_WHOLE,
        TABLES,
        """    elif sk_name:
        sk_type = _get_attr_type(table, sk_name)
        candidates.sort(""",
        """    elif sk_name and not ordered:
        sk_type = _get_attr_type(table, sk_name)
        candidates.sort(""",
    ),
    Mend(
        PARTITION_READ_WHOLE,
        TABLES,
        """        candidates = [it for it in candidates if _evaluate_key_conditions_item(it, key_conditions, pk_name)]
    elif key_cond:
        try:
""",
        """        candidates = [it for it in candidates if _evaluate_key_conditions_item(it, key_conditions, pk_name)]
    elif ordered:
        candidates = (it for it in candidates
                      if _evaluate_condition(key_cond, it, eav, ean, slot="KeyConditionExpression"))
    elif key_cond:
        try:
""",
    ),
    Mend(
        PARTITION_READ_WHOLE,
        TABLES,
        """    if esk:
        candidates = _apply_exclusive_start_key(
            candidates, esk, pk_name, range_names if multi_key else sk_name, scan_forward, table=table)
""",
        """    if esk and not ordered:
        candidates = _apply_exclusive_start_key(
            candidates, esk, pk_name, range_names if multi_key else sk_name, scan_forward, table=table)
""",
    ),
    Mend(
        PARTITION_READ_WHOLE,
        TABLES,
        """    # limit — including when the results end exactly at the limit, since it
    # doesn't look ahead. The follow-up page then returns 0 items and no key.
    candidates, has_more = _paginate_evaluated_items(candidates, limit, table, index_name)

    scanned_count = len(candidates)
    query_filter""",
        """    # limit — including when the results end exactly at the limit, since it
    # doesn't look ahead. The follow-up page then returns 0 items and no key.
    try:
        candidates, has_more = _paginate_evaluated_items(candidates, limit, table, index_name)
    except ValueError as exc:
        return error_response_json("ValidationException", str(exc), 400)

    scanned_count = len(candidates)
    query_filter""",
    ),
    # A reference path into the state's input, as the service reads it.
    Mend(
        CONCURRENCY_LOST,
        WORKFLOWS,
        """    max_conc = int(state_def.get("MaxConcurrency") or 0)
""",
        """    if "MaxConcurrencyPath" in state_def:
        max_conc = int(_resolve_path_or_ctx(state_def["MaxConcurrencyPath"], effective, ctx))
    else:
        max_conc = int(state_def.get("MaxConcurrency") or 0)
""",
    ),
    # The positions are stored, the records they count are not.
    Mend(
        STREAM_DEAF,
        SERVICE,
        """        _restore_esm_positions(_dynamodb_stream_positions, data.get("dynamodb_stream_positions", {}))
""",
        """        _restore_esm_positions(_dynamodb_stream_positions, data.get("dynamodb_stream_positions", {}))
        for _position in list(_dynamodb_stream_positions._data):
            _dynamodb_stream_positions._data[_position] = 0
""",
    ),
    # AWS runs a thousand environments; one machine cannot. Past the bound a call waits for a free worker, at
    # most as long as the function's own timeout. (A function that calls itself would wait in vain and then
    # start one more process; none of ours does.)
    Mend(
        PROCESS_BURST,
        RUNTIME,
        """    key = _worker_key(func_name, config, qualifier)
    cap = max_concurrency or _LOCAL_MAX_WORKERS
    with _lock:
        entries = _workers.setdefault(key, [])
""",
        """    key = _worker_key(func_name, config, qualifier)
    cap = max_concurrency or _LOCAL_MAX_WORKERS
    with _worker_freed:
        _worker_freed.wait_for(
            lambda: (len(_workers.get(key, ())) < _WORKERS_PER_FUNCTION
                     or any(not w.in_use for w in _workers[key])),
            timeout=float(config.get("Timeout") or 3),
        )
        entries = _workers.setdefault(key, [])
""",
    ),
    Mend(
        PROCESS_BURST,
        RUNTIME,
        """    if worker is None:
        return
    with _lock:
        worker.in_use = False
""",
        """    if worker is None:
        return
    with _worker_freed:
        worker.in_use = False
        worker.last_used = time.time()
        _worker_freed.notify_all()
""",
    ),
    Mend(
        PROCESS_BURST,
        RUNTIME,
        """        doomed = [w for k in [k for k in _workers if _matches(k)]
                  for w in (_workers.pop(k, []) or [])]
""",
        """        doomed = [w for k in [k for k in _workers if _matches(k)]
                  for w in (_workers.pop(k, []) or [])]
        _worker_freed.notify_all()
""",
    ),
    Mend(
        PROCESS_BURST,
        RUNTIME,
        """_workers: dict = {}
_lock = threading.Lock()
""",
        """_workers: dict = {}
_lock = threading.Lock()
_worker_freed = threading.Condition(_lock)
_WORKERS_PER_FUNCTION = max(1, int(os.environ.get("GRANARY_WORKERS_PER_FUNCTION") or 8))
""",
    ),
)


def mend_source(module: str, source: str) -> str:
    """Return a module's source with its mends applied.

    :raises RuntimeError: a text to replace is missing or not unique; names the fault.
    """
    for mend in MENDS:
        if mend.module != module:
            continue
        found = source.count(mend.old)
        if found != 1:
            raise RuntimeError(
                f"local/emulator.py does not fit the installed ministack: in {module} the text it replaces "
                f"because «{mend.fault}» is there {found} times, not once. Install the version that "
                f"local/requirements.txt pins, or re-check this mend against the new version."
            )
        source = source.replace(mend.old, mend.new)
    return source


class MendingLoader(importlib.machinery.SourceFileLoader):
    """Compiles the mended source; never reads or writes a bytecode cache."""

    def get_code(self, fullname):
        """Return the code object of the mended module."""
        source = importlib.util.decode_source(self.get_data(self.path))
        return compile(mend_source(fullname, source), self.path, "exec", dont_inherit=True)


class MendingFinder(importlib.abc.MetaPathFinder):
    """Gives the mending loader to the modules that have mends."""

    def find_spec(self, fullname, path, target=None):
        """Return the spec of a module to mend, else None."""
        if fullname not in {mend.module for mend in MENDS}:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            return None
        spec.loader = MendingLoader(fullname, spec.origin)
        return spec


def check_mends() -> None:
    """Apply every mend to the installed source and compile it, without importing anything of it."""
    root = importlib.util.find_spec("ministack")
    if root is None or not root.submodule_search_locations:
        raise RuntimeError("ministack is not installed in this Python environment (local/requirements.txt)")
    folder = root.submodule_search_locations[0]
    for module in sorted({mend.module for mend in MENDS}):
        path = os.path.join(folder, *module.split(".")[1:]) + ".py"
        with open(path, encoding="utf-8") as file:
            compile(mend_source(module, file.read()), path, "exec", dont_inherit=True)


def hold_leash() -> None:
    """End this process group as soon as standard input closes, which happens when the starter dies."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="granary-leash", daemon=True).start()


class SaveFailures(logging.Handler):
    """Counts what could not be saved: the emulator logs that and goes on."""

    def __init__(self):
        super().__init__(level=logging.ERROR)
        self.count = 0

    def emit(self, record):
        """Count one failure."""
        self.count += 1


def main() -> None:
    """Mend, then serve until SIGTERM."""
    check_mends()
    if sys.argv[1:] == ["--check"]:
        print(f"{len(MENDS)} mends fit the installed ministack")
        return
    sys.meta_path.insert(0, MendingFinder())
    if os.environ.pop("GRANARY_LEASH", "") == "1":
        hold_leash()
    saved_file = os.environ.pop("GRANARY_SAVED_FILE", "")
    from ministack.app import main as serve

    failures = SaveFailures()
    logging.getLogger("persistence").addHandler(failures)
    try:
        serve()
    except SystemExit as end:
        if end.code not in (0, None):
            raise
    if saved_file and failures.count == 0:
        with open(saved_file, "w", encoding="utf-8") as file:
            file.write("The state beside this file was saved by an orderly stop.\n")


if __name__ == "__main__":
    main()
