"""How busy the machine is during a run, as MLflow's own monitor measures it.

Belongs here: sampling in the background. Not here: what is done with a sample.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.progress import Log

SECONDS = 10.0
"""Between two samples, MLflow's default; a shorter run has none."""

OnSample = Callable[[Mapping[str, float], int], None]


@contextmanager
def watching(on_sample: OnSample, log: Log, seconds: float = SECONDS) -> Iterator[None]:
    """Call `on_sample(metrics, number)` every `seconds` from a thread: CPU, memory, disk, network, NVIDIA's GPUs.

    A machine that does not tell these is said, and not watched.
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
        """MLflow's asks its server before each sample, and ends with the first that it cannot send."""

        def monitor(self) -> None:
            self.collect_metrics()  # the CPU's load is that since it was last asked for: at first it means nothing
            self._forget()
            while not self._shutdown_event.wait(seconds):
                self.collect_metrics()
                self.publish_metrics(self.aggregate_metrics())

        def publish_metrics(self, metrics: Mapping[str, float]) -> None:
            on_sample({f"system/{name}": value for name, value in metrics.items()}, self._logging_step)
            self._logging_step += 1
            self._forget()

        def _forget(self) -> None:
            for monitor in self.monitors:
                monitor.clear_metrics()

    return Monitor("", tracking_uri="http://unused.invalid")  # it sends nothing itself
