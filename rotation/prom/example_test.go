package prom_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/prom"
)

// One collector for all identities of a process, usually one.
func ExampleNewCollector() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // for a source that has nothing yet
	defer cancel()
	id, err := rotation.Open(ctx, rotation.Config{
		Source: exampleSource(), // such as files.Source or enroll.New
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = id.Close() }()

	registry := prometheus.NewRegistry()
	registry.MustRegister(prom.NewCollector(map[string]*rotation.Identity{"storage": id}))

	families, err := registry.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "artstore_identity_generation" {
			fmt.Println(f.GetName(), f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	// Output:
	// artstore_identity_generation 1
}

func exampleSource() rotation.Source {
	t := pkitest.Example()
	return rotation.Static(pkitest.NewCA(t).Leaf(t, "storage"))
}
