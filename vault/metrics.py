"""Figures for Prometheus, read from the parts that know them when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from vault.interfaces import IBackend

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Figures(Collector):
    """``totals`` gives the entries and bytes stored, ``fills`` how many transfers run, ``backends`` who has more."""

    def __init__(
        self,
        totals: Callable[[], tuple[int, int]],
        fills: Callable[[], int],
        backends: Callable[[], Iterable[IBackend]],
    ) -> None:
        self._totals = totals
        self._fills = fills
        self._backends = backends
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing in advance: what there is depends on the backends."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families, as they stand now."""
        entries, size = self._totals()
        yield GaugeMetricFamily("vault_cache_entries", "Entries in the cache.", value=entries)
        yield GaugeMetricFamily("vault_cache_bytes", "Bytes in the cache, each content counted once.", value=size)
        yield GaugeMetricFamily(
            "vault_fills", "Transfers from upstreams into the cache in progress.", value=self._fills()
        )
        families: dict[str, GaugeMetricFamily] = {}
        for backend in self._backends():
            for figure in backend.figures():
                labels = {"backend": backend.name, **figure.labels}
                family = families.get(figure.name)
                if family is None:
                    family = GaugeMetricFamily(f"vault_{figure.name}", figure.help, labels=list(labels))
                    families[figure.name] = family
                family.add_metric(list(labels.values()), figure.value)
        yield from families.values()
