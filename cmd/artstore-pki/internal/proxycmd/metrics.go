package proxycmd

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/artstore/artstore-pki/rotation/proxy"
)

const prefix = "artstore_proxy_"

// collector reads the figures of a proxy at each scrape.
type collector struct {
	stats                                 func() proxy.Stats
	open, accepted, requests, bytes, fail *prometheus.Desc
}

func newCollector(stats func() proxy.Stats) *collector {
	desc := func(name, text string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prefix+name, text, labels, nil)
	}
	return &collector{
		stats:    stats,
		open:     desc("connections", "Open connections of those who connect to the proxy, handshakes included."),
		accepted: desc("connections_total", "Connections that were accepted."),
		requests: desc("requests_total", "Requests of HTTP."),
		bytes:    desc("bytes_total", "Bytes from and to those who connect to the proxy, by direction: received, sent.", "direction"),
		fail:     desc("failures_total", "Connections and requests that failed, by kind: unreachable, broken, peer, idle, request, user.", "kind"),
	}
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, out) }

// Collect implements [prometheus.Collector].
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.stats()
	out <- prometheus.MustNewConstMetric(c.open, prometheus.GaugeValue, float64(s.Connections))
	out <- prometheus.MustNewConstMetric(c.accepted, prometheus.CounterValue, float64(s.Accepted))
	out <- prometheus.MustNewConstMetric(c.requests, prometheus.CounterValue, float64(s.Requests))
	out <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(s.Received), "received")
	out <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(s.Sent), "sent")
	for kind, n := range s.Failures() {
		out <- prometheus.MustNewConstMetric(c.fail, prometheus.CounterValue, float64(n), kind)
	}
}
