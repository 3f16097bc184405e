"""The Lambda entry of the clusterer: reads a run's data, clusters it, writes the result, answers with a summary.

Event (see `_event.parse` for the checks and defaults):

    {"vectors_url", "rows", "dims", "texts_url", "result_url",
     "metric": "cosine" | "dot" | "euclid",
     "algorithm": {"name": one of algorithms.REGISTRY, "params": {}},
     "preprocessing": [{"step": one of _preprocess.STEPS, "params": {"n_components"}}],
     "reduction": {"method": "auto" | "none" | "umap" | "pca", "n_components"},
     "map": {"method": "umap" | "pca" | "tsne", "n_components": 2 | 3},
     "labels": {"samples_per_cluster", "sample_chars", "keywords": true | false | count},
     "seed", "previous": {"assignments": {document_id: cluster_id}} or {"result_url": address of an earlier result}}

Answer: {"num_clusters", "num_points", "message", "noise_ratio"}. The result itself, with its rows, goes to result_url.
Failures are the exceptions of `_errors`, by class name. Needs no rights but its log.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from typing import Any

import _event
import _run
import _transport
from _errors import ClustererError, ClusteringFailed

logger = logging.getLogger('clusterer')


def handler(event: Any, context: Any) -> dict[str, Any]:
    try:
        return _handle(event)
    except ClustererError:
        raise
    except MemoryError:
        raise ClusteringFailed('the run needs more memory than the function has; cluster a smaller selection') from None
    except Exception as error:
        # The trace belongs in the log; it may quote data, and the caller can do nothing with it.
        logger.exception('cluster run failed')
        raise ClusteringFailed(f'a fault in the clusterer ({type(error).__name__}); its log has the details') from None


def _handle(event: Any) -> dict[str, Any]:
    request = _event.parse(event)
    if request.previous_url and not request.previous:
        previous = _event.assignments_of(_transport.read_json(request.previous_url))
        request = dataclasses.replace(request, previous=previous)
    started = time.perf_counter()
    if request.rows:
        vectors = _transport.read_vectors(request.vectors_url, request.rows, request.dims)
        document_ids, texts = _transport.read_texts(request.texts_url, request.rows)
    else:
        vectors, document_ids, texts = _run.no_vectors(request), [], []
    read_seconds = round(time.perf_counter() - started, 3)
    result = _run.run(request, vectors, document_ids, texts)
    result['timings'] = {'read_seconds': read_seconds, **result['timings']}
    result_bytes = _transport.write_json(request.result_url, result)
    summary = {
        'num_clusters': result['num_clusters'],
        'num_points': result['num_points'],
        'message': result['message'],
        'noise_ratio': result['metrics']['noise_ratio'],
    }
    print(json.dumps({'result_bytes': result_bytes, **summary, 'timings': result['timings']}))
    return summary
