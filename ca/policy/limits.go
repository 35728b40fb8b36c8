package policy

import (
	"math"
)

// Limits say how often one address, and one service by its client certificate,
// may send a request. They are applied before a request is parsed.
type Limits struct {
	PerAddress *Rate `yaml:"per_address,omitempty"` // absent: 1000 a second, 2000 at once; IPv6 by /64
	PerService *Rate `yaml:"per_service,omitempty"` // absent: 200 a second, 1000 at once
	// PerEnroller is how often one service may ask for enrolment tokens; absent: 5 a
	// second, 100 at once. Each is an event of the record.
	PerEnroller *Rate `yaml:"per_enroller,omitempty"`
	// Connections that may be open at once, and how many of them one address may
	// have: see connlimit.Caps, which has the defaults for 0. The listener's owner enforces them.
	Connections           int `yaml:"connections,omitempty"`
	ConnectionsPerAddress int `yaml:"connections_per_address,omitempty"`
	// Watchers are how many services may wait for changes at a time, each with a request
	// that is held open (GET /watch). Their connections do not count above. 0 means 10000.
	Watchers int `yaml:"watchers,omitempty"`
}

// Rate is a token bucket.
type Rate struct {
	PerSecond float64 `yaml:"per_second"` // 0 means no limit
	Burst     int     `yaml:"burst"`      // requests at once; 0 means twice PerSecond
}

func (l Limits) parse(bad *problems) Limits {
	one := func(key string, r *Rate, def Rate) *Rate {
		if r == nil {
			return &def
		}
		out := *r
		if out.PerSecond < 0 || out.PerSecond > 1e6 || math.IsNaN(out.PerSecond) || out.Burst < 0 || out.Burst > 1e6 {
			bad.add("limits.%s: want numbers from 0 to 1000000", key)
		}
		if out.Burst == 0 {
			out.Burst = max(1, int(2*out.PerSecond))
		}
		return &out
	}
	for key, n := range map[string]int{"connections": l.Connections, "connections_per_address": l.ConnectionsPerAddress, "watchers": l.Watchers} {
		if n < 0 || n > 1e6 {
			bad.add("limits.%s: want a number from 0 to 1000000", key)
		}
	}
	return Limits{
		PerAddress: one("per_address", l.PerAddress, Rate{1000, 2000}),
		PerService: one("per_service", l.PerService, Rate{200, 1000}),

		PerEnroller: one("per_enroller", l.PerEnroller, Rate{5, 100}),
	}
}
