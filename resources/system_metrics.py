"""Load of the machine during a run, measured by MLflow's own monitor.

Not here: logging the values (`resources.tracking`).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.progress import Log

SECONDS = 10.0
"""Sampling interval, MLflow's default; a shorter run has no samples."""

OnSample = Callable[[Mapping[str, float], int], None]


@contextmanager
def sampled_load(on_sample: OnSample, log: Log, seconds: float = SECONDS) -> Iterator[None]:
    """Call `on_sample(metrics, number)` from a thread every `seconds`: CPU, memory, disk, network and NVIDIA GPUs.

    If the machine cannot be monitored, logs that and samples nothing.
    """
    monitor = None
    try:
        monitor = _monitor(on_sample, seconds)
        monitor.start()
    except Exception as error:
        log(f"The machine's load is not recorded ({type(error).__name__}).")
    try:
        yield
    finally:
        if monitor is not None:
            monitor.finish()


def _monitor(on_sample: OnSample, seconds: float) -> Any:
    from mlflow.system_metrics import system_metrics_monitor

    base: Any = system_metrics_monitor.SystemMetricsMonitor

    class Monitor(base):  # type: ignore[misc]  # its methods have no types
        """MLflow's monitor queries the server before each sample and stops at the first failure; this one does not."""

        def monitor(self) -> None:
            self.collect_metrics()  # discarded: CPU load is measured since the previous call
            self._clear()
            while not self._shutdown_event.wait(seconds):
                self.collect_metrics()
                self.publish_metrics(self.aggregate_metrics())

        def publish_metrics(self, metrics: Mapping[str, float]) -> None:
            on_sample({f"system/{name}": value for name, value in metrics.items()}, self._logging_step)
            self._logging_step += 1
            self._clear()

        def _clear(self) -> None:
            for monitor in self.monitors:
                monitor.clear_metrics()

    return Monitor("", tracking_uri="http://unused.invalid")  # it sends nothing itself
