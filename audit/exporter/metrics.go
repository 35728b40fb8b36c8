package exporter

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/internal/printable"
)

// maxSource bounds the name of a source in a label, in bytes.
const maxSource = 256

// drifts are the checks that compare disk, servers and record.
var drifts = []string{"replaced", "not-seen", "not-recorded"}

// sinceMemory knows when differences were first seen by a scrape. One that is not seen any more is
// forgotten. One scrape at a time uses it.
type sinceMemory struct {
	mu    sync.Mutex
	round uint64
	now   time.Time
	at    map[sinceKey]*sinceEntry
}

type sinceKey struct{ certificate, place, check string }

type sinceEntry struct {
	first time.Time
	round uint64 // of the scrape that has seen it last
}

// begin begins a scrape.
func (m *sinceMemory) begin(now time.Time) (round uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.round++
	m.now = now
	return m.round
}

// of returns when a finding was first seen, or the zero time if it is no difference.
func (m *sinceMemory) of(round uint64, r *audit.Row, f *audit.Finding) time.Time {
	if r.Cert == nil || !slices.Contains(drifts, f.Check) {
		return time.Time{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := sinceKey{string(r.Cert.Fingerprint[:]), r.Place, f.Check}
	e := m.at[key]
	if e == nil {
		e = &sinceEntry{first: m.now}
		m.at[key] = e
	}
	e.round = round
	return e.first
}

// end forgets what a scrape that was complete has not seen.
func (m *sinceMemory) end(round uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, e := range m.at {
		if e.round != round {
			delete(m.at, key)
		}
	}
}

// prefix tells these metrics from those of the audit, which other programs write too.
const prefix = "artstore_exporter_"

// desc returns the description of a metric of the exporter.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prefix+name, help, labels, nil)
}

// metricDescs are the metrics of the exporter itself. docs/exporter.md lists them.
var metricDescs = struct {
	up, success, took, rounds, failures, cut, config, loaded, ready, dirs, watched, reads, client *prometheus.Desc
}{
	desc("source_up", "1 if the last attempt to look at a source did not fail.", "kind", "source"),
	desc("source_last_success_timestamp_seconds", "When a source was last looked at without a failure.", "kind", "source"),
	desc("source_last_duration_seconds", "How long the last attempt took.", "kind", "source"),
	desc("source_rounds_total", "Attempts to look at a source.", "kind", "source"),
	desc("source_failures_total", "Attempts that failed.", "kind", "source"),
	desc("sources_cut", "Sources for whose series there was no room."),
	desc("config_good", "0 if the configuration could not be read when it was last tried; then the one of before is in effect."),
	desc("config_last_success_timestamp_seconds", "When the configuration was last read."),
	desc("ready", "1 if all targets were looked at once."),
	desc("directories", "Directories with files of targets."),
	desc("watched_directories", "Directories of which the system tells changes. Others are looked at by the schedule."),
	desc("file_reads_total", "Files and sets of files that were read since the configuration is in effect."),
	desc("client_certificate_not_after_timestamp_seconds", "When the certificate ends that the exporter shows to servers."),
}

// collector is the collector of an exporter.
type collector struct{ e *Exporter }

// Describe implements [prometheus.Collector].
func (c collector) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, out) }

// Collect implements [prometheus.Collector].
func (c collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	d := &metricDescs
	s := c.e.current.Load()
	c.sources(s, out)
	c.e.config.mu.Lock()
	gauge(d.config, bit(c.e.config.good))
	gauge(d.loaded, float64(c.e.config.loaded.Unix()))
	c.e.config.mu.Unlock()
	gauge(d.ready, bit(s.complete()))
	s.mu.Lock()
	gauge(d.dirs, float64(s.watched.dirs))
	gauge(d.watched, float64(s.watched.watched))
	s.mu.Unlock()
	out <- prometheus.MustNewConstMetric(d.reads, prometheus.CounterValue, float64(s.live.Reads()))
	if pair := s.cfg.Certificate; pair != nil {
		gauge(d.client, float64(pair.Leaf.NotAfter.Unix()))
	}
}

// sourceSeries is how many series a source has.
const sourceSeries = 5

// sources collects the series of sources. They get half of the room for series at most. Names that
// are equal after they were cleaned and cut have one series.
func (c collector) sources(s *session, out chan<- prometheus.Metric) {
	room, cut := s.cfg.maxSeries/2/sourceSeries, 0
	seen := map[[2]string]bool{}
	d := &metricDescs
	one := func(kind, name string, err error, success time.Time, took time.Duration, rounds, failures uint64) {
		id := [2]string{kind, printable.Line(name, maxSource)}
		if seen[id] || len(seen) >= room {
			cut++
			return
		}
		seen[id] = true
		gauge := func(d *prometheus.Desc, v float64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, id[:]...)
		}
		gauge(d.up, bit(err == nil && rounds > 0))
		if !success.IsZero() {
			gauge(d.success, float64(success.UnixMilli())/1000)
		}
		gauge(d.took, took.Seconds())
		out <- prometheus.MustNewConstMetric(d.rounds, prometheus.CounterValue, float64(rounds), id[:]...)
		out <- prometheus.MustNewConstMetric(d.failures, prometheus.CounterValue, float64(failures), id[:]...)
	}
	if s.cfg.Record != "" {
		s.mu.Lock()
		r := s.recorded
		s.mu.Unlock()
		one("record", s.cfg.Record, r.err, r.success, r.took, r.rounds, r.failures)
	}
	for _, t := range s.live.Status() {
		kind := "path"
		if t.Server {
			kind = "server"
		}
		one(kind, t.Name, t.Err, t.Success, t.Took, t.Rounds, t.Failures)
	}
	out <- prometheus.MustNewConstMetric(d.cut, prometheus.GaugeValue, float64(cut))
}

// bit returns 1 for true, as Prometheus has it.
func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
