package agentcmd

import (
	"context"
	"errors"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/rotation/agent"
	"github.com/artstore/artstore-pki/rotation/prom"
)

const prefix = "artstore_agent_"

// collector exports the state of the agent, and that of its identities by rotation/prom. An
// identity without a certificate has the series of the agent only.
type collector struct {
	a              *agent.Agent
	metrics        []metric
	refused, calls *prometheus.Desc
}

// metric is one number of the status of an identity. It is left out if value returns false.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(agent.IdentityStatus) (v float64, ok bool)
}

// newCollector returns the collector of an agent. The values of its one label are the names of the
// configuration, so no certificate and no authority can make new series.
func newCollector(a *agent.Agent) *collector {
	gauge := func(name, help string, value func(agent.IdentityStatus) float64) metric {
		return metric{prometheus.NewDesc(prefix+name, help, []string{"identity"}, nil), prometheus.GaugeValue, func(s agent.IdentityStatus) (float64, bool) { return value(s), true }}
	}
	count := func(name, help string, value func(agent.IdentityStatus) uint64) metric {
		return metric{prometheus.NewDesc(prefix+name, help, []string{"identity"}, nil), prometheus.CounterValue, func(s agent.IdentityStatus) (float64, bool) { return float64(value(s)), true }}
	}
	refused := prometheus.NewDesc(prefix+"config_refused", "1 if the last configuration that was read is not in effect.", nil, nil)
	calls := prometheus.NewDesc(prefix+"workload_calls_total", "Messages and refusals of the Workload API.", []string{"outcome"}, nil)
	return &collector{a: a, refused: refused, calls: calls, metrics: []metric{
		gauge("problem", "1 if an operator should look at the identity: agent status says why.", func(s agent.IdentityStatus) float64 { return bit(s.Problem != "") }),
		gauge("has_certificate", "1 if there is a certificate.", func(s agent.IdentityStatus) float64 { return bit(s.Serial != "") }),
		gauge("renewal_failures", "Failed renewals since the last success.", func(s agent.IdentityStatus) float64 { return float64(s.RenewalFailures) }),
		gauge("delivered", "1 if hook and servers have the files in effect.", func(s agent.IdentityStatus) float64 {
			return bit(s.Delivery.State == "delivered" && s.Delivery.Serial == s.Serial)
		}),
		gauge("proved", "1 if each of the servers serves the certificate in effect.", func(s agent.IdentityStatus) float64 { return bit(s.Delivery.Proved) }),
		gauge("alarm", "1 if the files in effect could not be delivered by two attempts.", func(s agent.IdentityStatus) float64 { return bit(s.Delivery.Alarm) }),
		gauge("delivery_failures", "Failed deliveries since the last success.", func(s agent.IdentityStatus) float64 { return float64(s.Delivery.Failures) }),
		count("hook_runs_total", "Runs of the hook.", func(s agent.IdentityStatus) uint64 { return s.Delivery.HookRuns }),
		count("hook_failures_total", "Runs of the hook that failed.", func(s agent.IdentityStatus) uint64 { return s.Delivery.HookFailed }),
		{prometheus.NewDesc(prefix+"delivered_timestamp_seconds", "When files were last delivered.", []string{"identity"}, nil), prometheus.GaugeValue, func(s agent.IdentityStatus) (float64, bool) {
			return float64(s.Delivery.At.Unix()), !s.Delivery.At.IsZero()
		}},
	}}
}

// bit returns 1 for true, as Prometheus has it.
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
	out <- c.refused
	out <- c.calls
	prom.NewCollector(nil).Describe(out)
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(out chan<- prometheus.Metric) {
	st := c.a.Status()
	out <- prometheus.MustNewConstMetric(c.refused, prometheus.GaugeValue, bit(st.ConfigError != ""))
	if st.Workload != nil {
		for outcome, n := range st.Workload.Calls {
			out <- prometheus.MustNewConstMetric(c.calls, prometheus.CounterValue, float64(n), outcome)
		}
	}
	for _, s := range st.Identities {
		for _, m := range c.metrics {
			if v, ok := m.value(s); ok {
				out <- prometheus.MustNewConstMetric(m.desc, m.kind, v, s.Name)
			}
		}
	}
	prom.NewCollector(c.a.Identities()).Collect(out)
}

// metricsOf returns the server for the metrics of the agent.
func metricsOf(a *agent.Agent) serving.Metrics {
	registry := serving.NewRegistry()
	registry.MustRegister(newCollector(a))
	return serving.Metrics{Registry: registry, Ready: func(context.Context) error { return firstProblem(a) }}
}

// firstProblem returns why the agent is not ready: what an operator should look at first, or nil.
func firstProblem(a *agent.Agent) error {
	if lines := a.Status().Problems(); len(lines) > 0 {
		return errors.New(lines[0])
	}
	return nil
}

// notify tells the service manager how the agent is, once each identity has been tried. That
// takes the locks of all identities: one that is stuck stops the watchdog.
func notify(ctx context.Context, log *slog.Logger, a *agent.Agent) error {
	if err := a.Ready(ctx); err != nil {
		return err
	}
	return serving.Notify(ctx, log, func(context.Context) error { return firstProblem(a) })
}
