package prom

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/artstore/artstore-pki/rotation/status"
)

// others has the metrics of the other certificates of a server. Their label is the name of
// the file in the configuration, or the index: a fixed set too.
type others struct{ notAfter, served *prometheus.Desc }

func newOthers() others {
	return others{
		notAfter: desc("other_not_after_timestamp_seconds", "End of another certificate of the server, while it is in use.", "certificate"),
		served:   desc("other_served", "1 if handshakes can choose this other certificate, 0 if it is left out.", "certificate"),
	}
}

func (o others) describe(out chan<- *prometheus.Desc) {
	out <- o.notAfter
	out <- o.served
}

func (o others) collect(out chan<- prometheus.Metric, identity string, all []status.Other) {
	for _, st := range all {
		out <- prometheus.MustNewConstMetric(o.served, prometheus.GaugeValue, bit(st.Served), identity, st.Name)
		if st.Served {
			out <- prometheus.MustNewConstMetric(o.notAfter, prometheus.GaugeValue, float64(st.NotAfter.UnixMilli())/1000, identity, st.Name)
		}
	}
}
