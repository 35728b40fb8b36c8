// Package prom exports the state of identities of package rotation to Prometheus.
//
//	registry.MustRegister(prom.NewCollector(map[string]*rotation.Identity{"ingester": id}))
//
// All values are read from [rotation.Identity.Status] at each scrape, so they are those of
// the generation in effect, and do not go stale when a source stops. All metrics begin with
// artstore_identity_ and have the label identity, the key of the map. The values of labels
// are fixed sets: rotations, peers and errors make no new series, and no label has text of
// a certificate.
//
// Three alerts cover most of what goes wrong:
//
//	artstore_identity_not_after_timestamp_seconds - time() < 3600   // depends on your lifetimes
//	artstore_identity_overdue == 1
//	artstore_identity_own_trusted == 0                              // unless a root is being replaced
//
// Refused peers are counted by reason, from 0: no_certificate, unknown_issuer, expired,
// revoked, denied, protocol, other (see [status.RefusedPeers]). Anyone can cause
// no_certificate, unknown_issuer and protocol. A rate of the others means that a
// certificate or a rule is wrong:
//
//	sum by (reason) (rate(artstore_identity_peers_refused_total{reason=~"expired|revoked|denied"}[5m])) > 0
//
// A time that does not exist, for instance of the next renewal, is an absent series and not
// 0, which would be 1970.
package prom

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/status"
)

const prefix = "artstore_identity_"

// NewCollector returns a collector of the identities by name, none of them nil.
// The map is copied. A closed identity keeps its last state; unregister the collector to
// remove it.
func NewCollector(ids map[string]*rotation.Identity) prometheus.Collector {
	c := &collector{
		ids: maps.Clone(ids), metrics: metrics(), others: newOthers(),
		mode:  desc("watch_mode", "How the source learns of changes: 1 at the mode in use. poll alone means that nothing tells of them: the notification of the kernel has failed, or the authority holds no requests.", "mode"),
		peers: desc("peers_refused_total", "Handshakes and requests that the servers of the identity refused, and connections that they cut for it, by reason.", "reason"),
		conns: desc("connections", "Open connections by side and by the generation they were opened under.", "side", "generation"),
	}
	c.names = slices.Sorted(maps.Keys(ids))
	return c
}

type collector struct {
	ids         map[string]*rotation.Identity
	names       []string
	metrics     []metric
	mode, conns *prometheus.Desc
	peers       *prometheus.Desc
	others      others
}

// metric is one number of a status. It is left out if value returns false.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(status.Identity) (v float64, ok bool)
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prefix+name, help, append([]string{"identity"}, labels...), nil)
}

func metrics() []metric {
	return []metric{
		stamp("not_before_timestamp_seconds", "Start of the certificate in effect.", func(s status.Identity) time.Time { return s.NotBefore }),
		stamp("not_after_timestamp_seconds", "End of the certificate in effect.", func(s status.Identity) time.Time { return s.NotAfter }),
		stamp("published_timestamp_seconds", "When the generation came into effect.", func(s status.Identity) time.Time { return s.PublishedAt }),
		stamp("last_success_timestamp_seconds", "When a candidate was last published or found unchanged.", func(s status.Identity) time.Time { return s.LastSuccess }),
		stamp("next_renewal_timestamp_seconds", "When the source will ask for the next certificate, if it does.", func(s status.Identity) time.Time { return s.NextRenewal }),
		stamp("held_until_timestamp_seconds", "When the candidate that waits for its validity is published, if one does.", func(s status.Identity) time.Time { return s.HeldUntil }),
		gauge("generation", "Number of the generation in effect, from 1.", func(s status.Identity) float64 { return float64(s.Generation) }),
		gauge("roots", "Certificates in the trust bundle.", func(s status.Identity) float64 { return float64(s.Roots) }),
		gauge("own_trusted", "1 if the own trust bundle verifies the own chain.", func(s status.Identity) float64 { return bit(s.OwnTrusted) }),
		gauge("overdue", "1 if the certificate should have been renewed by now.", func(s status.Identity) float64 { return bit(s.Overdue) }),
		gauge("consecutive_failures", "Failures of the source and refused candidates since the last success.", func(s status.Identity) float64 { return float64(s.Failures) }),
		count("refused_total", "Candidates and reads that failed, repetitions not counted.", func(s status.Identity) uint64 { return s.Refused }),
		gauge("draining_generations", "Superseded generations that are still in use.", func(s status.Identity) float64 { return float64(s.Draining) }),
		count("connections_drained_total", "Connections that had to go and went.", func(s status.Identity) uint64 { return s.Drained }),
		count("connections_forced_total", "Connections that had to be cut.", func(s status.Identity) uint64 { return s.Forced }),
		gauge("revocation_lists", "Revocation lists in effect.", func(s status.Identity) float64 { return float64(s.RevokedLists) }),
		gauge("revoked_certificates", "Certificates on the revocation lists in effect.", func(s status.Identity) float64 { return float64(s.RevokedSerials) }),
		gauge("revocation_stale", "1 if a revocation list is past its next update; it is enforced all the same.", func(s status.Identity) float64 { return bit(s.RevokedStale) }),
		stamp("revocation_oldest_timestamp_seconds", "Issue of the oldest revocation list in effect, if there is one.", func(s status.Identity) time.Time { return s.RevokedAt }),
	}
}

func gauge(name, help string, value func(status.Identity) float64) metric {
	return metric{desc(name, help), prometheus.GaugeValue, func(s status.Identity) (float64, bool) { return value(s), true }}
}

func count(name, help string, value func(status.Identity) uint64) metric {
	return metric{desc(name, help), prometheus.CounterValue, func(s status.Identity) (float64, bool) { return float64(value(s)), true }}
}

func stamp(name, help string, value func(status.Identity) time.Time) metric {
	return metric{desc(name, help), prometheus.GaugeValue, func(s status.Identity) (float64, bool) {
		t := value(s)
		return float64(t.UnixMilli()) / 1000, !t.IsZero()
	}}
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		out <- m.desc
	}
	out <- c.mode
	out <- c.conns
	out <- c.peers
	c.others.describe(out)
}

// Collect implements [prometheus.Collector]. Each identity is asked once, so
// that the figures of one scrape belong together.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	for _, name := range c.names {
		c.collect(out, name, c.ids[name].Status())
	}
}

func (c *collector) collect(out chan<- prometheus.Metric, name string, st status.Identity) {
	for _, m := range c.metrics {
		if v, ok := m.value(st); ok {
			out <- prometheus.MustNewConstMetric(m.desc, m.kind, v, name)
		}
	}
	c.others.collect(out, name, st.Others)
	for reason, n := range st.RefusedPeers.All() {
		out <- prometheus.MustNewConstMetric(c.peers, prometheus.CounterValue, float64(n), name, reason)
	}
	if st.WatchMode != "" {
		out <- prometheus.MustNewConstMetric(c.mode, prometheus.GaugeValue, 1, name, st.WatchMode)
	}
	// Not by the number of the generation: each rotation would make new series. It matters
	// only whether connections with an old certificate are open.
	var current, superseded status.Connections
	for _, n := range st.Connections {
		sum := &superseded
		if n.Generation == st.Generation {
			sum = &current
		}
		sum.Client += n.Client
		sum.Server += n.Server
	}
	for age, n := range map[string]status.Connections{"current": current, "superseded": superseded} {
		out <- prometheus.MustNewConstMetric(c.conns, prometheus.GaugeValue, float64(n.Client), name, "client", age)
		out <- prometheus.MustNewConstMetric(c.conns, prometheus.GaugeValue, float64(n.Server), name, "server", age)
	}
}
