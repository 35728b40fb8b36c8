package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/artstore/artstore-pki/ingestclient/spool"
)

// spoolCollector shows a spool's snapshot.
type spoolCollector struct{ spool *spool.Spool }

var (
	spoolEnded  = prometheus.NewDesc("ingester_spool_files_total", "Files that came to an end, by how.", []string{"result"}, nil)
	spoolFiles  = prometheus.NewDesc("ingester_spool_files", "Files that are not stored yet, by where they are.", []string{"state"}, nil)
	spoolOldest = prometheus.NewDesc("ingester_spool_oldest_seconds", "Age of the file that waits longest.", nil, nil)
	spoolPaused = prometheus.NewDesc("ingester_spool_paused", "1 while nothing is sent, by why.", []string{"reason"}, nil)
)

// Describe implements [prometheus.Collector].
func (spoolCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{spoolEnded, spoolFiles, spoolOldest, spoolPaused} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c spoolCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.spool.Snapshot()
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count(spoolEnded, float64(s.Stored), "stored")
	count(spoolEnded, float64(s.Failed), "failed")
	count(spoolEnded, float64(s.Ambiguous), "ambiguous")
	gauge(spoolFiles, float64(s.Waiting), "waiting")
	gauge(spoolFiles, float64(s.Claimed-s.Uploading), "claimed")
	gauge(spoolFiles, float64(s.Uploading), "uploading")
	gauge(spoolOldest, s.Oldest)
	if s.Reason != "" {
		gauge(spoolPaused, 1, s.Reason)
	}
}
