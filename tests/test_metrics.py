"""Figures for Prometheus: what is stored and under way, and what backends add."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

from tests.memory import LIMITS, Client, Rig, RigCase
from vault.backends.http import HTTPBackend
from vault.interfaces import Figure
from vault.metrics import CONTENT_TYPE, Figures
from vault.web.accesslog import AccessLog
from vault.web.health import Metrics
from vault.web.root import RootResource
from vault.web.site import VaultSite


class Counting(HTTPBackend):
    """Has figures of its own."""

    def figures(self) -> Iterable[Figure]:
        """Two of one family."""
        return [Figure("pulls_left", "Pulls left.", {"registry": name}, left) for name, left in (("a", 5), ("b", 0))]


class MetricsTests(RigCase):
    """``/metrics``."""

    def page(self, rig: Rig) -> Client:
        """The answer."""
        figures = Figures(rig.store.totals, lambda: len(rig.transfers), lambda: [rig.backend])
        root = RootResource([rig.resource], rig.store.problems, Metrics(figures.exposition, CONTENT_TYPE))
        rig.site = VaultSite(root, reactor=rig.net, limits=LIMITS, access_log=AccessLog("text"))
        return rig.request("/metrics")

    def samples(self, client: Client) -> dict[str, float]:
        """The samples by name and labels."""
        found = {}
        for family in text_string_to_metric_families(client.body.decode()):
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    def test_cache(self) -> None:
        """It tells how much is stored, each content counted once, and how many fills are under way."""
        rig = self.rig()
        for path in ("a", "b"):
            rig.fill(path, b"hello")
        rig.request("c")
        client = self.page(rig)
        self.assertEqual((client.status, client.headers["content-type"]), (200, CONTENT_TYPE))
        expected = {"vault_cache_entries": 2, "vault_cache_bytes": 5, "vault_fills": 1}
        self.assertEqual(self.samples(client), expected)
        rig.origin.last.answer(404)

    def test_backends(self) -> None:
        """Backends add figures of their own, labelled with their name."""
        rig = self.rig(backend=Counting("files", "/files/", ("http://origin.test/",)))
        samples = self.samples(self.page(rig))
        self.assertEqual(samples["vault_pulls_left{backend=files,registry=a}"], 5)
        self.assertEqual(samples["vault_pulls_left{backend=files,registry=b}"], 0)
