"""What the API counts, beside what `common/observability/metrics.py` has for both sides."""

from prometheus_client import Counter

from common.observability.metrics import PROCESS

STREAM_OVERFLOWS = Counter(
    "throughline_stream_overflows_total", "Readers sent back to the log since they were too slow", registry=PROCESS
)
STREAMS_CUT = Counter("throughline_streams_cut_total", "Streams cut since their reader took nothing", registry=PROCESS)
SUBSCRIBER_LOSSES = Counter(
    "throughline_subscriber_losses_total", "Subscriptions to Redis lost as a whole, to be made anew", registry=PROCESS
)
